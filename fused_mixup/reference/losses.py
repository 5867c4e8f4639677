"""The losses in plain PyTorch (see the package): logits [B, K, d1…], a row for each (b, s)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import op_checks
from ..codes import MEAN, NONE, SUM
from ..dtypes import arithmetic
from .targets import dense_target, in_range, poisoned_rows, term, weight_columns


def over_classes(per_class: Tensor, like: Tensor) -> Tensor:
    """[K] shaped to multiply [B, K, d1…]."""
    return per_class.reshape([1, -1] + [1] * (like.ndim - 2))


# ------------------------------------------------------------------ cross-entropy


def ignored_rows(
    labels: Tensor,
    partner_labels: Tensor,
    weight: Tensor,
    num_classes: int,
    ignore_index: int,
) -> Tensor:
    """bool [B, d1…]: rows with an ignored label and nothing of weight beside it."""
    own, other = labels == ignore_index, partner_labels == ignore_index
    w0, w1 = weight_columns(weight, labels, torch.float32)
    nothing_left = (own | (w0 == 0)) & (other | (w1 == 0))
    poisoned = poisoned_rows(labels, partner_labels, num_classes, ignore_index)
    return (own | other) & nothing_left & ~poisoned


def weighted_target(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    target_smoothing: float,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    """w_c t'_c as [B, K, d1…] in the arithmetic type of the logits, and the ignored rows.

    0 in ignored rows; NaN in rows that a label outside [0, K) poisons.
    """
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
        w = over_classes(class_weight, t).to(t.dtype)
        t = torch.where((w == 0) | (t == 0), 0, w * t)
    t = torch.where(poisoned.unsqueeze(1), torch.nan, t)
    return torch.where(ignored.unsqueeze(1), 0, t), ignored


def _reduce(rows: Tensor, reduction: int, count: Tensor | int) -> Tensor:
    if reduction == NONE:
        return rows
    return rows.sum() / count if reduction == MEAN else rows.sum()


def soft_target_cross_entropy(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    target_smoothing: float,
    label_smoothing: float,
    reduction: int,
    ranks: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # With u = w t', T = Σ u, m = max z, l = log Σ exp(z-m):  loss = l T - Σ u (z-m).
    # stats [3, B, d1…] = (m, l, T).
    sparse = target, partner_labels, weight
    op_checks.check_loss(logits, *sparse, reduction, class_weight)
    smoothing = target_smoothing, label_smoothing
    u, ignored = weighted_target(logits, *sparse, class_weight, ignore_index, *smoothing)
    z = logits.to(u.dtype)
    m = z.detach().amax(1, keepdim=True)  # the loss does not depend on it
    shifted = z - m
    log_sum = shifted.exp().sum(1).log()
    total = u.sum(1)
    rows = torch.where(ignored, 0, log_sum * total - term(u, shifted).sum(1))
    count = (~ignored).sum().to(u.dtype)
    stats = torch.stack((m.squeeze(1), log_sum, total))
    found = logits.new_empty(0, dtype=torch.int32)
    if ranks:
        found = label_ranks(logits, target, partner_labels)
        labels = torch.stack((target, target if partner_labels is None else partner_labels))
        found = torch.where(labels == ignore_index, logits.shape[1], found)
    return _reduce(rows, reduction, count), stats, count, found


def soft_target_cross_entropy_backward(
    grad_loss: Tensor,
    logits: Tensor,
    stats: Tensor,
    count: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    target_smoothing: float,
    label_smoothing: float,
    reduction: int,
) -> Tensor:
    # d loss / d z = T softmax(z) - u, scaled by the gradient of the row's loss.
    sparse = target, partner_labels, weight
    op_checks.check_loss(logits, *sparse, reduction, class_weight)
    op_checks.check_grad_loss(grad_loss, logits, reduction)
    op_checks.check_saved(stats, count, logits)
    smoothing = target_smoothing, label_smoothing
    u, ignored = weighted_target(logits, *sparse, class_weight, ignore_index, *smoothing)
    m, log_sum, total = stats.unsqueeze(2).unbind(0)
    p = (logits.to(u.dtype) - m - log_sum).exp()
    scale = row_scale(grad_loss, count, reduction)
    grad = torch.where(ignored.unsqueeze(1), 0, scale * (total * p - u))
    return torch.empty_like(logits).copy_(grad)


def row_scale(grad_loss: Tensor, count: Tensor, reduction: int) -> Tensor:
    """The gradient of each row's loss, [B, 1, d1…], or a scalar where it is one for all."""
    if reduction == NONE:
        return grad_loss.unsqueeze(1)
    return grad_loss / count if reduction == MEAN else grad_loss


def soft_target_cross_entropy_backward_(
    grad_loss: Tensor, logits: Tensor, *arguments: Tensor | float | None
) -> None:
    logits.copy_(soft_target_cross_entropy_backward(grad_loss, logits, *arguments))  # type: ignore[arg-type]


