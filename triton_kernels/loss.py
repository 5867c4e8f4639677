"""Cross-entropy with soft labels, dense or sparse: soft_target_cross_entropy and its gradient.

With m = max z, l = log Σ exp(z - m), the target t' after smoothing, class weights w, u = w t' and
T = Σ u:

    loss = l T - Σ u (z - m)              d loss / d z = T exp(z - m - l) - u

With γ (two labels, no smoothing), f and h of loss_target.py and p = exp(z - m - l):

    loss = Σ u f(p),  T = Σ u h(p)         d loss / d z = T p - u h(p)

A z-loss adds z (m + l)² to the loss and 2 z (m + l) to T.

Fused: softmax, target (dense or two labels with weights), both smoothings, class weights, ignored
labels, the ranks of the labels. The forward reads each logit once and keeps (m, l, T) per row. The
backward reads each logit once and writes its gradient, over the logits if asked. Forward and
backward in one kernel read a row twice, the second time from the cache.
"""

import torch
import triton
from torch import Tensor

from .. import dtypes
from ..codes import MEAN, NONE
from ..op_checks import check_grad_loss, check_kernel_focal, check_loss, check_saved
from ..schemas import CrossEntropyArguments
from . import common
from .common import scalars
from .configs import config
from .loss_kernels import count_kernel, loss_backward_kernel, loss_kernel
from .rows import Rows, gradient_step, label_args, rows_of

# Longer rows have a configuration of their own where they are read twice.
_LONG_ROW_BYTES = 64 * 1024


def _coefficients(logits: Tensor, arguments: CrossEntropyArguments) -> tuple:
    """``on, off, keep, smoothing, spread`` of the kernels."""
    ts, ls, k = arguments.target_smoothing, arguments.label_smoothing, max(logits.shape[1], 1)
    values = ((1.0 - ls) * (1.0 - ts), (1.0 - ls) * ts / k, 1.0 - ls, ls, ls / k)
    return scalars(dtypes.arithmetic(logits.dtype), *values)


def _focal(logits: Tensor, arguments: CrossEntropyArguments) -> tuple:
    """``gamma, z_loss`` of the kernels."""
    return scalars(
        dtypes.arithmetic(logits.dtype), float(arguments.focal_gamma), float(arguments.z_loss)
    )


def _rows(
    logits: Tensor, arguments: CrossEntropyArguments, grad: Tensor | None
) -> tuple[Rows, tuple]:
    """The rows, and ``z_strides, t_strides, d_strides`` of the kernels."""
    dense = arguments.partner_labels is None
    others = [t for t in (arguments.target if dense else None, grad) if t is not None]
    rows = rows_of(logits, *others)
    strides = list(rows.strides)
    return rows, (
        strides.pop(0),
        strides.pop(0) if dense else (),
        strides.pop(0) if grad is not None else (),
    )


def _count(logits: Tensor, arguments: CrossEntropyArguments) -> Tensor:
    """How many rows are not ignored, from labels and weights alone."""
    acc = dtypes.arithmetic(logits.dtype)
    per_sample = logits[0, 0].numel() if logits.shape[0] and logits.shape[1] else 0
    total = logits.shape[0] * per_sample
    if arguments.partner_labels is None:
        return logits.new_full((), total, dtype=acc)
    run = config("count", 8)  # int64 labels
    part = logits.new_empty(triton.cdiv(total, run.block), dtype=acc)
    common.launch(
        count_kernel,
        part.numel(),
        logits.device,
        *(part, *label_args(arguments), arguments.ignore_index),
        *(logits.shape[1], total, per_sample),
        BLOCK=run.block,
        num_warps=run.warps,
        enable_fp_fusion=True,
    )
    return part.sum()


