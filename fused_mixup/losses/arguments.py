"""Conversion of a caller's arguments to those that the losses' ops take after the logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import is_host_row
from ..codes import IGNORE_INDEX, MEAN, NO_IGNORE, SUM
from ..dtypes import arithmetic
from ..reference.dense import dense_target
from ..schemas import CrossEntropyArguments
from ..target.checks import check_label_smoothing, check_labels
from ..target.label_rows import one_label_weight
from ..target.mixed_target import MixedTarget
from .checks import (
    check_class_indices,
    check_class_weight,
    check_coefficient,
    check_dense_target,
    check_mixed_target,
    check_own_ignore_index,
    chosen_ignore_index,
    is_class_indices,
)


def cross_entropy_arguments(
    logits: Tensor,  # [B, K, d1, …]
    target: Tensor | MixedTarget,  # [B, d1, …] or [B, K, d1, …]
    weight: Tensor | None,  # [K]
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    focal_gamma: float,
    z_loss: float,
) -> tuple[CrossEntropyArguments, Tensor | None]:
    """The op's arguments after the logits, and the divisor of its sum, if any."""
    label_smoothing = check_label_smoothing(label_smoothing)
    focal_gamma = check_coefficient("focal_gamma", focal_gamma)
    z_loss = check_coefficient("z_loss", z_loss)
    class_weight = check_class_weight("weight", weight, logits)
    ignore_index = chosen_ignore_index(target, ignore_index)
    rest = label_smoothing, focal_gamma, z_loss
    if isinstance(target, MixedTarget):
        check_mixed_target(logits, target)
        check_own_ignore_index(target, ignore_index)
        labels, partner_labels = target.indices
        options = class_weight, ignore_index, target.label_smoothing, *rest, reduction
        return CrossEntropyArguments(labels, partner_labels, target.weight, *options), None
    if is_class_indices(logits, target):
        check_class_indices(logits, target, ignore_index)
        divisor = None
        if class_weight is not None and reduction == MEAN:
            reduction = SUM
            divisor = _sum_of_weights(class_weight, target, ignore_index)
        options = class_weight, ignore_index, 0.0, *rest, reduction
        one = one_label_weight(len(target))
        return CrossEntropyArguments(target, target, one, *options), divisor
    dense = check_dense_target(logits, target)
    options = class_weight, ignore_index, 0.0, *rest, reduction
    return CrossEntropyArguments(dense, None, None, *options), None


def _sum_of_weights(class_weight: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    kept = labels != ignore_index
    # Labels outside [0, K), which a GPU cannot refuse, make their own row NaN; the clamp only keeps
    # reads in bounds.
    label_weights = class_weight[labels.clamp(0, class_weight.shape[0] - 1)]
    return torch.where(kept, label_weights, 0).sum()


def promote(loss: Tensor, target: Tensor | MixedTarget) -> Tensor:
    """The loss, in float64 for a float64 dense target, as PyTorch's losses promote."""
    return loss.double() if isinstance(target, Tensor) and target.dtype == torch.float64 else loss


def divide_or_nan(total: Tensor, divisor: Tensor) -> Tensor:
    """total / divisor; where the divisor is 0 (no row counts) NaN, with a gradient of 0."""
    nothing = divisor == 0
    return torch.where(nothing, torch.nan, total / torch.where(nothing, 1, divisor))


def as_column(t: Any, logits: Tensor) -> Any:
    """Floats of the shape of ``logits`` [B] as [B, 1]; labels stay as they are."""
    per_row = isinstance(t, Tensor) and t.is_floating_point() and t.shape == logits.shape
    return t.unsqueeze(1) if per_row else t


def binary_target(
    logits: Tensor, target: Tensor | MixedTarget, threshold: float | None
) -> tuple[tuple[Tensor, Tensor | None, Tensor | None], float, float | None]:
    """(target, partner_labels, weight) as the op takes them, the smoothing and the threshold."""
    # One logit says how likely class 1 of two is.
    classes = 2 if logits.shape[1] == 1 else None
    if isinstance(target, MixedTarget):
        check_mixed_target(logits, target, classes)
        if target.ignore_index not in (IGNORE_INDEX, NO_IGNORE):
            raise ValueError(
                f"target: expected no ignore_index, got {target.ignore_index}; a label that is "
                "left out says of no class that it is absent: take its rows out of logits and "
                "target, or use reduction='none'"
            )
        if not target.labels_in_range:
            for labels in (target.labels, target.partner_labels):
                check_labels(labels, target.num_classes)
        sparse = *target.indices, target.weight
        smoothing = target.label_smoothing
    elif is_class_indices(logits, target, binary=True):
        check_class_indices(logits, target, NO_IGNORE, classes)
        sparse, smoothing = (target, target, one_label_weight(len(target))), 0.0
    else:
        return (check_dense_target(logits, target), None, None), 0.0, threshold
    if classes is None:
        return sparse, smoothing, threshold
    t = dense_target(*sparse, classes, smoothing, arithmetic(logits.dtype))[:, 1:]
    if threshold is not None:  # applied here, so that a label that is neither 0 nor 1 stays NaN
        t = torch.where(t.isnan(), t, (t > threshold).to(t.dtype))
    return (t, None, None), 0.0, None


def flatten_target(target: MixedTarget, shape: Sequence[int]) -> MixedTarget:
    """The target for logits [rows, K], from one for logits of ``shape`` […, K]."""
    if target.labels.shape != tuple(shape[:-1]):
        raise ValueError(
            f"target: expected labels {list(shape[:-1])} for logits {list(shape)}, got "
            f"{list(target.labels.shape)}"
        )
    if len(shape) == 2:
        return target
    weight, rows = target.weight, target.labels.numel()
    if is_host_row(weight):
        weight = weight[:1].expand(rows, -1)  # stays one row for any device
    else:
        weight = weight.repeat_interleave(math.prod(shape[1:-1]), 0)
    labels, partner_labels = target.labels.reshape(-1), target.partner_labels
    if target.num_labels > 2:
        partner_labels = partner_labels.movedim(1, -1).reshape(rows, target.num_labels - 1)
    else:
        partner_labels = partner_labels.reshape(-1)
    return target._replace(labels, partner_labels, weight)
