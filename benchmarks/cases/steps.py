"""Times whole training steps, and what augmentation and loss take of them.

SGD on random images. Both sides train the same network from the same weights.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

from .. import installed_peers
from ..registry import OURS, Case, Provider, Work
from ..sides import LAM, SMOOTHING
from .losses import dense_target
from .mixing import eager_flip

CLASSES = 1000
NETWORKS = {
    "ResNet-18": ("resnet18", {}),
    "ViT-Ti": ("vit_tiny_patch16_224", {"patch_size": 8}),
}
PARTS = ("augmentation", "loss", "network")


def eager_target(labels: torch.Tensor, plan: MixPlan) -> torch.Tensor:
    return dense_target(labels, CLASSES)


def eager_loss(z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.sum(-target * F.log_softmax(z, dim=-1), dim=-1).mean()


def fused_target(labels: torch.Tensor, plan: MixPlan) -> MixedTarget:
    return MixedTarget.from_labels(labels, plan, CLASSES, SMOOTHING)


def provider(
    net: torch.nn.Module,
    labels: torch.Tensor,
    mixing: Callable,
    make_target: Callable,
    loss_of: Callable,
) -> Provider:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    plan = MixPlan.uniform(len(labels), "flip", LAM)
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    # Without a synchronisation each part on a GPU would show the host's time alone.
    wait = torch.cuda.synchronize if labels.is_cuda else lambda: None
    autocast = torch.autocast(labels.device.type, torch.bfloat16, enabled=labels.is_cuda)

    def step(x: torch.Tensor) -> torch.Tensor:
        marks = []

        def mark() -> None:
            wait()
            marks.append(time.perf_counter())

        mark()
        mixing(x, plan)
        mark()
        with autocast:
            z = net(x)
        mark()
        logits = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(logits, make_target(labels, plan)), logits)
        mark()
        z.backward(gradient)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mark()
        spent = [b - a for a, b in itertools.pairwise(marks)]
        seconds = (spent[0], spent[2], spent[1] + spent[3])
        for name, one in zip(PARTS, seconds, strict=True):
            parts[name].append(one)
        return gradient

    return Provider(step, (1e-3, 1e-5), parts=parts)


def step(case: Case, device: str) -> Work:
    xs = [torch.randn(case.shape, device=device) for _ in range(2)]
    labels = torch.randint(0, CLASSES, (case.shape[0],), device=device)
    eager = (mix_eager, eager_target, eager_loss)
    ours = (fm.mix_, fused_target, fm.soft_target_cross_entropy)
    why = installed_peers.reason_missing()
    if why is not None:  # the networks are timm's
        return Work(xs, {OURS: why, "eager": why}, tuple)
    name, options = NETWORKS[case.variant]
    if "patch_size" in options:
        options = {**options, "img_size": case.shape[-1]}
    models = installed_peers.load()[0]

    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        return models.create_model(name, num_classes=CLASSES, **options).to(device).train()

    providers: dict[str, Provider | str] = {
        OURS: provider(network(), labels, *ours),
        "eager": provider(network(), labels, *eager),
    }
    return Work(xs, providers, provider(network(), labels, *eager).run)


def mix_eager(x: torch.Tensor, plan: MixPlan) -> torch.Tensor:
    return eager_flip(x)


def cases(device: str) -> Iterator[Case]:
    shape = (32, 3, 64, 64) if device == "cpu" else (256, 3, 224, 224)
    for name in NETWORKS:
        yield Case("training step", name, shape, torch.float32, step, "steps", ("eager",))
