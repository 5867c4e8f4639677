"""Cross-entropy with soft labels, dense or sparse: soft_target_cross_entropy and its backward.

With m = max z, l = log Σ exp(z - m) and the target t after smoothing:

    loss = l Σt - Σ t (z - m)              d loss / d z = (Σt) exp(z - m - l) - t

Fused: softmax, target (dense or two labels with weights), both smoothings. The forward reads each
logit once and keeps (m, l, Σt) per row; the backward reads each logit once and writes its gradient.
A sparse target costs two labels and two weights per row. It stands for

    t_k = C + Σ_j A_j [k = y_j],   A_j = on · w_j,   C = off · (w_0 + w_1) + ls/K
    on = (1 - ls) (1 - ts),   off = (1 - ls) ts / K,   Σt = (1 - ls) (w_0 + w_1) + ls

so that Σ t (z - m) = Σ_j A_j (z_yj - m) + C Σ (z - m). A coefficient of exactly 0 drops its term: a
logit of -inf leaves the loss finite where the target is 0.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import common
from .common import alignment, float_bits, float_scalar, host_row, weighted

MEAN, SUM = 0, 1
_MAX_BLOCK = 4096  # logits in one step of a sweep

_CHANGING = [
    "w0",
    "w1",
    "on",
    "off",
    "keep",
    "smoothing",
    "spread",
    "B",
    "units",
    "z_row",
    "t_row",
    "d_row",
    "g_row",
]


# -------------------------------------------------------------------- kernels


@triton.jit
def _row_weights(weight, weight_row, weight_col, w0, w1, b, ACC: tl.constexpr):
    if weight is None:
        own = tl.cast(w0, tl.float32).to(ACC)
        other = tl.cast(w1, tl.float32).to(ACC)
    else:
        own = tl.load(weight + b * weight_row).to(ACC)
        other = tl.load(weight + b * weight_row + weight_col).to(ACC)
    return own, other


@triton.jit
def _shift(m):
    """m, or 0 while no finite logit has been seen: -inf - -inf would be NaN."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit(do_not_specialize=_CHANGING)
