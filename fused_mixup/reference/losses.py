"""The losses in plain PyTorch (see the package): logits [B, K, d1…], a row for each (b, d1…)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import op_checks
from ..codes import MEAN, NONE, SUM
from ..dtypes import arithmetic
from ..schemas import BinaryCrossEntropyArguments, CrossEntropyArguments
from .blending import weight_columns
from .dense import dense_target, in_range, label_columns, poisoned_rows
from .focal import binary_focal_loss, binary_focal_slope, focal_loss, focal_slope


def broadcast_classes(per_class: Tensor, like: Tensor) -> Tensor:
    """``per_class`` [K] as a view that multiplies [B, K, d1…]."""
    return per_class.reshape([1, -1] + [1] * (like.ndim - 2))


# ------------------------------------------------------------------ cross-entropy


def ignored_rows(
    labels: Tensor,  # [B, d1…]
    partner_labels: Tensor,  # [B, d1…], or [B, k-1, d1…]
    weight: Tensor,  # [B, 2], or [B, k]
    num_classes: int,
    ignore_index: int,
) -> Tensor:
    """bool [B, d1…]: rows with an ignored label and no other label of nonzero weight."""
    dropped = torch.zeros_like(labels, dtype=torch.bool)
    nothing_left = ~dropped
    terms = weight_columns(weight, labels, torch.float32), label_columns(labels, partner_labels)
    for w, y in zip(*terms, strict=True):
        dropped = dropped | (y == ignore_index)
        nothing_left = nothing_left & ((y == ignore_index) | (w == 0))
    poisoned = poisoned_rows(labels, partner_labels, num_classes, ignore_index)
    return dropped & nothing_left & ~poisoned


def weighted_target(logits: Tensor, arguments: CrossEntropyArguments) -> tuple[Tensor, Tensor]:
    """w_c t'_c as [B, K, d1…] in the arithmetic type of the logits, and the ignored rows.

    It is 0 in ignored rows, and NaN in rows that a label outside [0, K) poisons.
    """
    target, partner_labels, weight, class_weight, ignore_index, *smoothing = arguments[:7]
    target_smoothing, label_smoothing = smoothing
    acc, k = arithmetic(logits.dtype), logits.shape[1]
    ignored = torch.zeros_like(logits[:, 0], dtype=torch.bool)
    poisoned = ignored
    if partner_labels is None or weight is None:
        t = target.to(acc)
    else:
        sparse = target, partner_labels
        t = dense_target(*sparse, weight, k, target_smoothing, acc, ignore_index)
        ignored = ignored_rows(*sparse, weight, k, ignore_index)
        poisoned = poisoned_rows(*sparse, k, ignore_index)
    if label_smoothing:  # not touched at ε = 0
        t = t * (1.0 - label_smoothing) + label_smoothing / k
    if class_weight is not None:
        w = broadcast_classes(class_weight, t).to(t.dtype)
        # A target of 0 passes its gradient on: it drops an infinite weight alone.
        t = torch.where((w == 0) | ((t == 0) & ~w.isfinite()), 0, w * t)
    t = torch.where(poisoned.unsqueeze(1), torch.nan, t)
    return torch.where(ignored.unsqueeze(1), 0, t), ignored


def log_of_targets(u: Tensor, log_p: Tensor) -> Tensor:
    """``log_p``, 0 for a class masked by a logit of -inf whose target is 0: no 0·inf."""
    return torch.where((u == 0) & (log_p == -torch.inf), 0, log_p)


def _reduce(rows: Tensor, reduction: int, count: Tensor | int) -> Tensor:
    if reduction == NONE:
        return rows
    return rows.sum() / count if reduction == MEAN else rows.sum()


def soft_target_cross_entropy(
    logits: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # With u = w t', T = Σ u, m = max z, l = log Σ exp(z-m):  loss = l T - Σ u (z-m).
    # stats [3, B, d1…] = (m, l, T). With γ the loss is Σ u f(p) and T is Σ u h(p) (focal.py); z
    # adds z (m + l)² to the loss and 2 z (m + l) to T.
    a, ranks = CrossEntropyArguments(*arguments[:-1]), arguments[-1]
    op_checks.check_loss(logits, a, more_labels=True)
    u, ignored = weighted_target(logits, a)
    z = logits.to(u.dtype)
    m = z.detach().amax(1, keepdim=True)  # the loss does not depend on it
    shifted = z - m
    log_sum = shifted.exp().sum(1).log()
    total = u.sum(1)
    if a.focal_gamma:
        log_p = log_of_targets(u, shifted - log_sum.unsqueeze(1))
        rows = (u * focal_loss(log_p, a.focal_gamma)).sum(1)
        total = (u * focal_slope(log_p.detach(), a.focal_gamma)).sum(1)
    else:
        rows = log_sum * total - (u * log_of_targets(u, shifted)).sum(1)
    if a.z_loss:
        log_z = m.squeeze(1) + log_sum
        rows = rows + a.z_loss * log_z.square()
        total = total + 2 * a.z_loss * log_z.detach()
    rows, total = (torch.where(ignored, 0, x) for x in (rows, total))
    count = (~ignored).sum().to(u.dtype)
    stats = torch.stack((m.squeeze(1), log_sum, total))
    found = logits.new_empty(0, dtype=torch.int32)
    if ranks:
        found = ranks_of_kept(label_ranks, logits, a)
    return _reduce(rows, a.reduction, count), stats, count, found


def ranks_of(rank: Callable[..., Tensor], logits: Tensor, labels: Sequence[Tensor]) -> Tensor:
    """int32 [len(labels), B, d1…]: the ranks by ``rank``, which takes two labels a sweep."""
    pairs = ((*labels[i : i + 2], None)[:2] for i in range(0, len(labels), 2))
    found = [rank(logits, *pair) for pair in pairs]
    return found[0] if len(found) == 1 else torch.cat(found)


def ranks_of_kept(rank: Callable[..., Tensor], logits: Tensor, a: CrossEntropyArguments) -> Tensor:
    """The ranks of the labels of each row, by ``rank``; K for ignored ones."""
    if a.partner_labels is None:
        labels: tuple[Tensor, ...] = (a.target, a.target)
    else:
        labels = label_columns(a.target, a.partner_labels)
    found = ranks_of(rank, logits, labels)
    return torch.where(torch.stack(labels) == a.ignore_index, logits.shape[1], found)


def soft_target_cross_entropy_backward(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, count: Tensor, *arguments: Any
) -> Tensor:
    # d loss / d z = T softmax(z) - u (with γ: u h(p)), scaled by the gradient of the row's loss.
    a = CrossEntropyArguments(*arguments)
    op_checks.check_loss(logits, a, more_labels=True)
    op_checks.check_grad_loss(grad_loss, logits, a.reduction)
    op_checks.check_saved(stats, count, logits)
    u, ignored = weighted_target(logits, a)
    m, log_sum, total = stats.unsqueeze(2).unbind(0)
    log_p = logits.to(u.dtype) - m - log_sum
    if a.focal_gamma:
        u = u * focal_slope(log_p, a.focal_gamma)
    scale = row_scale(grad_loss, count, a.reduction)
    grad = torch.where(ignored.unsqueeze(1), 0, scale * (total * log_p.exp() - u))
    return torch.empty_like(logits).copy_(grad)


def row_scale(grad_loss: Tensor, count: Tensor, reduction: int) -> Tensor:
    """The gradient of each row's loss, [B, 1, d1…], or a scalar where all rows share one."""
    if reduction == NONE:
        return grad_loss.unsqueeze(1)
    return grad_loss / count if reduction == MEAN else grad_loss


