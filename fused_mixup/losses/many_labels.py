"""The ops of the cross-entropy for targets with k > 2 labels a row, on those for two.

An op sweeps the logits once as for a target that is the same in every class; what the k labels of
a row add comes from their own k logits. With u_j = w_j times the class weight of label j, both
smoothings multiplied in, c the constant part of t', U = -Σ_c w_c log p_c:

    loss = c U + Σ_j u_j (-log p_j)         T = c Σ_c w_c + Σ_j u_j
    d loss / d z = T p - w c, written by the op, and at a label T p - w c - Σ_{i: y_i = y_j} u_i,
                   computed from scratch and rounded once

Nothing of the size of the logits is held but their gradient. Functions take and give what the ops
of their names do (``schemas.py``), with partner_labels [B, k-1, d1…] and weight [B, k].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..codes import MEAN, NO_IGNORE, NONE
from ..dtypes import arithmetic
from ..reference.dense import in_range
from ..reference.focal import focal_loss, focal_slope
from ..reference.losses import log_of_targets, ranks_of_kept
from ..schemas import CrossEntropyArguments

# Labels of rows that the ops are to leave out, whatever the caller's ignore_index.
_LEFT_OUT = -1
_NO_WEIGHT = torch.zeros((1, 2), dtype=torch.float32, device="cpu")


def no_weight(batch_size: int) -> Tensor:
    """float32 [B, 2] of zeros: one row, which serves labels on any device."""
    return _NO_WEIGHT.expand(batch_size, 2)


def all_labels(target: Tensor, partner_labels: Tensor) -> Tensor:
    """int64 [B, k, d1…] from [B, d1…] and [B, k-1, d1…]."""
    return torch.cat((target.unsqueeze(1), partner_labels), 1)


def label_weights(weight: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, k] as [B, k, 1…], to multiply labels [B, k, d1…]."""
    w = weight.to(device=labels.device, dtype=dtype)
    return w.view([*w.shape] + [1] * (labels.ndim - 2))


def sum_of_equal(index: Tensor, values: Tensor) -> Tensor:
    """For each label [B, k, d1…] the sum of the ``values`` of all labels that are equal to it."""
    if index.ndim == 2:
        same = index.unsqueeze(2) == index.unsqueeze(1)
        return torch.where(same, values.unsqueeze(1), 0).sum(2)
    total = torch.zeros_like(values)
    for i in range(index.shape[1]):  # k² values for each position would outweigh the logits
        total = total + torch.where(index == index[:, i : i + 1], values[:, i : i + 1], 0)
    return total


class LabelTerms(NamedTuple):
    """What the labels of each row add to its target; S stands for d1…"""

    classes: Tensor  # int64 [B, k, S]: the labels, class 0 for those that are left out
    share: Tensor  # [B, k, S]: u_j, 0 for those
    constant: Tensor | None  # [B, S]: K c; None where nothing smooths
    row_labels: Tensor  # int64 [B, S]: what the ops get as labels, so that they poison or ignore
    ignored: Tensor  # bool [B, S]


def label_terms(logits: Tensor, a: CrossEntropyArguments) -> LabelTerms:
    assert a.partner_labels is not None and a.weight is not None
    acc, k = arithmetic(logits.dtype), logits.shape[1]
    labels = all_labels(a.target, a.partner_labels)
    kept, fits = labels != a.ignore_index, in_range(labels, k)
    weight = torch.where(kept, label_weights(a.weight, labels, acc), 0)
    poisoned = (kept & ~fits).any(1)
    ignored = ~kept.all(1) & (weight == 0).all(1) & ~poisoned
    row_labels = torch.where(poisoned, k, torch.where(ignored, _LEFT_OUT, 0))
    index = torch.where(kept & fits, labels, 0)
    ts, ls = a.target_smoothing, a.label_smoothing
    share = ((1.0 - ls) * (1.0 - ts)) * weight
    if a.class_weight is not None:
        share = torch.where(share == 0, 0, share * a.class_weight[index])
    constant = (1.0 - ls) * ts * weight.sum(1) + ls if ts or ls else None
    return LabelTerms(index, share, constant, row_labels, ignored)


def _uniform(a: CrossEntropyArguments, terms: LabelTerms, reduction: int) -> CrossEntropyArguments:
    """Arguments of an op whose target is 1/K in every class, or 0 where nothing smooths."""
    ignore_index = NO_IGNORE if a.ignore_index == NO_IGNORE else _LEFT_OUT
    weight = no_weight(len(a.target))
    sparse = terms.row_labels, terms.row_labels, weight, a.class_weight, ignore_index
    smoothing = 0.0 if terms.constant is None else 1.0
    return CrossEntropyArguments(*sparse, 0.0, smoothing, 0.0, 0.0, reduction)