def soft_target_cross_entropy_grad(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    target_smoothing: float,
    label_smoothing: float,
    reduction: int,
    ranks: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    sparse = target, partner_labels, weight, class_weight
    smoothing = target_smoothing, label_smoothing
    loss, stats, count, found = soft_target_cross_entropy(
        logits, *sparse, ignore_index, *smoothing, reduction, ranks
    )
    grad = soft_target_cross_entropy_backward(
        torch.ones_like(loss), logits, stats, count, *sparse, ignore_index, *smoothing, reduction
    )
    return loss, grad, found


def scale_(x: Tensor, factor: Tensor) -> None:
    op_checks.expect_shape("factor", factor)
    x.copy_(x.to(factor.dtype) * factor)


def label_ranks(logits: Tensor, labels: Tensor, partner_labels: Tensor | None) -> Tensor:
    op_checks.check_ranks(logits, labels, partner_labels)
    both = (labels,) if partner_labels is None else (labels, partner_labels)
    return torch.stack([_ranks(logits, y) for y in both])


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes stand before the label: larger, or equal and earlier. NaN is ahead of all.

    A label whose own logit is NaN is after all, as is one outside [0, K).
    """
    k = logits.shape[1]
    valid = in_range(labels, k)
    at = torch.where(valid, labels, 0).unsqueeze(1)
    own = logits.gather(1, at)
    earlier = over_classes(torch.arange(k, device=logits.device), logits) < at
    ahead = ~(logits <= own) | ((logits == own) & earlier)
    return torch.where(valid, ahead.sum(1), k).to(torch.int32)


# ------------------------------------------------------------------ binary cross-entropy


def dense_binary_target(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    target_smoothing: float,
    target_threshold: float | None,
) -> Tensor:
    """t as [B, K, d1…] in the arithmetic type of the logits."""
    acc, k = arithmetic(logits.dtype), logits.shape[1]
    sparse = partner_labels is not None and weight is not None
    t = target.to(acc)
    if partner_labels is not None and weight is not None:
        t = dense_target(target, partner_labels, weight, k, target_smoothing, acc)
    if target_threshold is None:
        return t
    above = (t > target_threshold).to(acc)
    return torch.where(t.isnan(), torch.nan, above) if sparse else above  # NaN: poisoned


def class_factors(per_class: Tensor | None, like: Tensor) -> Tensor:
    return like.new_ones(()) if per_class is None else over_classes(per_class, like).to(like)


def soft_target_binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
    pos_weight: Tensor | None,
    target_smoothing: float,
    target_threshold: float | None,
    reduction: int,
    sum_classes: bool,
) -> Tensor:
    # w_c [(1-t) x + (1 + (q_c-1) t) softplus(-x)],  softplus(-x) = log(1 + e^-x)
    smoothing = target_smoothing, target_threshold
    op_checks.check_loss(
        logits, target, partner_labels, weight, reduction, class_weight, pos_weight
    )
    t = dense_binary_target(logits, target, partner_labels, weight, *smoothing)
    x = logits.to(t.dtype)
    w, q = class_factors(class_weight, t), class_factors(pos_weight, t)
    softplus = -torch.nn.functional.logsigmoid(x)
    loss = w * ((1 - t) * x + (1 + (q - 1) * t) * softplus)
    if sum_classes:
        loss = loss.sum(1)
    return _reduce(loss, reduction, loss.numel())


def soft_target_binary_cross_entropy_backward(
    grad_loss: Tensor,
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
    pos_weight: Tensor | None,
    target_smoothing: float,
    target_threshold: float | None,
    reduction: int,
    sum_classes: bool,
) -> Tensor:
    smoothing = target_smoothing, target_threshold
    op_checks.check_loss(
        logits, target, partner_labels, weight, reduction, class_weight, pos_weight
    )
    op_checks.check_grad_loss(grad_loss, logits, reduction, not sum_classes)
    t = dense_binary_target(logits, target, partner_labels, weight, *smoothing)
    w, q = class_factors(class_weight, t), class_factors(pos_weight, t)
    per_element = w * ((1 - t) - (1 + (q - 1) * t) * torch.sigmoid(-logits.to(t.dtype)))
    grad = binary_scale(grad_loss, logits, reduction, sum_classes) * per_element
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
    grad_loss: Tensor, logits: Tensor, *arguments: Tensor | float | None
) -> None:
    logits.copy_(soft_target_binary_cross_entropy_backward(grad_loss, logits, *arguments))  # type: ignore[arg-type]


def soft_target_binary_cross_entropy_grad(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    class_weight: Tensor | None,
    pos_weight: Tensor | None,
    target_smoothing: float,
    target_threshold: float | None,
    reduction: int,
    sum_classes: bool,
) -> tuple[Tensor, Tensor]:
    sparse = target, partner_labels, weight, class_weight, pos_weight
    smoothing = target_smoothing, target_threshold
    loss = soft_target_binary_cross_entropy(logits, *sparse, *smoothing, reduction, sum_classes)
    grad = soft_target_binary_cross_entropy_backward(
        torch.ones_like(loss), logits, *sparse, *smoothing, reduction, sum_classes
    )
    return loss, grad
