"""One run of a sweep: a model trained with one α and one seed, and what it reached."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import BatchMix
from ..arguments import kind
from ..calibration import expected_calibration_error
from ..recipes import Recipe
from .options import LEARNING_RATE
from .records import MEASURED, Record
from .user_module import UserModule, batches, loaders_of


def seed_all(seed: int) -> None:
    """Begin a run alike, whatever ran before: a resumed sweep equals one that never stopped."""
    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)  # numpy is optional


def recipe_of(recipe: str | None, vary: str, alpha: float) -> Recipe:
    """The recipe with one α; without mixing for α 0."""
    if recipe is None:
        base: Any = {"smoothing": 0.0}
        given: dict[str, Any] = {vary: alpha}
    else:
        base, given = recipe, {vary: alpha}
        if Recipe(recipe).settings.get("mix") is not None:
            raise ValueError(
                f"--recipe: expected one of {vary}, got variants by name, whose α are in mix"
            )
    if alpha == 0.0:
        given = {"mixup_alpha": 1.0, "prob": 0.0}
    # The batches may be the user's own tensors, which the next epoch reads again.
    return Recipe(base, inplace=False, **given)


def train_run(
    user: UserModule,
    recipe: Recipe,
    seed: int,
    epochs: int,
    lr: float | None,
    device: torch.device,
    after_epoch: Callable[[], None],
) -> Record:
    """What a run reached, of a model that is thrown away. None for each where it diverged."""
    began = time.perf_counter()
    seed_all(seed)
    train, validation = loaders_of(user)
    model = user.make_model()
    if not isinstance(model, nn.Module):
        raise TypeError(f"make_model: expected a torch.nn.Module, got {type(model).__name__}")
    model = model.to(device)
    num_classes = count_classes(model, validation, device)  # this also fills lazy modules
    mixer = BatchMix(**{**recipe.settings, "num_classes": num_classes, "seed": seed}).to(device)
    if user.make_optimizer is not None:
        optimizer = user.make_optimizer(model)
        if not hasattr(optimizer, "step") or not hasattr(optimizer, "zero_grad"):
            raise TypeError(f"make_optimizer: expected an optimizer, got {kind(optimizer)}")
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE if lr is None else lr)
    criterion = recipe.criterion.to(device)
    finite = True
    for epoch in range(epochs):
        if finite:
            mixer.set_epoch(epoch)
            finite = train_epoch(model, mixer, criterion, optimizer, train, device)
        after_epoch()
    record: Record = measure(model, train, validation, device) if finite else {}
    if not all(map(math.isfinite, record.values())):  # in eval mode alone
        record = {}
    return {**dict.fromkeys(MEASURED), **record, "seconds": round(time.perf_counter() - began, 3)}


def train_epoch(
    model: nn.Module,
    mixer: BatchMix,
    criterion: nn.Module,
    optimizer: Any,
    loader: Any,
    device: torch.device,
) -> bool:
    """One pass over the training data; whether its losses were finite."""
    model.train()
    total = torch.zeros((), device=device)
    for x, labels in batches(loader, device):
        x, target = mixer(x, labels)
        loss = criterion(model(x), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach()  # read once an epoch
    return math.isfinite(total.item())


@torch.no_grad()
def predict(model: nn.Module, loader: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and labels [N] of a whole loader, unmixed."""
    model.eval()
    pairs = [(model(x).float(), labels) for x, labels in batches(loader, device)]
    return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])


def measure(model: nn.Module, train: Any, validation: Any, device: torch.device) -> Record:
    found: Record = {}
    for name, loader in (("train", train), ("val", validation)):
        logits, labels = predict(model, loader, device)
        found[f"{name}_loss"] = functional.cross_entropy(logits, labels).item()
        found[f"{name}_accuracy"] = (logits.argmax(1) == labels).double().mean().item()
    # Of the validation data, which are the last.
    found["val_ece"] = expected_calibration_error(logits, labels, from_logits=True).item()
    return found


@torch.no_grad()
def count_classes(model: nn.Module, loader: Any, device: torch.device) -> int:
    model.eval()
    x, _ = next(batches(loader, device))
    logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"make_model: expected logits [{len(x)}, K] from the model, got {shape}")
    return logits.shape[1]
