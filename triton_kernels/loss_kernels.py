"""The kernels of loss.py: the loss (alone, or with its gradient), the backward, the count.

The targets' formulas stand in loss_target.py.
"""

import triton
import triton.language as tl

from .common import float_scalar, weighted
from .label_ranks import count_ahead, rank_of
from .loss_target import (
    add_z_loss,
    dense_target,
    focal_terms,
    gradient_of,
    label_coefficients,
    shift_of,
    sparse_rows,
    sparse_target,
)
from .rows import CHANGING, at_classes, at_labels, program_rows, row_pointers, tile_classes


@triton.jit(do_not_specialize=CHANGING)
def loss_kernel(
    part,  # [2, programs]: Σ loss, and the rows that are not ignored
    loss,  # [R] or None
    stats,  # [3, R] or None: m, l, T
    ranks,  # int32 [2, R] or None
    grad,  # [B, K, …] or None
    count,  # what the gradient is divided by, or None
    logits,
    target,  # of the logits' shape if DENSE, else int64 [R]
    partner_labels,  # int64 [R] or None
    weight,  # float32 [B, 2], or None for w0, w1
    weight_strides,
    w0,
    w1,
    class_weight,  # [K] or None
    ignore_index: tl.int64,
    on,
    off,
    keep,  # 1 - ls
    smoothing,  # ls
    spread,  # ls / K
    gamma,
    z_loss,
    R,
    per_sample,
    k_units,
    i_units,
    sizes,
    z_strides,
    t_strides,
    d_strides,
    DENSE: tl.constexpr,
    SMOOTH: tl.constexpr,  # sparse: C may differ from 0; dense: ls does
    FOCAL: tl.constexpr,  # sparse, and not SMOOTH
    Z_LOSS: tl.constexpr,
    CLASS_FAST: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    U: tl.constexpr,
    KW: tl.constexpr,
    SB: tl.constexpr,
):
    acc: tl.constexpr = part.dtype.element_ty
    K = k_units * ALIGN if CLASS_FAST else k_units
    program = tl.program_id(0)
    outer, i, rows, ok = program_rows(program, i_units, CLASS_FAST, ALIGN, WIDE, SB)
    z_rows = row_pointers(logits, z_strides, outer, i, sizes, CLASS_FAST, ALIGN)
    keep = float_scalar(keep, acc)
    spread = float_scalar(spread, acc)
    ok3 = ok[None, None, :]
    if DENSE:
        t_rows = row_pointers(target, t_strides, outer, i, sizes, CLASS_FAST, ALIGN)
    if ranks is not None:
        y0 = tl.load(target + rows, mask=ok, other=0)
        y1 = tl.load(partner_labels + rows, mask=ok, other=0)
        z0 = at_labels(z_rows, z_strides, y0, K, ok, CLASS_FAST, ALIGN).to(acc)
        z1 = at_labels(z_rows, z_strides, y1, K, ok, CLASS_FAST, ALIGN).to(acc)
        ahead0 = tl.zeros((KW, SB), tl.int32)
        ahead1 = tl.zeros((KW, SB), tl.int32)

    # 1. One sweep. All sums are relative to the largest logit so far. When it grows, they are
    #    shifted: Σ u (z - m') = Σ u (z - m) + (m - m') Σ u.
    m = tl.full((KW, SB), float("-inf"), acc)
    exps = tl.zeros((KW, SB), acc)
    linear = tl.zeros((KW, SB), acc)  # Σ u (z - m); for a sparse target with t' = 1
    mass = tl.zeros((KW, SB), acc)  # Σ u, where it is not the number of classes
    steps = tile_classes(U, KW)
    start = K * 0
    while start < K:  # not range(): numpy's scalars break it in Triton's interpreter
        k = start + steps
        valid = (k < K) & ok3
        z_at = at_classes(z_rows, z_strides, k, CLASS_FAST, ALIGN)
        z = tl.load(z_at, mask=valid, other=float("-inf")).to(acc)
        before = shift_of(m)
        old = m
        m = tl.maximum(m, tl.max(z, 0))
        now = shift_of(m)
        exps = exps * tl.exp(old - now) + tl.sum(tl.exp(z - now[None, :, :]), 0)
        if DENSE or SMOOTH:
            away = z - now[None, :, :]
            if DENSE:
                t_at = at_classes(t_rows, t_strides, k, CLASS_FAST, ALIGN)
                u = dense_target(t_at, class_weight, k, valid, K, keep, spread, SMOOTH, acc)
            elif class_weight is not None:
                w = tl.load(class_weight + k, mask=k < K, other=0)
                u = tl.where(valid, w, 0.0)
            if DENSE or class_weight is not None:
                linear += mass * (before - now) + tl.sum(weighted(u, away), 0)
                mass += tl.sum(u, 0)
            else:
                seen = (start // KW).to(acc)  # classes of each place so far
                linear += seen * (before - now) + tl.sum(tl.where(valid, away, 0.0), 0)
        if ranks is not None:
            ahead0 += count_ahead(z, k, z0, y0)
            ahead1 += count_ahead(z, k, z1, y1)
        start += U * KW
    top = tl.max(m, 0)
    move = tl.exp(m - shift_of(top)[None, :])
    # A row without a finite logit has no softmax: m - m makes it NaN, as in PyTorch.
    log_sum = tl.log(tl.sum(exps * move, 0)) + (top - top)
    if not DENSE and class_weight is None:
        mass += ((K + KW - 1 - tl.arange(0, KW)) // KW).to(acc)[:, None]
    if DENSE or SMOOTH:
        linear += mass * (shift_of(m) - shift_of(top)[None, :])

    # 2. The rows' losses.
    counts = ok
    if DENSE:
        total = tl.sum(mass, 0)
        value = log_sum * total - tl.sum(linear, 0)
        if Z_LOSS:
            value, total = add_z_loss(value, total, top + log_sum, float_scalar(z_loss, acc))
    else:
        y0, y1, own, other, known, ignored = sparse_rows(
            *(target, partner_labels, weight, weight_strides, w0, w1, ignore_index),
            *(rows, ok, per_sample, K, acc),
        )
        z0 = at_labels(z_rows, z_strides, y0, K, ok, CLASS_FAST, ALIGN).to(acc)
        z1 = at_labels(z_rows, z_strides, y1, K, ok, CLASS_FAST, ALIGN).to(acc)
        a0, a1 = label_coefficients(
            class_weight, y0, y1, own, other, float_scalar(on, acc), K, ok, acc
        )
        c = float_scalar(off, acc) * (own + other) + spread
        dot = weighted(a0, z0 - top) + weighted(a1, z1 - top)
        if class_weight is None:
            total = keep * (own + other) + float_scalar(smoothing, acc)
        else:
            total = a0 + a1
            if SMOOTH:
                total += weighted(c, tl.sum(mass, 0))
        if SMOOTH:
            dot += weighted(c, tl.sum(linear, 0))
        value = log_sum * total - dot
        if FOCAL:
            value, total = focal_terms(
                z0 - top, z1 - top, log_sum, a0, a1, float_scalar(gamma, acc)
            )
        if Z_LOSS:
            value, total = add_z_loss(value, total, top + log_sum, float_scalar(z_loss, acc))
        # Labels outside [0, K) poison the loss, and through T the gradient of the row.
        total = tl.where(ignored, 0.0, tl.where(known, total, float("nan")))
        value = tl.where(ignored, 0.0, tl.where(known, value, float("nan")))
        counts = ok & ~ignored
    if loss is not None:
        tl.store(loss + rows, value, mask=ok)
    if stats is not None:
        at = stats + rows
        tl.store(at, top, mask=ok)
        tl.store(at + R, log_sum, mask=ok)
        tl.store(at + 2 * tl.cast(R, tl.int64), total, mask=ok)
    if ranks is not None:
        rank0 = tl.where(y0 == ignore_index, K, rank_of(ahead0, z0, y0, K))
        rank1 = tl.where(y1 == ignore_index, K, rank_of(ahead1, z1, y1, K))
        tl.store(ranks + rows, rank0, mask=ok)
        tl.store(ranks + R + rows, rank1, mask=ok)
    tl.store(part + program, tl.sum(tl.where(ok, value, 0.0), 0))
    at = part + tl.num_programs(0) + program
    tl.store(at, tl.sum(counts.to(acc), 0))

    # 3. The gradient: the row once more, from the cache.
    if grad is not None:
        d_rows = row_pointers(grad, d_strides, outer, i, sizes, CLASS_FAST, ALIGN)
        scale = tl.full((SB,), 1.0, acc)
        if count is not None:
            scale = scale / tl.load(count)
        gamma = float_scalar(gamma, acc)
        start = K * 0
        while start < K:
            k = start + steps
            valid = (k < K) & ok3
            z_at = at_classes(z_rows, z_strides, k, CLASS_FAST, ALIGN)
            z = tl.load(z_at, mask=valid, other=0).to(acc)
            if DENSE:
                t_at = at_classes(t_rows, t_strides, k, CLASS_FAST, ALIGN)
                u = dense_target(t_at, class_weight, k, valid, K, keep, spread, SMOOTH, acc)
                entry = gradient_of(z, top, log_sum, total, scale, u, gamma, FOCAL)
            else:
                u = sparse_target(class_weight, k, K, c, a0, a1, y0, y1)
                entry = gradient_of(z, top, log_sum, total, scale, u, gamma, FOCAL)
                entry = tl.where(ignored[None, None, :], 0.0, entry)
            d_at = at_classes(d_rows, d_strides, k, CLASS_FAST, ALIGN)
            tl.store(d_at, entry.to(grad.dtype.element_ty), mask=valid)
            start += U * KW


@triton.jit(do_not_specialize=CHANGING)
def loss_backward_kernel(
    grad,  # [B, K, …]; may be the logits
    grad_loss,  # [R]
    step,  # stride of the rows of grad_loss
    stats,  # [3, R]
    count,  # [] for a mean, else None
    logits,
    target,
    partner_labels,
    weight,
    weight_strides,
    w0,
    w1,
    class_weight,
    ignore_index: tl.int64,
    on,
    off,
    keep,
    spread,
    gamma,
    R,
    per_sample,
    k_units,
    i_units,
    sizes,
    z_strides,
    t_strides,
    d_strides,
    DENSE: tl.constexpr,
    SMOOTH: tl.constexpr,
    FOCAL: tl.constexpr,
    CLASS_FAST: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    U: tl.constexpr,
    KW: tl.constexpr,
    SB: tl.constexpr,
):
    acc: tl.constexpr = stats.dtype.element_ty
    K = k_units * ALIGN if CLASS_FAST else k_units
    parts = tl.cdiv(K, U * KW)
    program = tl.program_id(0)
    outer, i, rows, ok = program_rows(program // parts, i_units, CLASS_FAST, ALIGN, WIDE, SB)
    k = program % parts * (U * KW) + tile_classes(U, KW)
    valid = (k < K) & ok[None, None, :]
    z_rows = row_pointers(logits, z_strides, outer, i, sizes, CLASS_FAST, ALIGN)
    z_at = at_classes(z_rows, z_strides, k, CLASS_FAST, ALIGN)
    z = tl.load(z_at, mask=valid, other=0).to(acc)

    # 1. What the entries of a row share.
    spread = float_scalar(spread, acc)
    at = stats + rows
    m = tl.load(at, mask=ok, other=0)
    log_sum = tl.load(at + R, mask=ok, other=0)
    total = tl.load(at + 2 * tl.cast(R, tl.int64), mask=ok, other=0)
    scale = tl.load(grad_loss + rows * step, mask=ok, other=0).to(acc)
    if count is not None:
        scale = scale / tl.load(count)

    # 2. The gradient.
    gamma = float_scalar(gamma, acc)
    if DENSE:
        t_rows = row_pointers(target, t_strides, outer, i, sizes, CLASS_FAST, ALIGN)
        t_at = at_classes(t_rows, t_strides, k, CLASS_FAST, ALIGN)
        keep = float_scalar(keep, acc)
        u = dense_target(t_at, class_weight, k, valid, K, keep, spread, SMOOTH, acc)
        entry = gradient_of(z, m, log_sum, total, scale, u, gamma, FOCAL)
    else:
        y0, y1, own, other, known, ignored = sparse_rows(
            *(target, partner_labels, weight, weight_strides, w0, w1, ignore_index),
            *(rows, ok, per_sample, K, acc),
        )
        a0, a1 = label_coefficients(
            class_weight, y0, y1, own, other, float_scalar(on, acc), K, ok, acc
        )
        c = float_scalar(off, acc) * (own + other) + spread
        u = sparse_target(class_weight, k, K, c, a0, a1, y0, y1)
        entry = gradient_of(z, m, log_sum, total, scale, u, gamma, FOCAL)
        entry = tl.where(ignored[None, None, :], 0.0, entry)
    d_rows = row_pointers(grad, d_strides, outer, i, sizes, CLASS_FAST, ALIGN)
    d_at = at_classes(d_rows, d_strides, k, CLASS_FAST, ALIGN)
    tl.store(d_at, entry.to(grad.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=CHANGING)
def count_kernel(
    part,  # [programs]: rows that are not ignored
    target,
    partner_labels,
    weight,
    weight_strides,
    w0,
    w1,
    ignore_index: tl.int64,
    K,
    R,
    per_sample,
    BLOCK: tl.constexpr,
):
    acc: tl.constexpr = part.dtype.element_ty
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = rows < R
    _, _, _, _, _, ignored = sparse_rows(
        *(target, partner_labels, weight, weight_strides, w0, w1, ignore_index),
        *(rows, ok, per_sample, K, acc),
    )
    tl.store(part + tl.program_id(0), tl.sum((ok & ~ignored).to(acc), 0))
