"""The losses of the CUDA backend on CPU tensors, through the host harness.

Names and arguments are those of the ops, as in ops.py; this module does for CPU tensors what the
bindings do for CUDA ones. One stride must lead through all spatial dims.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from fused_mixup.codes import MEAN, NONE
from fused_mixup.dtypes import arithmetic

from .lib import check, library
from .ops import DOUBLE, DTYPES, INT, POINTER, SHARED_LIMIT, address, int_array, row_or_rows

_S = INT * 3  # Strides


class HostLoss(ctypes.Structure):
    """The struct HostLoss of driver_loss.cpp."""

    _fields_ = [(n, INT) for n in ("binary", "forward", "dtype")]
    _fields_ += [("logits", POINTER), ("logits_at", _S)]
    _fields_ += [(n, INT) for n in ("batch", "classes", "positions")]
    _fields_ += [("target", POINTER), ("target_dtype", INT), ("target_at", _S)]
    _fields_ += [(n, POINTER) for n in ("labels", "partner_labels", "weight", "weight_row")]
    _fields_ += [("ignore_index", INT), ("class_weight", POINTER), ("pos_weight", POINTER)]
    _fields_ += [(n, DOUBLE) for n in ("target_smoothing", "label_smoothing")]
    _fields_ += [("focal_gamma", DOUBLE), ("z_loss", DOUBLE), ("has_threshold", INT)]
    _fields_ += [("threshold", DOUBLE), ("reduction", INT)]
    _fields_ += [(n, POINTER) for n in ("row_losses", "element_losses", "loss", "count", "stats")]
    _fields_ += [
        ("ranks", POINTER),
        ("rank_planes", INT),
        ("grad_loss", POINTER),
        ("grad_loss_at", _S),
    ]
    _fields_ += [("grad", POINTER), ("grad_at", _S), ("divisor", DOUBLE)]
    _fields_ += [("cluster_blocks", INT), ("shared_limit", INT)]


def _position_stride(x: Tensor, first: int) -> int | None:
    """The stride that leads through the dims from ``first`` on, if one does."""
    if x.numel() == 0:
        return 1
    steps = [(n, s) for n, s in zip(x.shape[first:], x.stride()[first:], strict=True) if n != 1]
    step, below = steps[-1][1] if steps else 1, 1
    for size, stride in reversed(steps):
        if stride != step * below:
            return None
        below *= size
    return step


def _near(x: Tensor, first: int = 2) -> Tensor:
    """x, or a copy where no single stride leads through its positions, as in the binding."""
    return x if _position_stride(x, first) is not None else x.contiguous()


def _strides(x: Tensor, classes: bool = True) -> ctypes.Array:
    """The strides of [B, K, d1…], or of [B, d1…]."""
    if x.ndim == 0:
        return _S(0, 0, 0)
    return _S(x.stride(0), x.stride(1) if classes else 0, _position_stride(x, 1 + classes))


class _Call:
    """The arguments of a call, and the tensors that they point to."""

    def __init__(self, logits, target, partner_labels, weight, class_weight, smoothing):
        logits = _near(logits)
        target = _near(target) if partner_labels is None else target
        self.h = h = HostLoss(dtype=DTYPES.index(logits.dtype), logits=address(logits))
        h.logits_at = _strides(logits)
        h.batch, h.classes = logits.shape[:2]
        h.positions = math.prod(logits.shape[2:])
        self.rows = (logits.shape[0], *logits.shape[2:])
        self.acc = arithmetic(logits.dtype)
        self.keep = [logits, target]
        if partner_labels is None:
            h.target, h.target_dtype = address(target), DTYPES.index(target.dtype)
            h.target_at = _strides(target)
        else:
            row, rows = row_or_rows(weight)
            pointed = [target.contiguous(), partner_labels.contiguous(), row, rows]
            h.labels, h.partner_labels, h.weight_row, h.weight = map(address, pointed)
            self.keep += pointed
        h.class_weight = address(class_weight)
        h.target_smoothing = smoothing

    def scratch(self, *shape, dtype=None) -> Tensor:
        """A tensor without zeros, so that a test sees elements that were not written."""
        return torch.full(shape, 7, dtype=dtype or self.acc)

    def run(self, grad: Tensor | None = None, grad_loss: Tensor | None = None) -> None:
        """Run the loss; write the gradient for one or many ``grad_loss`` to ``grad``, if given."""
        near = grad
        if grad is not None:
            near = _near(grad)
            self.h.grad, self.h.grad_at = address(near), _strides(near)
        if grad is not None and grad_loss is not None:
            classes = grad_loss.ndim == grad.ndim
            grad_loss = grad_loss if grad_loss.ndim == 0 else _near(grad_loss, 1 + classes)
            self.h.grad_loss, self.h.grad_loss_at = address(grad_loss), _strides(grad_loss, classes)
        check(library().host_loss(ctypes.byref(self.h)))
        if near is not grad:
            grad.copy_(near)


# ------------------------------------------------------------------ cross-entropy


def _cross_entropy(
    logits, target, partner, weight, class_weight, ignore, ts, ls, gamma, z_loss, reduction
):
    call = _Call(logits, target, partner, weight, class_weight, ts)
    call.h.ignore_index, call.h.label_smoothing, call.h.reduction = ignore, ls, reduction
    call.h.focal_gamma, call.h.z_loss = gamma, z_loss
    return call


def _loss_of(call, reduction, ranks):
    h = call.h
    rows = call.scratch(*call.rows) if reduction == NONE else None
    loss = rows if reduction == NONE else call.scratch()
    count = call.scratch()
    found = call.scratch(2, *call.rows, dtype=torch.int32) if ranks else torch.empty(0).int()
    h.forward, h.row_losses, h.count = 1, address(rows), address(count)
    h.loss = None if reduction == NONE else address(loss)
    if ranks:
        h.ranks, h.rank_planes = address(found), 2
    call.keep += [rows, loss, count, found]
    return loss, count, found


def soft_target_cross_entropy(logits, *arguments):
    *options, reduction, ranks = arguments
    call = _cross_entropy(logits, *options, reduction)
    loss, count, found = _loss_of(call, reduction, ranks)
    stats = call.scratch(3, *call.rows)
    call.h.stats = address(stats)
    call.run()
    return loss, stats, count, found


def soft_target_cross_entropy_backward_into(grad, grad_loss, logits, stats, count, *options):
    call = _cross_entropy(logits, *options)
    call.h.stats, call.h.count = address(stats), address(count)
    if grad.numel():
        call.run(grad, grad_loss)


def soft_target_cross_entropy_backward(grad_loss, logits, *arguments):
    grad = torch.empty_like(logits)
    soft_target_cross_entropy_backward_into(grad, grad_loss, logits, *arguments)
    return grad


def soft_target_cross_entropy_backward_(grad_loss, logits, *arguments):
    soft_target_cross_entropy_backward_into(logits, grad_loss, logits, *arguments)


CHOOSE_CLUSTER = -1  # kChooseCluster


def cluster_shape(
    dtype, classes, target_dtype=None, cluster=CHOOSE_CLUSTER, shared_limit=SHARED_LIMIT
):
    """(blocks of a cluster, bytes from the one buffer to the other, bytes of shared memory)."""
    found = (INT * 3)()
    target = -1 if target_dtype is None else DTYPES.index(target_dtype)
    numbers = DTYPES.index(dtype), classes, target, cluster, shared_limit
    library().host_cluster_shape(*map(INT, numbers), found)
    return tuple(found)


def soft_target_cross_entropy_grad(
    logits, *arguments, cluster=0, shared_limit=SHARED_LIMIT, out=None
):
    """``cluster``: blocks of a cluster for each row, 0 for none; ``out``: memory of the gradient,
    which may be that of the logits."""
    *options, reduction, ranks = arguments
    call = _cross_entropy(logits, *options, reduction)
    loss, _, found = _loss_of(call, reduction, ranks)
    grad = torch.empty_like(logits) if out is None else out
    call.h.cluster_blocks, call.h.shared_limit = cluster, shared_limit
    call.run(grad)
    return loss, grad, found


def label_ranks(logits, labels, partner_labels):
    other = labels if partner_labels is None else partner_labels
    weight = torch.zeros(1, 2).expand(logits.shape[0], 2)
    ignore = -(2**63)
    call = _cross_entropy(logits, labels, other, weight, None, ignore, 0.0, 0.0, 0.0, 0.0, NONE)
    call.h.forward, call.h.rank_planes = 1, 1 if partner_labels is None else 2
    found = call.scratch(call.h.rank_planes, *call.rows, dtype=torch.int32)
    call.h.ranks = address(found)
    call.run()
    return found


# ------------------------------------------------------------------ binary cross-entropy


def _binary(
    logits, target, partner, weight, class_weight, pos, ts, threshold, gamma, reduction, sums
):
    call = _Call(logits, target, partner, weight, class_weight, ts)
    h = call.h
    h.binary, h.pos_weight, h.focal_gamma, h.reduction = 1, address(pos), gamma, reduction
    h.has_threshold, h.threshold = threshold is not None, threshold or 0.0
    h.divisor = 1.0
    if reduction == MEAN:
        h.divisor = logits.numel() / (logits.shape[1] if sums else 1) or float("nan")
    return call


def _binary_loss(call, logits, reduction, sums):
    h = call.h
    h.forward = 1
    shape = () if reduction != NONE else call.rows if sums else tuple(logits.shape)
    loss = call.scratch(*shape)
    if reduction != NONE:
        h.loss = address(loss)
    elif sums:
        h.row_losses = address(loss)
    else:
        h.element_losses = address(loss)
    return loss


def soft_target_binary_cross_entropy(logits, *arguments):
    call = _binary(logits, *arguments)
    loss = _binary_loss(call, logits, *arguments[-2:])
    call.run()
    return loss


def soft_target_binary_cross_entropy_backward_into(grad, grad_loss, logits, *arguments):
    call = _binary(logits, *arguments)
    if grad.numel():
        call.run(grad, grad_loss)


def soft_target_binary_cross_entropy_backward(grad_loss, logits, *arguments):
    grad = torch.empty_like(logits)
    soft_target_binary_cross_entropy_backward_into(grad, grad_loss, logits, *arguments)
    return grad


def soft_target_binary_cross_entropy_backward_(grad_loss, logits, *arguments):
    soft_target_binary_cross_entropy_backward_into(logits, grad_loss, logits, *arguments)


def soft_target_binary_cross_entropy_grad(logits, *arguments):
    call = _binary(logits, *arguments)
    loss = _binary_loss(call, logits, *arguments[-2:])
    grad = torch.empty_like(logits)
    call.run(grad)
    return loss, grad


# ------------------------------------------------------------------ scale_


def scale_(x, factor):
    x = x if x.ndim else x.view(1)  # a view of the same memory
    sizes, strides = int_array(x.shape[1:]), int_array(x.stride()[1:])
    ints = [INT(v) for v in (x.shape[0], x.stride(0), x.ndim - 1)]
    dtype = INT(DTYPES.index(x.dtype))
    check(
        library().host_scale(
            dtype, POINTER(address(x)), POINTER(address(factor)), *ints, sizes, strides
        )
    )
