"""Every op in plain PyTorch: the specification, the fallback, and the truth in tests.

Each function takes the arguments of the op of the same name in ``ops.py``. It is written to be
read, not to be fast: it makes full-size temporaries, which the other backends do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .plan_checks import TENSOR, partner_indices
from .target import partner_rows

MEAN, SUM, NONE = range(3)


def _partner(partner: Tensor | None, pairing: int, x: Tensor) -> Tensor:
    """int64 [B] on the device of x, clamped so that nothing is read out of bounds."""
    if pairing != TENSOR or partner is None:
        return partner_indices(pairing, x.shape[0], x.device).long()
    return partner.long().clamp(0, max(x.shape[0] - 1, 0))


def _inside(box: Tensor, x: Tensor) -> Tensor:
    """bool, broadcastable to x [B, …, spatial]: whether a position lies in the box of its row."""
    d = box.shape[1] // 2
    box = box.to(x.device)
    inside = torch.full([x.shape[0]] + [1] * (x.ndim - 1), d > 0, device=x.device)
    for k in range(d):
        dim = x.ndim - d + k
        p = torch.arange(x.shape[dim], device=x.device)
        p = p.view([-1 if i == dim else 1 for i in range(x.ndim)])
        row = [-1] + [1] * (x.ndim - 1)
        inside = inside & (p >= box[:, k].view(row)) & (p < box[:, d + k].view(row))
    return inside


def _arithmetic(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _columns(weights: Tensor, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two columns of [B, 2] weights in ``dtype``, shaped to multiply x [B, …]."""
    w = weights.to(device=x.device, dtype=dtype).view([-1, 2] + [1] * (x.ndim - 1))
    return w[:, 0], w[:, 1]


def _term(weight: Tensor, value: Tensor) -> Tensor:
    """weight · value, where a weight of exactly 0 drops the term (no 0·inf)."""
    return torch.where(weight == 0, 0, weight * value)


