"""How gradients reach the losses: three modes of memory, and second order.

    separate         the backward is one more sweep that writes the gradient beside the logits
    grad_in_forward  the gradient is written in the sweep of the forward; the backward scales it
    inplace          the backward writes the gradient over the logits

In eager mode the ops are called from ``torch.autograd.Function``s, which cost the host less than
autograd registered on the ops and serve torch.func.grad too. Compiled code calls the ops
themselves, with the same formulas registered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import ops
from . import reference_losses as reference
from .forcing import recalls_backend, remembers_backend
from .reference_losses import MEAN, NONE
from .reference_targets import _term
from .tracing import backward_keeps_graph, below_autograd, transforms_active


def call_op(op: Callable, *arguments: Any) -> Any:
    """The op without its registered autograd: a Function around it has that part."""
    if transforms_active():
        return op(*arguments)
    with below_autograd():
        return op(*arguments)


def _function(forward: Callable, setup: Callable, backward: Callable) -> Callable:
    """A Function's ``apply``. ``forward`` takes no ctx: torch.func wants it apart from ``setup``.

    Elsewhere both run in one, as PyTorch takes 50 us more to bind the arguments of two.
    """

    setup, backward = remembers_backend(setup), recalls_backend(backward)

    def run(ctx, *inputs):
        output = forward(*inputs)
        setup(ctx, inputs, output)
        return output

    def of(**parts):
        return type("_Fused", (Function,), {k: staticmethod(v) for k, v in parts.items()})

    in_one = of(forward=run, backward=backward)
    apart = of(forward=forward, setup_context=setup, backward=backward)

    def apply(*inputs):
        return (apart if transforms_active() else in_one).apply(*inputs)

    return apply


def _nones(count: int) -> tuple[None, ...]:
    return (None,) * count


# ------------------------------------------------------------------ cross-entropy


def _cross_entropy_setup(ctx, inputs, output):
    logits, target, partner_labels, weight, class_weight, *ctx.options, _ranks = inputs
    _, stats, count, label_ranks = output
    ctx.mark_non_differentiable(stats, count, label_ranks)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, stats, count, target, partner_labels, weight, class_weight)


def _cross_entropy_grad(backward: Callable, ctx, grad_loss):
    if grad_loss is None:
        return _nones(10)
    logits, stats, count, target, partner_labels, weight, class_weight = ctx.saved_tensors
    grad_logits = grad_target = None
    if ctx.needs_input_grad[0]:
        sparse = target, partner_labels, weight, class_weight
        grad_logits = backward(grad_loss, logits, stats, count, *sparse, *ctx.options)
    if ctx.needs_input_grad[1]:
        # d loss / d t_c = -(1-ε) w_c log_softmax(z)_c
        _, _, label_smoothing, reduction = ctx.options
        scale = (1.0 - label_smoothing) * reference.row_scale(grad_loss, count, reduction)
        per_class = reference._per_class(class_weight, logits)
        log_p = torch.log_softmax(logits.to(stats.dtype), 1)
        grad_target = -(scale * _term(per_class, log_p)).to(target.dtype)
    return grad_logits, grad_target, *_nones(8)


def _cross_entropy_backward_setup(ctx, inputs, output):
    grad_loss, logits, stats, count, target, partner_labels, weight, class_weight, *ctx.options = (
        inputs
    )
    ctx.save_for_backward(grad_loss, logits, count, target, partner_labels, weight, class_weight)


def _cross_entropy_backward_grad(ctx, v):
    # Second order, in plain PyTorch. With s the scale of a row, u = w t', T = Σ u, p = softmax(z):
    #   d/dz  <v, s (T p - u)> = s T (p v - p <p, v>)
    #   d/ds  <v, s (T p - u)> = <v, T p - u>
    #   d/du  <v, s (T p - u)> = s (<p, v> - v), times w (1-ε) for the target before smoothing
    # Ignored rows have u = T = 0; where all are, the mean's 0 / 0 is a 0 as in the first order.
    grad_loss, logits, count, target, partner_labels, weight, class_weight = ctx.saved_tensors
    ignore_index, target_smoothing, label_smoothing, reduction = ctx.options
    u, ignored = reference._weighted_target(
        logits, target, partner_labels, weight, class_weight, *ctx.options[:3]
    )
    z = logits.to(u.dtype).masked_fill(ignored.unsqueeze(1), 0)
    p = torch.softmax(z, 1)
    v = v.to(u.dtype)
    count = torch.where(count == 0, 1, count)
    scale = reference.row_scale(grad_loss, count, reduction)
    total = u.sum(1, keepdim=True)
    pv = (p * v).sum(1, keepdim=True)
    grad_logits = (scale * total * p * (v - pv)).to(logits.dtype)
    grad_grad_loss = (v * (total * p - u)).sum(1)
    if reduction != NONE:
        grad_grad_loss = grad_grad_loss.sum()
    if reduction == MEAN:
        grad_grad_loss = grad_grad_loss / count
    grad_target = None
    if ctx.needs_input_grad[4]:
        per_class = reference._per_class(class_weight, u)
        grad_target = (1.0 - label_smoothing) * scale * per_class * (pv - v)
        grad_target = grad_target.to(target.dtype)
    return grad_grad_loss, grad_logits, None, None, grad_target, *_nones(7)


def _cross_entropy(*arguments):
    return call_op(ops.soft_target_cross_entropy, *arguments)


def _cross_entropy_backward(*arguments):
    return call_op(ops.soft_target_cross_entropy_backward, *arguments)


def _eager_cross_entropy_grad(ctx, grad_loss, *_):
    again = torch.is_grad_enabled()  # the gradient may be differentiated in its turn
    backward = _differentiable_backward if again else _cross_entropy_backward
    return _cross_entropy_grad(backward, ctx, grad_loss)


_differentiable_backward = _function(
    _cross_entropy_backward, _cross_entropy_backward_setup, _cross_entropy_backward_grad
)
_differentiable = _function(_cross_entropy, _cross_entropy_setup, _eager_cross_entropy_grad)


# ------------------------------------------------------------------ binary cross-entropy


def _binary_setup(ctx, inputs, output):
    logits, target, partner_labels, weight, class_weight, pos_weight, *ctx.options = inputs
    ctx.save_for_backward(logits, target, partner_labels, weight, class_weight, pos_weight)


def _binary_grad(backward: Callable, ctx, grad_loss):
    logits, target, partner_labels, weight, class_weight, pos_weight = ctx.saved_tensors
    grad_logits = grad_target = None
    if ctx.needs_input_grad[0]:
        sparse = target, partner_labels, weight, class_weight, pos_weight
        grad_logits = backward(grad_loss, logits, *sparse, *ctx.options)
    if ctx.needs_input_grad[1]:
        # d loss / d t = w [(q-1) softplus(-x) - x]; a target that a threshold cut has none
        _, threshold, *reduced = ctx.options
        x = logits.to(grad_loss.dtype)
        w, q = (reference._per_class(c, x) for c in (class_weight, pos_weight))
        per_element = w * ((q - 1) * torch.nn.functional.softplus(-x) - x)
        scale = reference.binary_scale(grad_loss, logits, *reduced)
        grad_target = (scale * per_element).to(target.dtype)
        if threshold is not None:
            grad_target = torch.zeros_like(target)
    return grad_logits, grad_target, *_nones(8)


def _binary_backward_setup(ctx, inputs, output):
    grad_loss, logits, target, partner_labels, weight, *rest = inputs
    class_weight, pos_weight, *ctx.options = rest
    sparse = target, partner_labels, weight, class_weight, pos_weight
    ctx.save_for_backward(grad_loss, logits, *sparse)


def _binary_backward_grad(ctx, v):
    # With a = 1 + (q-1) t, s the scale:
    #   d/dx  v s w ((1-t) - a σ(-x)) = v s w a σ(x) σ(-x)
    #   d/ds  the factor itself;   d/dt = v s w (-1 - (q-1) σ(-x))
    grad_loss, logits, target, *rest = ctx.saved_tensors
    partner_labels, weight, class_weight, pos_weight = rest
    smoothing, threshold, reduction, sum_classes = ctx.options
    t = reference._binary_target(logits, target, partner_labels, weight, smoothing, threshold)
    w, q = (reference._per_class(c, t) for c in (class_weight, pos_weight))
    v = v.to(t.dtype)
    below = torch.sigmoid(-logits.to(t.dtype))
    a = 1 + (q - 1) * t
    scale = reference.binary_scale(grad_loss, logits, reduction, sum_classes)
    grad_logits = (v * scale * w * a * below * (1 - below)).to(logits.dtype)
    grad_grad_loss = v * w * ((1 - t) - a * below)
    if sum_classes:
        grad_grad_loss = grad_grad_loss.sum(1)
    if reduction != NONE:
        count = grad_grad_loss.numel() if reduction == MEAN else 1
        grad_grad_loss = grad_grad_loss.sum() / max(count, 1)
    grad_target = None
    if ctx.needs_input_grad[2]:
        grad_target = (v * scale * w * (-1 - (q - 1) * below)).to(target.dtype)
        if threshold is not None:
            grad_target = torch.zeros_like(target)
    return grad_grad_loss, grad_logits, grad_target, *_nones(8)


def _binary(*arguments):
    return call_op(ops.soft_target_binary_cross_entropy, *arguments)


def _binary_backward(*arguments):
    return call_op(ops.soft_target_binary_cross_entropy_backward, *arguments)


def _eager_binary_grad(ctx, grad_loss):
    backward = _differentiable_binary_backward if torch.is_grad_enabled() else _binary_backward
    return _binary_grad(backward, ctx, grad_loss)


_differentiable_binary_backward = _function(
    _binary_backward, _binary_backward_setup, _binary_backward_grad
)
_differentiable_binary = _function(_binary, _binary_setup, _eager_binary_grad)


# ------------------------------------------------------------------ the other modes of memory


def refuse_create_graph(name: str, remedy: str) -> None:
    """In a backward whose gradient has no graph of its own: a silent zero would come of it."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name}: expected a backward without create_graph; {remedy}")


