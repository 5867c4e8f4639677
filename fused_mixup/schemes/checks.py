"""Checks of what the schemes take, before anything is drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import kind
from ..checks import check_batch
from ..dtypes import BLENDABLE
from ..plan.draw_checks import check_alpha, check_state
from ..plan.mix_plan import MixPlan
from ..target.checks import check_label_smoothing, check_labels, check_num_classes


def check_images(name: str, x: Tensor, like: Tensor | None = None, of: str = "x") -> None:
    """Raise unless ``x`` can be mixed, and has samples like those of ``like``."""
    if not isinstance(x, Tensor) or x.ndim < 1:
        raise TypeError(f"{name}: expected a tensor [B, …], got {kind(x)}")
    check_batch(name, x, MixPlan.identity(len(x)), BLENDABLE)
    if like is None:
        return
    if (x.shape[1:], x.dtype, x.device) != (like.shape[1:], like.dtype, like.device):
        raise ValueError(
            f"{name}: expected samples {list(like.shape[1:])} {like.dtype} on {like.device} as "
            f"those of {of}, got {kind(x)}"
        )


def check_indices(
    name: str, labels: Tensor, num_classes: int, batch: int, device: torch.device
) -> None:
    """Raise unless ``labels`` are class indices [B]."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(
            f"{name}: expected an int64 tensor of class indices [{batch}], got {kind(labels)}; "
            "use .long()"
        )
    if labels.shape != (batch,) or labels.device != device:
        raise ValueError(
            f"{name}: expected class indices [{batch}] on {device}, one for each sample, got "
            f"{kind(labels)}"
        )
    try:
        check_labels(labels, num_classes)
    except IndexError as error:  # it says "labels"
        raise IndexError(str(error).replace("labels", name, 1)) from None


def check_labelled(
    x: Tensor, labels: Tensor, num_classes: int, label_smoothing: float
) -> tuple[int, float]:
    """The numbers, checked with the batch and its class indices."""
    check_images("x", x)
    num_classes = check_num_classes(num_classes)
    check_indices("labels", labels, num_classes, len(x), x.device)
    return num_classes, check_label_smoothing(label_smoothing)


def check_draw(x: Tensor, state: Tensor, alpha: float) -> float:
    """α > 0, checked with the state that is drawn from."""
    check_state(state)
    if state.device != x.device:
        raise ValueError(
            f"state: expected it on {x.device} like x, got {state.device}; make one with "
            f"plan_state(seed, device={str(x.device)!r})"
        )
    checked = check_alpha("alpha", alpha)
    if checked == 0.0:
        raise ValueError("alpha: expected a number above 0, got 0; without mixing skip the call")
    return checked
