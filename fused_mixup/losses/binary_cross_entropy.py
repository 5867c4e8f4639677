"""The first and second derivatives of the binary cross-entropy, and its memory modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..codes import MEAN, NONE
from ..reference import losses as reference
from ..reference.focal import binary_focal_curve, binary_focal_loss, binary_focal_slope
from ..schemas import BinaryCrossEntropyArguments, has_many_labels
from ..tracing import in_vmap, transforms_active
from . import many_labels_binary
from .autograd import (
    GradInForward,
    InPlace,
    call_op,
    compiled_function,
    function,
    needs_plain_pytorch,
    nones,
    plain_gradients,
    wants_grad,
)


def _binary_setup(ctx, inputs, output):
    ctx.options = inputs[6:]
    ctx.save_for_backward(*inputs[:6])


def _binary_grad(backward: Callable, ctx, grad_loss):
    logits, *tensors = ctx.saved_tensors
    a = BinaryCrossEntropyArguments(*tensors, *ctx.options)
    grad_logits = grad_target = None
    if ctx.needs_input_grad[0]:
        grad_logits = backward(grad_loss, logits, *a)
    if ctx.needs_input_grad[1]:
        # d loss / d t = w [(q-1) softplus(-x) - x], with γ w [q F(x) - F(-x)] (reference/focal.py);
        # none for a target that a threshold made 0 or 1
        x = logits.to(grad_loss.dtype)
        w, q = (reference.class_factors(c, x) for c in (a.class_weight, a.pos_weight))
        if a.focal_gamma:
            present, absent = (binary_focal_loss(y, a.focal_gamma) for y in (x, -x))
            per_element = w * (q * present - absent)
        else:
            per_element = w * ((q - 1) * torch.nn.functional.softplus(-x) - x)
        scale = reference.binary_scale(grad_loss, logits, a.reduction, a.sum_classes)
        grad_target = (scale * per_element).to(a.target.dtype)
        if a.target_threshold is not None:
            grad_target = torch.zeros_like(a.target)
    return grad_logits, grad_target, *nones(9)


def _binary_backward_setup(ctx, inputs, output):
    ctx.options = inputs[7:]
    ctx.save_for_backward(*inputs[:7])


def _binary_backward_grad(ctx, v):
    # With a = 1 + (q-1) t (``slope``), s the scale:
    #   d/dx  v s w ((1-t) - a σ(-x)) = v s w a σ(x) σ(-x)
    #   d/ds  the factor itself;   d/dt = v s w (-1 - (q-1) σ(-x))
    # With γ (reference/focal.py) the factors of v s w are q t S'(x) + (1-t) S'(-x) and
    # q S(x) + S(-x).
    grad_loss, logits, *tensors = ctx.saved_tensors
    a = BinaryCrossEntropyArguments(*tensors, *ctx.options)
    t = reference.dense_binary_target(logits, a)
    w, q = (reference.class_factors(c, t) for c in (a.class_weight, a.pos_weight))
    v = v.to(t.dtype)
    x = logits.to(t.dtype)
    if a.focal_gamma:
        present, absent = (binary_focal_slope(y, a.focal_gamma) for y in (x, -x))
        curves = [binary_focal_curve(y, a.focal_gamma) for y in (x, -x)]
        curve = q * t * curves[0] + (1 - t) * curves[1]
        gradient = q * t * present - (1 - t) * absent
        by_target = q * present + absent
    else:
        below, slope = torch.sigmoid(-x), 1 + (q - 1) * t
        curve, gradient = slope * below * (1 - below), (1 - t) - slope * below
        by_target = -1 - (q - 1) * below
    scale = reference.binary_scale(grad_loss, logits, a.reduction, a.sum_classes)
    grad_logits = (v * scale * w * curve).to(logits.dtype)
    grad_grad_loss = v * w * gradient
    if a.sum_classes:
        grad_grad_loss = grad_grad_loss.sum(1)
    if a.reduction != NONE:
        count = grad_grad_loss.numel() if a.reduction == MEAN else 1
        grad_grad_loss = grad_grad_loss.sum() / max(count, 1)
    grad_target = None
    if ctx.needs_input_grad[2]:
        grad_target = (v * scale * w * by_target).to(a.target.dtype)
        if a.target_threshold is not None:
            grad_target = torch.zeros_like(a.target)
    return grad_grad_loss, grad_logits, grad_target, *nones(9)


def _kernels_for(weight: Tensor | None) -> Any:
    return many_labels_binary if has_many_labels(weight) else ops


def _binary(*arguments):
    return call_op(_kernels_for(arguments[3]).soft_target_binary_cross_entropy, *arguments)


def _binary_backward(*arguments):
    kernels = _kernels_for(arguments[4])
    return call_op(kernels.soft_target_binary_cross_entropy_backward, *arguments)


def _compiled_grad(ctx, grad_loss):
    backward = many_labels_binary.soft_target_binary_cross_entropy_backward
    return _binary_grad(backward, ctx, grad_loss)


def _eager_binary_grad(ctx, grad_loss):
    if in_vmap():
        logits, target, *rest = ctx.saved_tensors

        def loss(logits: Tensor, target: Tensor) -> Tensor:
            return reference.soft_target_binary_cross_entropy(logits, target, *rest, *ctx.options)

        return *plain_gradients(loss, ctx.needs_input_grad, grad_loss, logits, target), *nones(9)
    backward = _differentiable_binary_backward if torch.is_grad_enabled() else _binary_backward
    return _binary_grad(backward, ctx, grad_loss)


_differentiable_binary_backward = function(
    _binary_backward, _binary_backward_setup, _binary_backward_grad
)
_differentiable_binary = function(_binary, _binary_setup, _eager_binary_grad)
_compiled_many_labels = compiled_function(
    many_labels_binary.soft_target_binary_cross_entropy, _binary_setup, _compiled_grad
)


def binary_cross_entropy(
    logits: Tensor,  # [B, K, d1, …]
    arguments: BinaryCrossEntropyArguments,
    inplace_backward: bool,
    grad_in_forward: bool,
) -> Tensor:
    """The loss of the op with these arguments after the logits, in the given memory mode."""
    if needs_plain_pytorch():
        return reference.soft_target_binary_cross_entropy(logits, *arguments)
    kernels = _kernels_for(arguments.weight)
    op = kernels.soft_target_binary_cross_entropy
    if torch.compiler.is_compiling():
        return (op if kernels is ops else _compiled_many_labels)(logits, *arguments)
    if not wants_grad(logits, arguments.target):
        return call_op(op, logits, *arguments)
    if transforms_active() or not (inplace_backward or grad_in_forward):
        return _differentiable_binary(logits, *arguments)
    if grad_in_forward:
        both = kernels.soft_target_binary_cross_entropy_grad
        return GradInForward.apply(both, logits, *arguments)[0]
    write = kernels.soft_target_binary_cross_entropy_backward_
    return InPlace.apply(op, write, logits, *arguments)


# ------------------------------------------------------------------ registered on the ops


def _registered_binary_grad(op, ctx, grad_loss):
    return _binary_grad(op("soft_target_binary_cross_entropy_backward"), ctx, grad_loss)


def _registered_backward_grad(op, ctx, v):
    return _binary_backward_grad(ctx, v)


ops.register_autograd("soft_target_binary_cross_entropy", _registered_binary_grad, _binary_setup)
ops.register_autograd(
    "soft_target_binary_cross_entropy_backward", _registered_backward_grad, _binary_backward_setup
)