def scaled(grad: Tensor, factor: Tensor) -> Tensor:
    """grad · factor (a scalar, or one for each row or element), in place where it may be."""
    if factor.ndim:
        factor = factor.unsqueeze(1) if factor.ndim < grad.ndim else factor
        return (grad * factor).to(grad.dtype) if backward_keeps_graph() else grad.mul_(factor)
    if backward_keeps_graph():
        grad = grad.clone()
    call_op(ops.scale_, grad, factor)
    return grad


class _GradInForward(Function):
    """``op`` gives (loss, gradient, …); arguments: op, logits and the rest of the op's."""

    @staticmethod
    @remembers_backend
    def forward(ctx, op, *arguments):
        loss, grad, *rest = call_op(op, *arguments)
        ctx.mark_non_differentiable(*rest)
        ctx.set_materialize_grads(False)
        ctx.count = len(arguments)
        ctx.save_for_backward(grad)
        return loss, *rest

    @staticmethod
    @recalls_backend
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return None, *_nones(ctx.count)
        refuse_create_graph("grad_in_forward", "leave grad_in_forward out")
        (grad,) = ctx.saved_tensors
        return None, scaled(grad, grad_loss), *_nones(ctx.count - 1)


class _InPlace(Function):
    """``op`` gives the loss, ``write`` its gradient over the logits.

    Of a tuple that the op gives, ``write`` takes the two after the loss; the op's last argument
    (whether ranks are asked) is nothing to it then.
    """

    @staticmethod
    @remembers_backend
    def forward(ctx, op, write, logits, *arguments):
        output = call_op(op, logits, *arguments)
        between: tuple = ()
        ctx.count = len(arguments)
        if isinstance(output, tuple):
            ctx.mark_non_differentiable(*output[1:])
            between, arguments = output[1:3], arguments[:-1]
        ctx.set_materialize_grads(False)
        ctx.write, ctx.written = write, False
        arguments = (*between, *arguments)
        ctx.options = [None if isinstance(a, Tensor) else a for a in arguments]
        ctx.save_for_backward(logits, *(a if isinstance(a, Tensor) else None for a in arguments))
        return output

    @staticmethod
    @recalls_backend
    def backward(ctx, grad_loss, *_):
        nones = _nones(ctx.count)
        if grad_loss is None:
            return None, None, None, *nones
        if ctx.written:
            raise RuntimeError(
                "inplace_backward: expected one backward, got a second one (retain_graph), when "
                "the logits hold their gradient already; leave inplace_backward out"
            )
        refuse_create_graph("inplace_backward", "leave inplace_backward out")
        # Raises where someone wrote to the logits since the forward.
        logits, *tensors = ctx.saved_tensors
        arguments = (o if t is None else t for t, o in zip(tensors, ctx.options, strict=True))
        call_op(ctx.write, grad_loss, logits, *arguments)
        # Autograd cannot see into our kernels: who else saved the logits must get its error.
        torch.autograd.graph.increment_version(logits)
        ctx.written = True
        return None, None, logits.detach(), *nones