def soft_target_cross_entropy_backward_(grad_loss: Tensor, logits: Tensor, *arguments: Any) -> None:
    logits.copy_(soft_target_cross_entropy_backward(grad_loss, logits, *arguments))


def soft_target_cross_entropy_grad(
    logits: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    loss, stats, count, found = soft_target_cross_entropy(logits, *arguments)
    one, saved = torch.ones_like(loss), (stats, count)
    grad = soft_target_cross_entropy_backward(one, logits, *saved, *arguments[:-1])
    return loss, grad, found


def scale_(x: Tensor, factor: Tensor) -> None:
    op_checks.expect_shape("factor", factor)
    x.copy_(x.to(factor.dtype) * factor)


def label_ranks(logits: Tensor, labels: Tensor, partner_labels: Tensor | None) -> Tensor:
    op_checks.check_ranks(logits, labels, partner_labels)
    both = (labels,) if partner_labels is None else (labels, partner_labels)
    return torch.stack([_ranks(logits, y) for y in both])


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes rank ahead of the label: larger, or equal and earlier. NaN is ahead of all.

    A label whose own logit is NaN ranks last, as does one outside [0, K).
    """
    k = logits.shape[1]
    valid = in_range(labels, k)
    at = torch.where(valid, labels, 0).unsqueeze(1)
    own = logits.gather(1, at)
    earlier = broadcast_classes(torch.arange(k, device=logits.device), logits) < at
    ahead = ~(logits <= own) | ((logits == own) & earlier)
    return torch.where(valid, ahead.sum(1), k).to(torch.int32)


# ------------------------------------------------------------------ binary cross-entropy


def dense_binary_target(logits: Tensor, arguments: BinaryCrossEntropyArguments) -> Tensor:
    """The target t as [B, K, d1…] in the arithmetic type of the logits."""
    acc, k, a = arithmetic(logits.dtype), logits.shape[1], arguments
    sparse = a.partner_labels is not None and a.weight is not None
    t = a.target.to(acc)
    if a.partner_labels is not None and a.weight is not None:
        t = dense_target(a.target, a.partner_labels, a.weight, k, a.target_smoothing, acc)
    if a.target_threshold is None:
        return t
    above = (t > a.target_threshold).to(acc)
    return torch.where(t.isnan(), torch.nan, above) if sparse else above  # NaN: poisoned


def class_factors(per_class: Tensor | None, like: Tensor) -> Tensor:
    return like.new_ones(()) if per_class is None else broadcast_classes(per_class, like).to(like)


def soft_target_binary_cross_entropy(logits: Tensor, *arguments: Any) -> Tensor:
    # w_c [(1-t) x + (1 + (q_c-1) t) softplus(-x)],  softplus(-x) = log(1 + e^-x)
    # with γ: w_c [q_c t F(x) + (1-t) F(-x)] (focal.py)
    a = BinaryCrossEntropyArguments(*arguments)
    op_checks.check_loss(logits, a, more_labels=True)
    t = dense_binary_target(logits, a)
    x = logits.to(t.dtype)
    w, q = class_factors(a.class_weight, t), class_factors(a.pos_weight, t)
    if a.focal_gamma:
        present, absent = (binary_focal_loss(y, a.focal_gamma) for y in (x, -x))
        loss = w * (q * t * present + (1 - t) * absent)
    else:
        softplus = -torch.nn.functional.logsigmoid(x)
        loss = w * ((1 - t) * x + (1 + (q - 1) * t) * softplus)
    if a.sum_classes:
        loss = loss.sum(1)
    return _reduce(loss, a.reduction, loss.numel())


def soft_target_binary_cross_entropy_backward(
    grad_loss: Tensor, logits: Tensor, *arguments: Any
) -> Tensor:
    a = BinaryCrossEntropyArguments(*arguments)
    op_checks.check_loss(logits, a, more_labels=True)
    op_checks.check_grad_loss(grad_loss, logits, a.reduction, not a.sum_classes)
    t = dense_binary_target(logits, a)
    w, q = class_factors(a.class_weight, t), class_factors(a.pos_weight, t)
    x = logits.to(t.dtype)
    if a.focal_gamma:
        present, absent = (binary_focal_slope(y, a.focal_gamma) for y in (x, -x))
        per_element = w * (q * t * present - (1 - t) * absent)
    else:
        per_element = w * ((1 - t) - (1 + (q - 1) * t) * torch.sigmoid(-x))
    grad = binary_scale(grad_loss, logits, a.reduction, a.sum_classes) * per_element
    return torch.empty_like(logits).copy_(grad)


def binary_scale(grad_loss: Tensor, logits: Tensor, reduction: int, sum_classes: bool) -> Tensor:
    """The gradient of each element's loss, broadcastable to the logits."""
    if reduction == NONE:
        return grad_loss.unsqueeze(1) if sum_classes else grad_loss
    if reduction == SUM:
        return grad_loss
    count = logits.numel() // (logits.shape[1] if sum_classes else 1)
    return grad_loss / max(count, 1)


def soft_target_binary_cross_entropy_backward_(
    grad_loss: Tensor, logits: Tensor, *arguments: Any
) -> None:
    logits.copy_(soft_target_binary_cross_entropy_backward(grad_loss, logits, *arguments))


def soft_target_binary_cross_entropy_grad(logits: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    loss = soft_target_binary_cross_entropy(logits, *arguments)
    one = torch.ones_like(loss)
    return loss, soft_target_binary_cross_entropy_backward(one, logits, *arguments)
