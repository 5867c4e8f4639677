"""The first and second derivatives of the cross-entropy, and its memory modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..codes import MEAN, NONE
from ..reference import losses as reference
from ..reference.blending import term
from ..reference.focal import focal_curve, focal_loss, focal_slope
from ..schemas import CrossEntropyArguments, focal_everywhere, has_many_labels
from ..tracing import in_vmap, transforms_active
from . import many_labels
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


def _cross_entropy_setup(ctx, inputs, output):
    logits, *tensors = inputs[:5]
    ctx.options = inputs[5:-1]
    _, stats, count, label_ranks = output
    ctx.mark_non_differentiable(stats, count, label_ranks)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, stats, count, *tensors)


def _cross_entropy_grad(backward: Callable, ctx, grad_loss):
    if grad_loss is None:
        return nones(12)
    logits, stats, count, *tensors = ctx.saved_tensors
    a = CrossEntropyArguments(*tensors, *ctx.options)
    grad_logits = grad_target = None
    if ctx.needs_input_grad[0]:
        grad_logits = backward(grad_loss, logits, stats, count, *a)
    if ctx.needs_input_grad[1]:
        # d loss / d t_c = -(1-ε) w_c log_softmax(z)_c, or (1-ε) w_c f(p_c)
        scale = (1.0 - a.label_smoothing) * reference.row_scale(grad_loss, count, a.reduction)
        per_class = reference.class_factors(a.class_weight, logits)
        log_p = torch.log_softmax(logits.to(stats.dtype), 1)
        each = focal_loss(log_p, a.focal_gamma) if a.focal_gamma else -log_p
        grad_target = (scale * term(per_class, each)).to(a.target.dtype)
    return grad_logits, grad_target, *nones(10)


def _cross_entropy_backward_setup(ctx, inputs, output):
    grad_loss, logits, _, count, *tensors = inputs[:8]
    ctx.options = inputs[8:]
    ctx.save_for_backward(grad_loss, logits, count, *tensors)


def _cross_entropy_backward_grad(ctx, v):
    # Second order, in plain PyTorch. With s the scale of a row, u = w t', p = softmax(z), h and k
    # as in reference/focal.py (1 and 0 for γ = 0), L = logsumexp(z), T = Σ u h + 2 z L, and
    # e = u k (<p, v> - v):
    #   d/dz  <v, s (T p - u h)> = s (T p (v - <p, v>) + 2 z p <p, v> + e - p Σ e)
    #   d/ds  <v, s (T p - u h)> = <v, T p - u h>
    #   d/du  <v, s (T p - u h)> = s h (<p, v> - v), times w (1-ε) for the target before smoothing
    # Ignored rows have u = T = z = 0; where all are, the mean's 0 / 0 is a 0 as in the first order.
    grad_loss, logits, count, *tensors = ctx.saved_tensors
    a = CrossEntropyArguments(*tensors, *ctx.options)
    u, ignored = reference.weighted_target(logits, a)
    z = logits.to(u.dtype).masked_fill(ignored.unsqueeze(1), 0)
    p = torch.softmax(z, 1)
    v = v.to(u.dtype)
    count = torch.where(count == 0, 1, count)
    scale = reference.row_scale(grad_loss, count, a.reduction)
    pv = (p * v).sum(1, keepdim=True)
    slope, by_logits = u.new_ones(()), p * (v - pv)
    if a.focal_gamma:
        log_p = torch.log_softmax(z, 1)
        slope = focal_slope(log_p, a.focal_gamma)
    pulled = u * slope
    total = pulled.sum(1, keepdim=True)
    if a.z_loss:
        factor = 2 * a.z_loss * (~ignored).unsqueeze(1).to(u.dtype)
        total = total + factor * torch.logsumexp(z, 1, keepdim=True)
    by_logits = total * by_logits
    if a.z_loss:
        by_logits = by_logits + factor * p * pv
    if a.focal_gamma:
        curved = u * focal_curve(log_p, a.focal_gamma) * (pv - v)
        by_logits = by_logits + curved - p * curved.sum(1, keepdim=True)
    grad_logits = (scale * by_logits).to(logits.dtype)
    grad_grad_loss = (v * (total * p - pulled)).sum(1)
    if a.reduction != NONE:
        grad_grad_loss = grad_grad_loss.sum()
    if a.reduction == MEAN:
        grad_grad_loss = grad_grad_loss / count
    grad_target = None
    if ctx.needs_input_grad[4]:
        per_class = reference.class_factors(a.class_weight, u)
        grad_target = (1.0 - a.label_smoothing) * scale * per_class * slope * (pv - v)
        grad_target = grad_target.to(a.target.dtype)
    return grad_grad_loss, grad_logits, None, None, grad_target, *nones(9)


def plain_cross_entropy(logits: Tensor, a: CrossEntropyArguments, ranks: bool) -> Any:
    """The op in plain PyTorch, which every transform supports."""
    if a.partner_labels is not None and a.weight is not None:
        # An ignored row's gradient is 0 whatever its logits are: no 0 · NaN.
        sparse = a.target, a.partner_labels, a.weight
        ignored = reference.ignored_rows(*sparse, logits.shape[1], a.ignore_index)
        logits = logits.masked_fill(ignored.unsqueeze(1), 0)
    return reference.soft_target_cross_entropy(logits, *a, ranks)


def kernels_for(weight: Tensor | None) -> Any:
    """The module of the ops that serve targets with these weights of labels."""
    return many_labels if has_many_labels(weight) else ops


def _cross_entropy(*arguments):
    return call_op(kernels_for(arguments[3]).soft_target_cross_entropy, *arguments)


def _cross_entropy_backward(*arguments):
    return call_op(kernels_for(arguments[6]).soft_target_cross_entropy_backward, *arguments)


def _compiled_grad(ctx, grad_loss, *_):
    backward = many_labels.soft_target_cross_entropy_backward
    return _cross_entropy_grad(backward, ctx, grad_loss)


def _eager_cross_entropy_grad(ctx, grad_loss, *_):
    if grad_loss is not None and in_vmap():
        logits, _, _, target, *rest = ctx.saved_tensors

        def loss(logits: Tensor, target: Tensor) -> Tensor:
            a = CrossEntropyArguments(target, *rest, *ctx.options)
            return plain_cross_entropy(logits, a, False)[0]

        return *plain_gradients(loss, ctx.needs_input_grad, grad_loss, logits, target), *nones(10)
    again = torch.is_grad_enabled()  # the gradient may itself be differentiated
    backward = _differentiable_backward if again else _cross_entropy_backward
    return _cross_entropy_grad(backward, ctx, grad_loss)


_differentiable_backward = function(
    _cross_entropy_backward, _cross_entropy_backward_setup, _cross_entropy_backward_grad
)
_differentiable = function(_cross_entropy, _cross_entropy_setup, _eager_cross_entropy_grad)
_compiled_many_labels = compiled_function(
    many_labels.soft_target_cross_entropy, _cross_entropy_setup, _compiled_grad
)


def cross_entropy(
    logits: Tensor,  # [B, K, d1, …]
    a: CrossEntropyArguments,
    ranks: bool,
    inplace_backward: bool,
    grad_in_forward: bool,
) -> tuple[Tensor, Tensor]:
    """Loss and ranks of the op with these arguments after the logits, in the given memory mode."""
    arguments = (*a, ranks)
    kernels = kernels_for(a.weight)
    if needs_plain_pytorch() or focal_everywhere(a):
        loss, _, _, found = plain_cross_entropy(logits, a, ranks)
    elif torch.compiler.is_compiling():
        compiled = ops.soft_target_cross_entropy if kernels is ops else _compiled_many_labels
        loss, _, _, found = compiled(logits, *arguments)
    elif not wants_grad(logits, a.target):
        loss, _, _, found = call_op(kernels.soft_target_cross_entropy, logits, *arguments)
    elif transforms_active() or not (inplace_backward or grad_in_forward):
        loss, _, _, found = _differentiable(logits, *arguments)
    elif grad_in_forward:
        op = kernels.soft_target_cross_entropy_grad
        loss, found = GradInForward.apply(op, logits, *arguments)
    else:
        op = kernels.soft_target_cross_entropy
        write = kernels.soft_target_cross_entropy_backward_
        loss, _, _, found = InPlace.apply(op, write, logits, *arguments)
    return loss, found


# ------------------------------------------------------------------ registered on the ops


def _registered_cross_entropy_grad(op, ctx, grad_loss, *_):
    return _cross_entropy_grad(op("soft_target_cross_entropy_backward"), ctx, grad_loss)


def _registered_backward_grad(op, ctx, v):
    return _cross_entropy_backward_grad(ctx, v)


ops.register_autograd(
    "soft_target_cross_entropy", _registered_cross_entropy_grad, _cross_entropy_setup
)
ops.register_autograd(
    "soft_target_cross_entropy_backward", _registered_backward_grad, _cross_entropy_backward_setup
)