def _wants_grad(logits: Tensor, target: Tensor) -> bool:
    return torch.is_grad_enabled() and (logits.requires_grad or target.requires_grad)


def cross_entropy(
    logits: Tensor, arguments: tuple, ranks: bool, inplace_backward: bool, grad_in_forward: bool
) -> tuple[Tensor, Tensor]:
    """(loss, ranks) of the op with ``arguments`` after the logits, in the mode asked for."""
    arguments = (*arguments, ranks)
    if torch.compiler.is_compiling():
        loss, _, _, found = ops.soft_target_cross_entropy(logits, *arguments)
    elif not _wants_grad(logits, arguments[0]):
        loss, _, _, found = call_op(ops.soft_target_cross_entropy, logits, *arguments)
    elif transforms_active() or not (inplace_backward or grad_in_forward):
        loss, _, _, found = _differentiable(logits, *arguments)
    elif grad_in_forward:
        op = ops.soft_target_cross_entropy_grad
        loss, found = _GradInForward.apply(op, logits, *arguments)
    else:
        op, write = ops.soft_target_cross_entropy, ops.soft_target_cross_entropy_backward_
        loss, _, _, found = _InPlace.apply(op, write, logits, *arguments)
    return loss, found


def binary_cross_entropy(
    logits: Tensor, arguments: tuple, inplace_backward: bool, grad_in_forward: bool
) -> Tensor:
    """The loss of the op with ``arguments`` after the logits, in the mode asked for."""
    if torch.compiler.is_compiling():
        return ops.soft_target_binary_cross_entropy(logits, *arguments)
    if not _wants_grad(logits, arguments[0]):
        return call_op(ops.soft_target_binary_cross_entropy, logits, *arguments)
    if transforms_active() or not (inplace_backward or grad_in_forward):
        return _differentiable_binary(logits, *arguments)
    if grad_in_forward:
        op = ops.soft_target_binary_cross_entropy_grad
        return _GradInForward.apply(op, logits, *arguments)[0]
    op = ops.soft_target_binary_cross_entropy
    write = ops.soft_target_binary_cross_entropy_backward_
    return _InPlace.apply(op, write, logits, *arguments)


# ------------------------------------------------------------------ registered on the ops


def _registered_cross_entropy_grad(op, ctx, grad_loss, *_):
    return _cross_entropy_grad(op("soft_target_cross_entropy_backward"), ctx, grad_loss)


def _registered_binary_grad(op, ctx, grad_loss):
    return _binary_grad(op("soft_target_binary_cross_entropy_backward"), ctx, grad_loss)


def _without_ops(formula: Callable) -> Callable:
    return lambda op, *arguments: formula(*arguments)


for _name, _backward, _setup in (
    ("soft_target_cross_entropy", _registered_cross_entropy_grad, _cross_entropy_setup),
    (
        "soft_target_cross_entropy_backward",
        _without_ops(_cross_entropy_backward_grad),
        _cross_entropy_backward_setup,
    ),
    ("soft_target_binary_cross_entropy", _registered_binary_grad, _binary_setup),
    (
        "soft_target_binary_cross_entropy_backward",
        _without_ops(_binary_backward_grad),
        _binary_backward_setup,
    ),
):
    ops.register_autograd(_name, _backward, _setup)
