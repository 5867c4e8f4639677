"""Binary cross-entropy with soft labels, dense or sparse, and its gradient: one sweep each.

    loss = w_c ((1 - t) x + (1 + (q_c - 1) t) softplus(-x))
    d loss / d x = w_c ((1 - t) - (1 + (q_c - 1) t) σ(-x))

With γ, s = softplus(-x) and (1 - σ)^γ = exp(-γ softplus(x)):

    F(x) = (1 - σ)^γ s,   F'(x) = -(1 - σ)^γ (γ σ s + 1 - σ)
    loss = w_c (q_c t F(x) + (1 - t) F(-x)),   d loss / d x = w_c (q_c t F'(x) - (1 - t) F'(-x))

Fused: the target (dense or two labels with weights), the threshold, class and positive weights,
the sum. Read per element: the logit, and a dense target; a sparse target has at most four values in
a row. Written: the gradient where it is asked for (over the logits too), and one sum per program.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import dtypes
from ..codes import MEAN, NONE
from ..op_checks import check_grad_loss, check_loss
from ..schemas import BinaryCrossEntropyArguments
from . import common
from .common import arithmetic, float_scalar, scalars, smoothed_one_hot, weighted
from .configs import config
from .rows import (
    CHANGING,
    at_classes,
    gradient_step,
    label_args,
    program_rows,
    row_pointers,
    row_weights,
    rows_of,
    tile_classes,
)


@triton.jit
def _thresholded(t, threshold, THRESHOLD: tl.constexpr):
    if THRESHOLD:
        t = tl.where(t > threshold, 1.0, 0.0).to(t.dtype)
    return t


@triton.jit
def _curved(x):
    """log(1 + e) with e = exp(-|x|), and e: softplus(-x) is that + max(-x, 0)."""
    e = tl.exp(-tl.abs(x))
    u = 1 + e
    # The quotient puts back, to first order, what the rounding of 1 + e took from e.
    return tl.log(u) - ((u - 1) - e) / u, e


@triton.jit(do_not_specialize=[*CHANGING, "threshold", "divisor"])
def bce_kernel(
    sums,  # [programs] if not ROWS, else [parts, R]; or None
    values,  # [B, K, …]: the loss of each element, or None
    grad,  # [B, K, …], may be the logits; or None
    grad_loss,  # [R], or [B, K, …] if ELEMENTS; None for one
    step,  # stride of the rows of grad_loss
    divisor,  # the gradient is divided by it
    logits,
    target,
    partner_labels,
    weight,
    weight_strides,
    w0,
    w1,
    class_weight,  # [K] or None
    pos_weight,  # [K] or None
    on,
    off,
    threshold,
    gamma,
    R,
    per_sample,
    k_units,
    i_units,
    sizes,
    x_strides,
    t_strides,
    v_strides,
    d_strides,
    g_strides,
    DENSE: tl.constexpr,
    THRESHOLD: tl.constexpr,
    FOCAL: tl.constexpr,
    ROWS: tl.constexpr,
    ELEMENTS: tl.constexpr,
    CLASS_FAST: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    U: tl.constexpr,
    KW: tl.constexpr,
    SB: tl.constexpr,
):
    acc: tl.constexpr = arithmetic(logits.dtype.element_ty)
    K = k_units * ALIGN if CLASS_FAST else k_units
    parts = tl.cdiv(K, U * KW)
    program = tl.program_id(0)
    outer, i, rows, ok = program_rows(program // parts, i_units, CLASS_FAST, ALIGN, WIDE, SB)
    k = program % parts * (U * KW) + tile_classes(U, KW)
    valid = (k < K) & ok[None, None, :]
    x_rows = row_pointers(logits, x_strides, outer, i, sizes, CLASS_FAST, ALIGN)
    x_at = at_classes(x_rows, x_strides, k, CLASS_FAST, ALIGN)
    x = tl.load(x_at, mask=valid, other=0).to(acc)
    threshold = float_scalar(threshold, acc)

    # 1. The target.
    if DENSE:
        t_rows = row_pointers(target, t_strides, outer, i, sizes, CLASS_FAST, ALIGN)
        t_at = at_classes(t_rows, t_strides, k, CLASS_FAST, ALIGN)
        t = tl.load(t_at, mask=valid, other=0).to(acc)
        t = _thresholded(t, threshold, THRESHOLD)
    else:
        y0 = tl.load(target + rows, mask=ok, other=0)
        y1 = tl.load(partner_labels + rows, mask=ok, other=0)
        own, other = row_weights(weight, weight_strides, w0, w1, rows, ok, per_sample, acc)
        hit = float_scalar(on, acc)
        miss = float_scalar(off, acc)
        both = _thresholded(weighted(own, hit) + weighted(other, hit), threshold, THRESHOLD)
        first = _thresholded(weighted(own, hit) + weighted(other, miss), threshold, THRESHOLD)
        second = _thresholded(weighted(own, miss) + weighted(other, hit), threshold, THRESHOLD)
        none = _thresholded(weighted(own, miss) + weighted(other, miss), threshold, THRESHOLD)
        is0 = k == y0[None, None, :]
        is1 = k == y1[None, None, :]
        at_own = tl.where(is1, both[None, None, :], first[None, None, :])
        elsewhere = tl.where(is1, second[None, None, :], none[None, None, :])
        # Labels outside [0, K) poison their row.
        known = (y0 >= 0) & (y0 < K) & (y1 >= 0) & (y1 < K)
        t = tl.where(known[None, None, :], tl.where(is0, at_own, elsewhere), float("nan"))
    w = tl.full((), 1.0, acc)
    positive = tl.full((), 1.0, acc)
    there = t  # q t
    if class_weight is not None:
        w = tl.load(class_weight + k, mask=k < K, other=0)
    if pos_weight is not None:
        q = tl.load(pos_weight + k, mask=k < K, other=0)
        positive = 1 + (q - 1) * t
        there = q * t
    curved, e = _curved(x)
    softplus = curved + tl.where(x < 0, -x, 0.0)
    if FOCAL:
        gamma = float_scalar(gamma, acc)
        other = curved + tl.where(x < 0, 0.0, x)  # softplus(x)
        present = there * tl.exp(-gamma * other)
        absent = (1 - t) * tl.exp(-gamma * softplus)

    # 2. The loss.
    if sums is not None or values is not None:
        if FOCAL:
            value = tl.where(valid, w * (present * softplus + absent * other), 0.0)
        else:
            value = tl.where(valid, w * ((1 - t) * x + positive * softplus), 0.0)
        if values is not None:
            v_rows = row_pointers(values, v_strides, outer, i, sizes, CLASS_FAST, ALIGN)
            tl.store(at_classes(v_rows, v_strides, k, CLASS_FAST, ALIGN), value, mask=valid)
        if sums is not None:
            row_sums = tl.sum(tl.sum(value, 0), 0)
            if ROWS:
                at = sums + (program % parts).to(tl.int64) * R + rows
                tl.store(at, row_sums, mask=ok)
            else:
                tl.store(sums + program, tl.sum(row_sums, 0))

    # 3. The gradient.
    if grad is not None:
        scale = tl.full((), 1.0, acc)
        if ELEMENTS:
            g_rows = row_pointers(grad_loss, g_strides, outer, i, sizes, CLASS_FAST, ALIGN)
            g_at = at_classes(g_rows, g_strides, k, CLASS_FAST, ALIGN)
            scale = tl.load(g_at, mask=valid, other=0)
        elif grad_loss is not None:
            scale = tl.load(grad_loss + rows * step, mask=ok, other=0)[None, None, :]
        scale = scale / divisor.to(acc)
        sigmoid = tl.where(x >= 0, e, 1.0) / (1 + e)  # σ(-x)
        slope = (1 - t) - positive * sigmoid
        if FOCAL:
            p = tl.where(x >= 0, 1.0, e) / (1 + e)  # σ(x)
            slope = absent * (gamma * sigmoid * other + p)
            slope -= present * (gamma * p * softplus + sigmoid)
        d_rows = row_pointers(grad, d_strides, outer, i, sizes, CLASS_FAST, ALIGN)
        d_at = at_classes(d_rows, d_strides, k, CLASS_FAST, ALIGN)
        entry = scale * (w * slope)
        tl.store(d_at, entry.to(grad.dtype.element_ty), mask=valid)


def _launch(
    logits: Tensor,
    arguments: BinaryCrossEntropyArguments,
    *,
    loss: bool = False,
    grad: Tensor | None = None,
    grad_loss: Tensor | None = None,
) -> Tensor | None:
    """The ``loss`` if asked for; the gradient into ``grad``, which may be the logits."""
    target, dense = arguments.target, arguments.partner_labels is None
    reduction, sum_classes = arguments.reduction, arguments.sum_classes
    check_loss(logits, arguments)
    if grad_loss is not None:
        check_grad_loss(grad_loss, logits, reduction, not sum_classes)
    acc = dtypes.arithmetic(logits.dtype)
    shape = (logits.shape[0], *logits.shape[2:])
    elements = reduction == NONE and not sum_classes
    values = logits.new_empty(logits.shape, dtype=acc) if loss and elements else None
    g_elements = elements and grad_loss is not None
    placed = {
        "t": target if dense else None,
        "v": values,
        "d": grad,
        "g": grad_loss if g_elements else None,
    }
    there = [t for t in placed.values() if t is not None]
    rows = rows_of(logits, *there)
    x_strides, *others = rows.strides
    strides = [others.pop(0) if t is not None else () for t in placed.values()]
    tile = rows.tile(logits.itemsize, config("bce", logits.itemsize))
    parts = triton.cdiv(rows.classes, tile["U"] * tile["KW"])
    programs = rows.blocks(tile) * parts
    by_row = reduction == NONE and sum_classes
    sums = None
    if loss and not elements:
        sums = logits.new_empty((parts, *shape) if by_row else programs, dtype=acc)
    count = rows.count * (1 if sum_classes else rows.classes)
    step = 0
    if grad_loss is not None and not g_elements:
        grad_loss, step = gradient_step(grad_loss)
    threshold = arguments.target_threshold
    common.launch(
        bce_kernel,
        programs,
        logits.device,
        *(sums, values, grad, grad_loss, step, count if reduction == MEAN else 1, logits),
        *(*label_args(arguments), arguments.class_weight, arguments.pos_weight),
        *scalars(acc, *smoothed_one_hot(arguments.target_smoothing, rows.classes)),
        *scalars(acc, threshold or 0.0, float(arguments.focal_gamma)),
        *(*rows.layout, x_strides, *strides),
        DENSE=dense,
        THRESHOLD=threshold is not None,
        FOCAL=arguments.focal_gamma != 0,
        ROWS=by_row,
        ELEMENTS=g_elements,
        **rows.flags,
        **tile,
        # The threshold has to see products and sum rounded one by one, as in eager PyTorch.
        enable_fp_fusion=dense or threshold is None,
    )
    if sums is None:
        return values
    if by_row:
        return sums.sum(0)
    return sums.sum() / count if reduction == MEAN else sums.sum()


def soft_target_binary_cross_entropy(logits: Tensor, *arguments) -> Tensor:
    return _launch(logits, BinaryCrossEntropyArguments(*arguments), loss=True)


def soft_target_binary_cross_entropy_grad(logits: Tensor, *arguments) -> tuple[Tensor, Tensor]:
    grad = torch.empty_like(logits)
    return _launch(logits, BinaryCrossEntropyArguments(*arguments), loss=True, grad=grad), grad


def soft_target_binary_cross_entropy_backward(
    grad_loss: Tensor, logits: Tensor, *arguments
) -> Tensor:
    grad = torch.empty_like(logits)
    _launch(logits, BinaryCrossEntropyArguments(*arguments), grad=grad, grad_loss=grad_loss)
    return grad


def soft_target_binary_cross_entropy_backward_(
    grad_loss: Tensor, logits: Tensor, *arguments
) -> None:
    _launch(logits, BinaryCrossEntropyArguments(*arguments), grad=logits, grad_loss=grad_loss)
