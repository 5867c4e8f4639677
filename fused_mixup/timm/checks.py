"""Checks of the arguments of timm's classes, before anything is drawn."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_memory, check_writable
from ..codes import MAX_DIMS
from ..dtypes import BLENDABLE
from ..tracing import leaf_under

_logger = logging.getLogger(__name__)


def number(name: str, value: Any, most: float = math.inf) -> Any:
    """``value`` as it came, if it is a finite number in [0, most]."""
    try:
        n = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}") from None
    if not 0 <= n <= most or n == math.inf:
        expected = "a finite number >= 0" if most == math.inf else f"a number in [0, {most:g}]"
        raise ValueError(f"{name}: expected {expected}, got {n}")
    return value


def check_minmax(bounds: Any) -> None:
    try:
        count = len(bounds)
    except TypeError:
        got = type(bounds).__name__
        raise TypeError(f"cutmix_minmax: expected two numbers, got {got}") from None
    if count != 2:
        raise AssertionError(f"cutmix_minmax: expected two numbers, got {count}")
    low, high = (number("cutmix_minmax", bound, 1.0) for bound in bounds)
    if not low < high:
        raise ValueError(
            f"cutmix_minmax: expected two rising shares of the sides, got {low} and {high}"
        )


def check_dims(name: str, ndim: int) -> None:
    if ndim - 1 > MAX_DIMS:
        raise ValueError(
            f"{name}: expected at most {MAX_DIMS + 1} dims in a batch, got {ndim}; flatten some"
        )


def check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a tensor [B, C, H, W], got {type(x).__name__}")
    check_memory("x", x)
    if x.dtype not in BLENDABLE:
        raise TypeError(
            f"x: expected float16, bfloat16, float32, float64 or uint8, got {x.dtype}; convert it "
            "to one of them"
        )
    if x.ndim < 2:
        raise ValueError(f"x: expected a batch [B, C, H, W], got shape {list(x.shape)}")
    check_dims("x", x.ndim)
    if not x.requires_grad:
        check_writable("x", x, "detach it")
    elif torch.is_grad_enabled() and (x.is_leaf or leaf_under(x) is not None):
        raise ValueError(
            "x: expected no leaf that requires grad and no view of one, as it is written in "
            "place; detach it, or use fused_mixup.mix, which is differentiable"
        )
    else:  # a layer's output: gradients flow through the write
        check_writable("x", x.detach(), "detach it")


def class_indices(target: Tensor) -> Tensor:
    """``target.long()``; numbers with fractions are no class indices: TypeError, -1 on a GPU."""
    labels = target.long()
    if not target.is_floating_point():
        return labels
    if target.device.type != "cpu":
        return torch.where(labels == target, labels, -1)  # no class: its row becomes NaN
    if not torch.compiler.is_compiling() and not torch.equal(labels.to(target.dtype), target):
        raise TypeError(
            f"target: expected class indices, got {target.dtype} {list(target.shape)} with "
            "fractions; soft or multi-hot labels are [B, K] (of Mixup with multi_label=True), and "
            "numbers to regress on are mixed by mix_labels with a plan"
        )
    return labels


def per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """One number for each channel; of another number of them their average, with a warning."""
    if not isinstance(values, (tuple, list)):
        return (values,) * channels
    if len(values) == channels:
        return tuple(values)
    average = np.mean(values).item()
    _logger.warning(
        "mean or std of %d values for %d channels: %s for all", len(values), channels, average
    )
    return (average,) * channels