def _round(value: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        value = value.round().clamp(0, 255)
    return value.to(dtype)


def mix(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> Tensor:
    acc = _arithmetic(x.dtype)
    other = x[_partner(partner, pairing, x)]
    w0, w1 = _columns(blend, x, acc)
    blended = _term(w0, x.to(acc)) + _term(w1, other.to(acc))
    # Weights (1, 0) keep the bits of x, the sign of a zero included.
    blended = torch.where((w0 == 1) & (w1 == 0), x, _round(blended, x.dtype))
    out = torch.where(_inside(box, x), other, blended)
    return torch.empty_like(x).copy_(out)


def mix_backward(
    grad: Tensor,
    partner: Tensor | None,
    sources: Tensor | None,
    offsets: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
) -> Tensor:
    # out_i = a_i x_i + b_i x_p(i)  =>  grad_j = a_j g_j + sum over p(i) = j of b_i g_i
    acc = _arithmetic(grad.dtype)
    g = grad.to(acc)
    w0, w1 = _columns(blend, grad, acc)
    inside = _inside(box, grad)
    own = torch.where(inside, 0, _term(w0, g))
    other = torch.where(inside, g, _term(w1, g))
    own.index_add_(0, _partner(partner, pairing, grad), other)
    return torch.empty_like(grad).copy_(own)


def mix_(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> None:
    x.copy_(mix(x, partner, blend, box, pairing))


def mix_out(
    x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int, out: Tensor
) -> None:
    out.copy_(mix(x, partner, blend, box, pairing))


def paste_(x: Tensor, partner: Tensor | None, box: Tensor, pairing: int) -> None:
    x.copy_(torch.where(_inside(box, x), x[_partner(partner, pairing, x)], x))


def mix_samples(
    samples: Sequence[Tensor],
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    out: Tensor,
) -> None:
    mixed = mix(torch.stack(list(samples)), partner, blend, box, pairing)
    out.copy_(mixed[: out.shape[0]])


def dense_target(
    labels: Tensor,
    partner_labels: Tensor,
    weight: Tensor,
    num_classes: int,
    label_smoothing: float,
    dtype: torch.dtype,
) -> Tensor:
    """Σ_k weight_k · ((1-ε) onehot(label_k) + ε/K) as [B, K, …]; NaN for labels outside [0, K)."""
    acc = _arithmetic(dtype)
    off = label_smoothing / num_classes
    on = 1.0 - label_smoothing + off
    shape = [1, num_classes] + [1] * (labels.ndim - 1)
    classes = torch.arange(num_classes, device=labels.device).view(shape)
    valid = (labels >= 0) & (labels < num_classes)
    valid &= (partner_labels >= 0) & (partner_labels < num_classes)
    # On the host, whatever the default device: as scalars they serve labels on any device.
    hit_value, other_value = torch.tensor([on, off], dtype=acc, device="cpu").unbind()
    total = torch.zeros((), dtype=acc, device=labels.device)
    for w, y in zip(_columns(weight, labels, acc), (labels, partner_labels), strict=True):
        hit = classes == y.unsqueeze(1)
        values = torch.where(hit, hit_value, other_value)
        total = total + _term(w.unsqueeze(1), values)
    return torch.where(valid.unsqueeze(1), total, torch.nan).to(dtype).contiguous()


def mix_targets(
    labels: Tensor,
    partner: Tensor | None,
    weight: Tensor,
    pairing: int,
    num_classes: int,
    label_smoothing: float,
    dtype: torch.dtype,
) -> Tensor:
    other = partner_rows(labels, partner, pairing)
    return dense_target(labels, other, weight, num_classes, label_smoothing, dtype)


def _smoothed_target(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    target_smoothing: float,
    label_smoothing: float,
) -> Tensor:
    """The dense target [B, K] that the loss means, in the arithmetic type of the logits."""
    acc, k = _arithmetic(logits.dtype), logits.shape[1]
    if partner_labels is None or weight is None:
        t = target.to(acc)
    else:
        t = dense_target(target, partner_labels, weight, k, target_smoothing, acc)
    # Not touched at ε = 0, and in the arithmetic type otherwise.
    return t * (1.0 - label_smoothing) + label_smoothing / k if label_smoothing else t


def _reduce(rows: Tensor, reduction: int) -> Tensor:
    if reduction == MEAN:
        return rows.mean()
    return rows.sum() if reduction == SUM else rows


def soft_target_cross_entropy(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    target_smoothing: float,
    label_smoothing: float,
    reduction: int,
) -> tuple[Tensor, Tensor]:
    # With m = max z, l = log Σ exp(z-m):  loss = l Σ t - Σ t (z-m).  stats [B, 3] = (m, l, Σ t).
    t = _smoothed_target(logits, target, partner_labels, weight, target_smoothing, label_smoothing)
    z = logits.to(t.dtype)
    m = z.amax(1, keepdim=True)
    shifted = z - m
    log_sum = shifted.exp().sum(1).log()
    total = t.sum(1)
    rows = log_sum * total - _term(t, shifted).sum(1)
    return _reduce(rows, reduction), torch.stack((m.squeeze(1), log_sum, total), 1)


def soft_target_cross_entropy_backward(
    grad_loss: Tensor,
    logits: Tensor,
    stats: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    target_smoothing: float,
    label_smoothing: float,
    reduction: int,
) -> Tensor:
    # d loss / d z = (Σ t) softmax(z) - t, scaled by the gradient of the row's loss.
    t = _smoothed_target(logits, target, partner_labels, weight, target_smoothing, label_smoothing)
    m, log_sum, total = stats.unsqueeze(2).unbind(1)
    p = (logits.to(t.dtype) - m - log_sum).exp()
    scale = row_scale(grad_loss, logits.shape[0], reduction).to(t.dtype)
    grad = scale * (total * p - t)
    return torch.empty_like(logits).copy_(grad)


def row_scale(grad_loss: Tensor, batch_size: int, reduction: int) -> Tensor:
    """The gradient of each row's loss, [B, 1] or [1, 1]."""
    if reduction == MEAN:
        return (grad_loss / max(batch_size, 1)).view(1, 1)
    return grad_loss.view(-1, 1)
