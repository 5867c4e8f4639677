"""Class indices and dense targets, as timm's classes encode them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from ..checks import check_memory
from ..plan.mix_plan import MixPlan
from ..target.checks import check_labels
from ..target.labels import mix_targets
from .checks import class_indices


def collate_labels(name: str, labels: list[Any]) -> Tensor:
    """``default_collate`` on the CPU, where the images are; for ints in a third of its time."""
    if {*map(type, labels)} == {int}:
        array = np.array(labels)
        if array.dtype == np.int64:  # no label is too large
            return torch.from_numpy(array)
    kinds = sorted({type(label).__name__ for label in labels})
    if not isinstance(labels[0], (int, float, Tensor, np.ndarray, np.generic)):
        raise TypeError(
            f"{name}: expected labels that are class indices, got {' and '.join(kinds)}; give "
            "each class a number in the data set"
        )
    if torch.get_default_device().type == "cpu":
        return default_collate(labels)
    with torch.device("cpu"):
        return default_collate(labels)


def check_target(target: Tensor, batch_size: int, num_classes: int, multi_label: bool) -> Tensor:
    """Checked class indices int64 [B], or dense multi-label targets [B, K] as they are."""
    if not isinstance(target, Tensor):
        raise TypeError(f"target: expected a tensor, got {type(target).__name__}")
    check_memory("target", target)
    k = num_classes
    if multi_label:
        if target.shape != (batch_size, k):
            raise ValueError(
                f"target: expected dense multi-label targets [{batch_size}, {k}], "
                f"got {list(target.shape)}"
            )
        return target
    if target.numel() != batch_size:
        dense = target.shape[1:] == (k,)
        remedy = "; for dense targets set multi_label=True" if dense else ""
        raise ValueError(
            f"target: expected class indices [{batch_size}], got {list(target.shape)}{remedy}"
        )
    labels = class_indices(target).reshape(-1)
    check_labels(labels, k)
    return labels


def smooth_labels(target: Tensor, smoothing: float) -> Tensor:
    return target.float() * (1.0 - smoothing) + 0.5 * smoothing


def encode(labels: Tensor, num_classes: int, smoothing: float, multi_label: bool) -> Tensor:
    """Dense targets [B, K] of what :func:`check_target` returned, not mixed."""
    if multi_label:
        return smooth_labels(labels, smoothing)
    plan, dtype = MixPlan.identity(len(labels)), torch.get_default_dtype()
    return mix_targets(labels, plan, num_classes, smoothing, dtype)