def loss_forward_kernel(
    loss,  # [B]
    stats,  # [B, 3]: m, l, Σt
    logits,  # [B, K]
    target,  # [B, K] if DENSE, else int64 [B]
    partner_labels,  # int64 [B] or None
    weight,  # float32 [B, 2], or None for w0, w1
    weight_row,
    weight_col,
    w0,
    w1,
    on,
    off,
    keep,  # 1 - ls
    smoothing,  # ls
    spread,  # ls / K
    units,  # K and the row stride, in units of ALIGN
    z_row,
    z_col,
    t_row,
    t_col,
    y_row,
    DENSE: tl.constexpr,
    SMOOTH: tl.constexpr,  # sparse: C may differ from 0; dense: ls does
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    acc: tl.constexpr = loss.dtype.element_ty
    K = units * ALIGN
    b = tl.program_id(0).to(tl.int64)
    z_at = logits + b * (z_row.to(tl.int64) * ALIGN)
    keep = float_scalar(keep, acc)
    spread = float_scalar(spread, acc)

    # 1. One sweep. All sums are taken relative to the largest logit so far, and are moved along
    #    when it grows: Σ t (z - m') = Σ t (z - m) + (m - m') Σ t.
    m = tl.full((), float("-inf"), acc)
    exps = tl.zeros((BLOCK,), acc)
    linear = tl.zeros((BLOCK,), acc)  # Σ t (z - m); for a sparse target with t = 1
    mass = tl.zeros((BLOCK,), acc)  # Σ t, or the count
    start = K * 0
    while start < K:  # not range(): numpy's scalars break it in Triton's interpreter
        k = start + tl.arange(0, BLOCK)
        valid = k < K
        z = tl.load(z_at + k.to(tl.int64) * z_col, mask=valid, other=float("-inf")).to(acc)
        old = m
        m = tl.maximum(m, tl.max(z, 0))
        before = _shift(old)
        now = _shift(m)
        exps = exps * tl.exp(old - now) + tl.exp(z - now)
        if DENSE:
            t_at = target + b * (t_row.to(tl.int64) * ALIGN) + k.to(tl.int64) * t_col
            t = tl.load(t_at, mask=valid, other=0).to(acc)
            if SMOOTH:
                t = tl.where(valid, t * keep + spread, 0.0)
            linear += mass * (before - now) + tl.where(t == 0, 0.0, t * (z - now))
            mass += t
        elif SMOOTH:
            linear += mass * (before - now) + tl.where(valid, z - now, 0.0)
            mass += valid.to(acc)
        start += BLOCK
    # A row without a finite logit has no softmax: m - m makes it NaN, as in PyTorch.
    log_sum = tl.log(tl.sum(exps, 0)) + (m - m)

    # 2. The row's loss.
    if DENSE:
        total = tl.sum(mass, 0)
        dot = tl.sum(linear, 0)
    else:
        own, other = _row_weights(weight, weight_row, weight_col, w0, w1, b, acc)
        y0 = tl.load(target + b * y_row)
        y1 = tl.load(partner_labels + b * y_row)
        known = (y0 >= 0) & (y0 < K) & (y1 >= 0) & (y1 < K)
        z0 = tl.load(z_at + y0 * z_col, mask=known, other=0).to(acc) - m
        z1 = tl.load(z_at + y1 * z_col, mask=known, other=0).to(acc) - m
        a = float_scalar(on, acc)
        dot = weighted(a * own, z0) + weighted(a * other, z1)
        if SMOOTH:
            c = float_scalar(off, acc) * (own + other) + spread
            dot += weighted(c, tl.sum(linear, 0))
        total = keep * (own + other) + float_scalar(smoothing, acc)
        # Labels outside [0, K) poison the loss, and through Σt the gradient of the row.
        total = tl.where(known, total, float("nan"))
    tl.store(loss + b, log_sum * total - dot)
    tl.store(stats + b * 3, m)
    tl.store(stats + b * 3 + 1, log_sum)
    tl.store(stats + b * 3 + 2, total)


@triton.jit(do_not_specialize=_CHANGING)
def loss_backward_kernel(
    grad,  # [B, K]
    grad_loss,  # [B], or one element with g_row 0
    logits,
    stats,
    target,
    partner_labels,
    weight,
    weight_row,
    weight_col,
    w0,
    w1,
    on,
    off,
    keep,
    smoothing,
    spread,
    B,
    units,
    z_row,
    z_col,
    t_row,
    t_col,
    y_row,
    s_row,
    s_col,
    d_row,
    d_col,
    g_row,
    DENSE: tl.constexpr,
    SMOOTH: tl.constexpr,
    MEAN: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    acc: tl.constexpr = stats.dtype.element_ty
    K = units * ALIGN
    parts = tl.cdiv(K, BLOCK)
    b = (tl.program_id(0) // parts).to(tl.int64)
    z_at = logits + b * (z_row.to(tl.int64) * ALIGN)
    d_at = grad + b * (d_row.to(tl.int64) * ALIGN)
    keep = float_scalar(keep, acc)
    spread = float_scalar(spread, acc)
    m = tl.load(stats + b * s_row)
    log_sum = tl.load(stats + b * s_row + s_col)
    scale = tl.load(grad_loss + b * g_row).to(acc)
    if MEAN:
        scale = scale / B.to(acc)

    total = tl.load(stats + b * s_row + 2 * s_col)
    if not DENSE:
        own, other = _row_weights(weight, weight_row, weight_col, w0, w1, b, acc)
        y0 = tl.load(target + b * y_row)
        y1 = tl.load(partner_labels + b * y_row)
        a = float_scalar(on, acc)
        c = float_scalar(off, acc) * (own + other) + spread

    k = (tl.program_id(0) % parts) * BLOCK + tl.arange(0, BLOCK)
    valid = k < K
    z = tl.load(z_at + k.to(tl.int64) * z_col, mask=valid, other=0).to(acc)
    if DENSE:
        t_at = target + b * (t_row.to(tl.int64) * ALIGN) + k.to(tl.int64) * t_col
        t = tl.load(t_at, mask=valid, other=0).to(acc)
        if SMOOTH:
            t = t * keep + spread
    else:
        t = c + tl.where(k == y0, a * own, 0.0) + tl.where(k == y1, a * other, 0.0)
    value = scale * (total * tl.exp((z - m) - log_sum) - t)
    tl.store(d_at + k.to(tl.int64) * d_col, value.to(grad.dtype.element_ty), mask=valid)


# -------------------------------------------------------------------- host


def _target_args(
    logits: Tensor,
    weight: Tensor | None,
    target_smoothing: float,
    label_smoothing: float,
) -> tuple:
    """``weight … spread`` of the kernels: a row's weights and the coefficients of its target."""
    ts, ls, k = target_smoothing, label_smoothing, logits.shape[1]
    coefficients = ((1.0 - ls) * (1.0 - ts), (1.0 - ls) * ts / k, 1.0 - ls, ls, ls / k)
    if logits.dtype == torch.float64:
        coefficients = tuple(map(float_bits, coefficients))
    row = None if weight is None else host_row(weight)
    if row is not None or weight is None:
        return (None, 0, 0, *(row or (0.0, 0.0)), *coefficients)
    return (weight, *weight.stride(), 0.0, 0.0, *coefficients)


def _sparse(target: Tensor, partner_labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Labels and partner labels with one stride."""
    if partner_labels is not None and partner_labels.stride() != target.stride():
        return target.contiguous(), partner_labels.contiguous()
    return target, partner_labels


def soft_target_cross_entropy(
    logits: Tensor,
    target: Tensor,
    partner_labels: Tensor | None,
    weight: Tensor | None,
    target_smoothing: float,
    label_smoothing: float,
    reduction: int,
) -> tuple[Tensor, Tensor]:
    batch, k = logits.shape
    acc = torch.float64 if logits.dtype == torch.float64 else torch.float32
    loss, stats = logits.new_empty(batch, dtype=acc), logits.new_empty((batch, 3), dtype=acc)
    if logits.numel():
        dense = partner_labels is None
        target, partner_labels = _sparse(target, partner_labels)
        block = min(triton.next_power_of_2(k), _MAX_BLOCK)
        t_row, t_col, y_row = (*target.stride(), 0) if dense else (0, 0, target.stride(0))
        align = alignment(k, logits.stride(0), t_row)
        common.launch(
            loss_forward_kernel,
            batch,
            logits.device,
            *(loss, stats, logits, target, partner_labels),
            *_target_args(logits, weight, target_smoothing, label_smoothing),
            *(k // align, logits.stride(0) // align, logits.stride(1)),
            *(t_row // align, t_col, y_row),
            DENSE=dense,
            SMOOTH=label_smoothing != 0 or (not dense and target_smoothing != 0),
            ALIGN=align,
            BLOCK=block,
            num_warps=_warps(block),
        )
    # A reduction of its own: atomic additions would make the last bits differ between runs.
    if reduction == MEAN:
        return loss.mean(), stats
    return (loss.sum() if reduction == SUM else loss), stats


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
    grad = torch.empty_like(logits)
    if grad.numel() == 0:
        return grad
    batch, k = logits.shape
    dense = partner_labels is None
    target, partner_labels = _sparse(target, partner_labels)
    block = min(triton.next_power_of_2(k), _MAX_BLOCK)
    t_row, t_col, y_row = (*target.stride(), 0) if dense else (0, 0, target.stride(0))
    align = alignment(k, logits.stride(0), grad.stride(0), t_row)
    common.launch(
        loss_backward_kernel,
        batch * triton.cdiv(k, block),
        logits.device,
        *(grad, grad_loss, logits, stats, target, partner_labels),
        *_target_args(logits, weight, target_smoothing, label_smoothing),
        *(batch, k // align, logits.stride(0) // align, logits.stride(1)),
        *(t_row // align, t_col, y_row),
        *(*stats.stride(), grad.stride(0) // align, grad.stride(1)),
        0 if grad_loss.ndim == 0 else grad_loss.stride(0),
        DENSE=dense,
        SMOOTH=label_smoothing != 0,
        MEAN=reduction == MEAN,
        ALIGN=align,
        BLOCK=block,
        num_warps=_warps(block),
    )
    return grad


def _warps(block: int) -> int:
    return min(max(block // 256, 1), 8)