def _log_p(logits: Tensor, stats: Tensor, terms: LabelTerms) -> Tensor:
    """log p of the labels, [B, k, d1…]; 0 for a masked class whose share is 0."""
    m, log_sum, _ = stats.unsqueeze(2)
    z = logits.gather(1, terms.classes).to(stats.dtype)
    return log_of_targets(terms.share, (z - m) - log_sum)


def soft_target_cross_entropy(
    logits: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, ranks = CrossEntropyArguments(*arguments[:-1]), arguments[-1]
    terms = label_terms(logits, a)
    uniform = _uniform(a, terms, NONE)
    spread, stats, count, found = ops.soft_target_cross_entropy(logits, *uniform, False)
    log_p = _log_p(logits, stats, terms)
    if a.focal_gamma:
        rows = (terms.share * focal_loss(log_p, a.focal_gamma)).sum(1)
        total = (terms.share * focal_slope(log_p, a.focal_gamma)).sum(1)
    else:
        rows = -(terms.share * log_p).sum(1)
        total = terms.share.sum(1)
    if terms.constant is None:
        # NaN in rows that the op poisons, or that have no distribution.
        rows, total = rows + spread, total + stats[2]
    else:
        rows = rows + _product(terms.constant, spread)
        total = total + _product(terms.constant, stats[2])
    if a.z_loss:
        log_z = stats[0] + stats[1]
        rows = rows + a.z_loss * log_z.square()
        total = total + 2 * a.z_loss * log_z
    rows, total = (torch.where(terms.ignored, 0, x) for x in (rows, total))
    if ranks:
        found = ranks_of_kept(ops.label_ranks, logits, a)
    loss = rows if a.reduction == NONE else rows.sum()
    if a.reduction == MEAN:
        loss = loss / count
    return loss, torch.stack((stats[0], stats[1], total)), count, found


def _product(factor: Tensor, value: Tensor) -> Tensor:
    return torch.where((factor == 0) & ~value.isnan(), 0, factor * value)


class _Backward(NamedTuple):
    """The arguments of the op's backward, and the entries to write over its gradient."""

    arguments: tuple[Any, ...]  # grad_loss; stats, count and what follows them
    classes: Tensor
    entries: Tensor


def _backward(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, count: Tensor, a: CrossEntropyArguments
) -> _Backward:
    terms = label_terms(logits, a)
    scale = grad_loss / count if a.reduction == MEAN else grad_loss
    # Read first, as the gradient may be written over the logits.
    log_p = _log_p(logits, stats, terms)
    total, pulled = stats[2], sum_of_equal(terms.classes, terms.share)
    uniform = _uniform(a, terms, a.reduction)
    first, middle = grad_loss, stats
    if a.focal_gamma:
        pulled = pulled * focal_slope(log_p, a.focal_gamma)
    if terms.constant is not None:
        # The op spreads 1/K: its upstream gradient takes the factor K c of a row, and T loses it.
        tiny = torch.finfo(stats.dtype).tiny ** 0.5  # stands for 0: weights that add up to none
        factor = torch.where(terms.constant == 0, tiny, terms.constant)
        uniform = uniform._replace(reduction=NONE)
        first, middle = scale * factor, torch.stack((stats[0], stats[1], total / factor))
        each = terms.constant / logits.shape[1]
        spread = each.unsqueeze(1)
        if a.class_weight is not None:
            spread = _product(spread, a.class_weight[terms.classes])
        pulled = pulled + spread
    per_row = scale.unsqueeze(1) if a.reduction == NONE else scale
    entries = per_row * (total.unsqueeze(1) * log_p.exp() - pulled)
    entries = torch.where(terms.ignored.unsqueeze(1), 0, entries).to(logits.dtype)
    return _Backward((first, middle.contiguous(), count, *uniform), terms.classes, entries)


def soft_target_cross_entropy_backward(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, count: Tensor, *arguments: Any
) -> Tensor:
    found = _backward(grad_loss, logits, stats, count, CrossEntropyArguments(*arguments))
    first, *rest = found.arguments
    grad = ops.soft_target_cross_entropy_backward(first, logits, *rest)
    return grad.scatter_(1, found.classes, found.entries)


def soft_target_cross_entropy_backward_(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, count: Tensor, *arguments: Any
) -> None:
    found = _backward(grad_loss, logits, stats, count, CrossEntropyArguments(*arguments))
    first, *rest = found.arguments
    ops.soft_target_cross_entropy_backward_(first, logits, *rest)
    logits.scatter_(1, found.classes, found.entries)


def soft_target_cross_entropy_grad(
    logits: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    loss, stats, count, found = soft_target_cross_entropy(logits, *arguments)
    one, saved = torch.ones_like(loss), (stats, count)
    grad = soft_target_cross_entropy_backward(one, logits, *saved, *arguments[:-1])
    return loss, grad, found
