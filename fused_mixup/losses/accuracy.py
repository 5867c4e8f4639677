"""Accuracy of predictions for mixed batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import ops
from ..arguments import integer_tuple
from ..codes import IGNORE_INDEX
from ..reference.blending import weight_columns
from ..reference.dense import label_columns
from ..reference.losses import label_ranks, ranks_of
from ..target.mixed_target import MixedTarget
from .autograd import needs_plain_pytorch
from .checks import (
    check_class_indices,
    check_dense_target,
    check_logits,
    check_mixed_target,
    chosen_ignore_index,
    is_class_indices,
)


def mixed_accuracy(
    logits: Tensor, target: Tensor | MixedTarget, topk: Sequence[int] = (1, 5)
) -> tuple[Tensor, ...]:
    """Top-k accuracies of a mixed batch, in one sweep over the logits (for two labels a row).

    ``acc_k = mean_i Σ_j weight_ij [label_ij among the k largest logits of row i]``

    Equivalent to (weights that sum to one)::

        hit = logits.topk(k, 1).indices
        (weight[:, :1] * (hit == labels[:, None]) + weight[:, 1:] * (hit == partner_labels[:, None])
         ).sum(1).mean()

    Args:
        logits: [B, K, d1, …], floating.
        target: a :class:`MixedTarget` with labels [B, d1, …]; int64 class indices [B, d1, …], those
            of -100 ignored; or dense targets of the shape of the logits, whose share in the top k
            classes is taken (smoothing included).
        topk: the numbers k; one above K counts as K.

    Returns:
        For each k a float32 scalar in [0, 1] (weights that are not negative), on the device of the
        logits: the mean over rows, each divided by the sum of its weights. Rows without weight
        (ignored ones) do not count; the result is NaN where no row counts.

    Raises:
        TypeError, ValueError, IndexError: as :func:`soft_target_cross_entropy`; a k below 1.

    Notes:
        Among equal logits the first class is ahead. A NaN is ahead of every number, and a label
        whose own logit is NaN is never hit. Not differentiable; nothing waits for a GPU.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """
    check_logits(logits)
    topk = check_topk(topk)
    logits = logits.detach()
    rank = label_ranks if needs_plain_pytorch() else ops.label_ranks
    if isinstance(target, MixedTarget):
        check_mixed_target(logits, target)
        sparse = *target.indices, target.weight
        ranks = ranks_of(rank, logits, label_columns(*sparse[:2]))
        return accuracy_of_ranks(ranks, *sparse, logits.shape[1], target.ignore_index, topk)
    if is_class_indices(logits, target):
        ignore_index = chosen_ignore_index(target, IGNORE_INDEX)
        check_class_indices(logits, target, ignore_index)
        ranks = rank(logits, target, None)
        return accuracy_of_ranks(ranks, target, None, None, logits.shape[1], ignore_index, topk)
    return dense_accuracy(logits, check_dense_target(logits, target).detach(), topk)


def check_topk(topk: Sequence[int], name: str = "topk") -> tuple[int, ...]:
    topk = integer_tuple(name, topk)
    if min(topk, default=1) < 1:
        raise ValueError(f"{name}: expected numbers of classes >= 1, got {min(topk)}")
    return topk


def accuracy_of_ranks(
    ranks: Tensor,  # [labels of a row, B, d1, …]
    labels: Tensor,  # [B, d1, …]
    partner_labels: Tensor | None,  # [B, d1, …], or [B, k-1, d1, …]
    weight: Tensor | None,  # [B, 2], or [B, k]
    num_classes: int,
    ignore_index: int,
    topk: tuple[int, ...],
) -> tuple[Tensor, ...]:
    """The top-k accuracies from the int32 ranks of the labels."""
    if partner_labels is not None and weight is not None:
        columns = weight_columns(weight, labels, torch.float32)
        pairs = zip(columns, label_columns(labels, partner_labels), strict=True)
        kept = torch.stack([w * (y != ignore_index) for w, y in pairs])
    else:
        kept = (labels != ignore_index).float().unsqueeze(0)
    total = kept.sum(0)
    counts = total != 0
    share = kept / torch.where(counts, total, 1)
    rows = counts.sum()
    return tuple(((ranks < min(k, num_classes)) * share).sum() / rows for k in topk)


def dense_accuracy(logits: Tensor, target: Tensor, topk: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The share of the target that the top k classes hold, averaged over rows that have any."""
    most = min(max(topk, default=1), logits.shape[1])
    total = target.float().sum(1)
    counts = total != 0
    # torch.topk has no order among equals; a stable sort has.
    first = logits.argsort(dim=1, descending=True, stable=True)[:, :most]
    hits = target.gather(1, first).float()
    held = hits.masked_fill(logits.gather(1, first).isnan(), 0).cumsum(1)
    share = held / torch.where(counts, total, 1).unsqueeze(1)
    rows = counts.sum()
    return tuple(share[:, min(k, most) - 1].sum() / rows for k in topk)
