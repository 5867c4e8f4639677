"""Autograd of the losses: what both share, and the memory modes.

    separate         the backward is one more sweep that writes the gradient to a new tensor
    grad_in_forward  the gradient is written in the sweep of the forward; the backward scales it
    inplace          the backward writes the gradient over the logits

In eager mode the ops are called from ``torch.autograd.Function``s, which cost the host less than
autograd registered on the ops and serve torch.func.grad too. Compiled code calls the ops
themselves, with the same formulas registered. Transforms that neither serves (vmap, forward mode,
torch.func inside torch.compile) run the losses in plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .. import ops
from ..forcing import recalls_backend, remembers_backend
from ..tracing import (
    backward_keeps_graph,
    in_forward_mode,
    in_vmap,
    is_batch,
    skip_autograd,
    transforms_active,
)


def call_op(op: Callable, *arguments: Any) -> Any:
    """Call the op without its registered autograd: the Function around it has the backward."""
    if transforms_active():
        return op(*arguments)
    with skip_autograd():
        return op(*arguments)


def needs_plain_pytorch() -> bool:
    """Whether a call is transformed in a way that neither Functions nor registered ops serve.

    The ops have no rule for a batch of calls and none for tangents, and Dynamo traces no Function
    inside a transform: plain PyTorch has them all.
    """
    return in_forward_mode() or in_vmap()


def function(forward: Callable, setup: Callable, backward: Callable) -> Callable:
    """A Function's ``apply``. ``forward`` takes no ctx: torch.func wants it apart from ``setup``.

    Other calls run both as one, as PyTorch takes 50 us more to bind the arguments of two.
    """

    setup, backward = remembers_backend(setup), recalls_backend(backward)

    def run(ctx, *inputs):
        output = forward(*inputs)
        setup(ctx, inputs, output)
        return output

    def make_class(**methods):
        return type("_Fused", (Function,), {k: staticmethod(v) for k, v in methods.items()})

    joint = make_class(forward=run, backward=backward)
    separate = make_class(forward=forward, setup_context=setup, backward=backward)

    def apply(*inputs):
        return (separate if transforms_active() else joint).apply(*inputs)

    return apply


def compiled_function(forward: Callable, setup: Callable, backward: Callable) -> Callable:
    """The ``apply`` of a Function that Dynamo traces: code of several ops with one backward."""

    class _Compiled(Function):
        @staticmethod
        def forward(ctx, *inputs):
            output = forward(*inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx, *grads):
            return backward(ctx, *grads)

    return _Compiled.apply


def nones(count: int) -> tuple[None, ...]:
    return (None,) * count


def wants_grad(logits: Tensor, target: Tensor) -> bool:
    return torch.is_grad_enabled() and (logits.requires_grad or target.requires_grad)


def plain_gradients(
    loss: Callable, needs: tuple[bool, ...], grad_loss: Tensor, logits: Tensor, target: Tensor
) -> list[Tensor | None]:
    """The gradients of ``loss(logits, target)``, in a backward that vmap runs (as jacrev does)."""
    both: list[Tensor] = [logits, target]
    needed = [i for i in range(2) if needs[i]]

    def needed_loss(*inputs: Tensor) -> Tensor:
        given = dict(zip(needed, inputs, strict=True))
        return loss(*(given.get(i, x) for i, x in enumerate(both)))

    pull = torch.func.vjp(needed_loss, *(both[i] for i in needed))[1]
    found = dict(zip(needed, pull(grad_loss), strict=True))
    return [found.get(i) for i in range(2)]


# ------------------------------------------------------------------ the other memory modes


def refuse_create_graph(name: str, remedy: str) -> None:
    """Raise in a backward whose gradient has no graph of its own: a silent zero would result."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name}: expected a backward without create_graph; {remedy}")


def rescale(grad: Tensor, factor: Tensor) -> Tensor:
    """grad · factor (a scalar, or one for each row or element), in place where that is allowed."""
    keeps, batched = backward_keeps_graph(), is_batch(factor)
    if factor.ndim or batched:
        factor = factor.unsqueeze(1) if 0 < factor.ndim < grad.ndim else factor
        return (grad * factor).to(grad.dtype) if keeps or batched else grad.mul_(factor)
    if keeps:
        grad = grad.clone()
    call_op(ops.scale_, grad, factor)
    return grad


class GradInForward(Function):
    """``op`` returns (loss, gradient, …); the arguments are op, logits and the rest of the op's."""

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
            return None, *nones(ctx.count)
        refuse_create_graph("grad_in_forward", "leave grad_in_forward out")
        (grad,) = ctx.saved_tensors
        return None, rescale(grad, grad_loss), *nones(ctx.count - 1)


class InPlace(Function):
    """``op`` returns the loss, ``write`` writes its gradient over the logits.

    If the op returns a tuple, ``write`` also takes the two tensors after the loss, but not the
    op's last argument (whether ranks are asked for).
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
        if grad_loss is None:
            return None, None, None, *nones(ctx.count)
        if ctx.written:
            raise RuntimeError(
                "inplace_backward: expected one backward, got a second one (retain_graph), when "
                "the logits hold their gradient already; leave inplace_backward out"
            )
        refuse_create_graph("inplace_backward", "leave inplace_backward out")
        if is_batch(grad_loss):
            raise NotImplementedError(
                "inplace_backward: expected one gradient over the logits, got a batch of them "
                "(torch.func.vmap, is_grads_batched); leave inplace_backward out"
            )
        # This raises where the logits were written to since the forward.
        logits, *tensors = ctx.saved_tensors
        arguments = (o if t is None else t for t, o in zip(tensors, ctx.options, strict=True))
        call_op(ctx.write, grad_loss, logits, *arguments)
        # Autograd cannot see a kernel write: other backwards that saved the logits must raise.
        torch.autograd.graph.increment_version(logits)
        ctx.written = True
        return None, None, logits.detach(), *nones(ctx.count)