def _forward(
    logits: Tensor, arguments: CrossEntropyArguments, ranks: bool, grad: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Loss, stats (None where there is a ``grad`` to write instead), count, ranks."""
    check_loss(logits, arguments)
    check_kernel_focal(arguments)
    acc, dense = dtypes.arithmetic(logits.dtype), arguments.partner_labels is None
    reduction, label_smoothing = arguments.reduction, arguments.label_smoothing
    class_weight = arguments.class_weight
    shape = (logits.shape[0], *logits.shape[2:])
    values = logits.new_empty(shape, dtype=acc) if reduction == NONE else None
    stats = logits.new_empty((3, *shape), dtype=acc) if grad is None else None
    found = logits.new_empty((2, *shape) if ranks else 0, dtype=torch.int32)
    divisor = None
    if grad is not None and reduction == MEAN:
        divisor = _count(logits, arguments)
    rows, strides = _rows(logits, arguments, grad)
    long = grad is not None and rows.classes * logits.itemsize > _LONG_ROW_BYTES
    plain = not dense and class_weight is None and not ranks
    kernel = ("loss_long" if long else "loss") + ("" if plain else "_weighted")
    tile = rows.tile(logits.itemsize, config(kernel, logits.itemsize))
    programs = rows.blocks(tile)
    part = logits.new_empty((2, programs), dtype=acc)
    common.launch(
        loss_kernel,
        programs,
        logits.device,
        *(part, values, stats, found if ranks else None, grad, divisor, logits),
        *(*label_args(arguments), class_weight, arguments.ignore_index),
        *_coefficients(logits, arguments),
        *(*_focal(logits, arguments), *rows.layout, *strides),
        DENSE=dense,
        FOCAL=arguments.focal_gamma != 0,
        Z_LOSS=arguments.z_loss != 0,
        SMOOTH=label_smoothing != 0 or (not dense and arguments.target_smoothing != 0),
        **rows.flags,
        **tile,
        enable_fp_fusion=True,
    )
    # The sum is a second launch: atomic additions would make the last bits differ between runs.
    total, count = part.sum(1).unbind()
    if values is None:
        values = total / count if reduction == MEAN else total.clone()
    return values, stats, count.clone(), found  # results of an op must not share memory


def soft_target_cross_entropy(
    logits: Tensor, *arguments
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    *shared, ranks = arguments
    return _forward(logits, CrossEntropyArguments(*shared), ranks, grad=None)


def soft_target_cross_entropy_grad(logits: Tensor, *arguments) -> tuple[Tensor, Tensor, Tensor]:
    *shared, ranks = arguments
    grad = torch.empty_like(logits)
    loss, _, _, found = _forward(logits, CrossEntropyArguments(*shared), ranks, grad)
    return loss, grad, found


def _backward(
    grad: Tensor,
    grad_loss: Tensor,
    logits: Tensor,
    stats: Tensor,
    count: Tensor,
    arguments: CrossEntropyArguments,
) -> None:
    """Write the gradient into ``grad``, which may be the logits."""
    check_loss(logits, arguments)
    check_kernel_focal(arguments)
    check_grad_loss(grad_loss, logits, arguments.reduction)
    check_saved(stats, count, logits)
    rows, strides = _rows(logits, arguments, grad)
    tile = rows.tile(logits.itemsize, config("loss_backward", logits.itemsize))
    on, off, keep, _, spread = _coefficients(logits, arguments)
    common.launch(
        loss_backward_kernel,
        rows.blocks(tile) * triton.cdiv(rows.classes, tile["U"] * tile["KW"]),
        logits.device,
        *(grad, *gradient_step(grad_loss), stats.contiguous()),
        *(count if arguments.reduction == MEAN else None, logits),
        *(*label_args(arguments), arguments.class_weight, arguments.ignore_index),
        *(on, off, keep, spread, _focal(logits, arguments)[0], *rows.layout, *strides),
        DENSE=arguments.partner_labels is None,
        FOCAL=arguments.focal_gamma != 0,
        SMOOTH=arguments.label_smoothing != 0,
        **rows.flags,
        **tile,
        enable_fp_fusion=True,
    )


def soft_target_cross_entropy_backward(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, count: Tensor, *arguments
) -> Tensor:
    grad = torch.empty_like(logits)
    _backward(grad, grad_loss, logits, stats, count, CrossEntropyArguments(*arguments))
    return grad


def soft_target_cross_entropy_backward_(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, count: Tensor, *arguments
) -> None:
    _backward(logits, grad_loss, logits, stats, count, CrossEntropyArguments(*arguments))
