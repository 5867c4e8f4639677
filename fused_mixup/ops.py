"""The ops as PyTorch sees them: one schema each, fake implementations, autograd.

Implementations are registered on dispatch keys by ``backends.py``, once: the C++/CUDA extension,
the Triton kernels and ``reference`` each hold a function of the op's name and arguments. Each op
is registered twice: ``fused_mixup::NAME`` runs the default backend of the device, and
``fused_mixup_chosen::NAME`` looks up the forced backend (``forcing.py``) at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import forcing
from .codes import TENSOR
from .fakes import FAKES
from .names import CHOSEN, NAMESPACE
from .reference.pairing import transpose_pairing
from .schemas import SCHEMAS
from .tracing import never_recompute

_libraries = [torch.library.Library(name, "DEF") for name in (NAMESPACE, CHOSEN)]
for _library in _libraries:
    for _name, _schema in SCHEMAS.items():
        _library.define(_name + _schema, tags=torch.Tag.pt2_compliant_tag)


def default_op(name: str) -> Callable[..., Any]:
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def chosen_op(name: str) -> Callable[..., Any]:
    return getattr(getattr(torch.ops, CHOSEN), name).default


def _op(name: str) -> Callable[..., Any]:
    """A function that calls the op of the default backend, or of the forced one."""
    default, chosen = default_op(name), chosen_op(name)

    def call(*arguments: Any) -> Any:
        if not forcing.ever_forced:  # Dynamo guards on it
            return default(*arguments)
        if torch.compiler.is_compiling() or forcing.forced() != "auto":
            return chosen(*arguments)
        return default(*arguments)

    call.__name__ = call.__qualname__ = name
    return call


draw_plan = _op("draw_plan")
draw_variants = _op("draw_variants")
draw_erasing = _op("draw_erasing")
draw_neighbors = _op("draw_neighbors")
mix_ = _op("mix_")
mix = _op("mix")
mix_out = _op("mix_out")
mix_backward = _op("mix_backward")
paste_ = _op("paste_")
mix_samples = _op("mix_samples")
mix_ragged = _op("mix_ragged")
mix_normalize = _op("mix_normalize")
mix_rectangles = _op("mix_rectangles")
mix_patches = _op("mix_patches")
mix_masked = _op("mix_masked")
mix_masked_out = _op("mix_masked_out")
mix_masked_ = _op("mix_masked_")
mix_masked_backward = _op("mix_masked_backward")
mask_mean = _op("mask_mean")
label_bounds = _op("label_bounds")
mix_targets = _op("mix_targets")
mix_boxes = _op("mix_boxes")
mix_boxes_packed = _op("mix_boxes_packed")
soft_target_cross_entropy = _op("soft_target_cross_entropy")
soft_target_cross_entropy_backward = _op("soft_target_cross_entropy_backward")
soft_target_cross_entropy_backward_ = _op("soft_target_cross_entropy_backward_")
soft_target_cross_entropy_grad = _op("soft_target_cross_entropy_grad")
scale_ = _op("scale_")
label_ranks = _op("label_ranks")
soft_target_binary_cross_entropy = _op("soft_target_binary_cross_entropy")
soft_target_binary_cross_entropy_backward = _op("soft_target_binary_cross_entropy_backward")
soft_target_binary_cross_entropy_backward_ = _op("soft_target_binary_cross_entropy_backward_")
soft_target_binary_cross_entropy_grad = _op("soft_target_binary_cross_entropy_grad")


# A compiled checkpoint would run these again on the batch that they have already mixed.
for _library in _libraries:
    for _name in ("mix_", "mix_masked_", "paste_"):
        never_recompute(f"{_library.ns}::{_name}", _library)


# ------------------------------------------------------------------ fake implementations


def _register_fake(name: str, fake: Callable) -> Callable:
    def check_then_fake(first, *rest):
        # PyTorch calls this if any tensor is on meta, and would return uninitialised memory.
        if isinstance(first, Tensor) and not first.is_meta:
            for t in rest:
                if isinstance(t, Tensor) and t.is_meta:
                    raise ValueError(
                        f"fused_mixup, {name}: expected tensors of one device, "
                        f"got meta and {first.device}"
                    )
        return fake(first, *rest)

    for library in _libraries:
        torch.library.register_fake(f"{library.ns}::{name}", check_then_fake, lib=library)
    return check_then_fake


checked_fakes = {name: _register_fake(name, fake) for name, fake in FAKES.items()}


# ------------------------------------------------------------------ autograd


def register_autograd(name: str, backward: Callable, setup: Callable) -> None:
    """Register ``backward(op, ctx, *grads)``; ``op("mix")`` is that op of the same backend."""
    for library, op in zip(_libraries, (default_op, chosen_op), strict=True):
        formula: Callable = partial(backward, op)
        if op is chosen_op:
            formula, setup = forcing.recalls_backend(formula), forcing.remembers_backend(setup)
        full_name = f"{library.ns}::{name}"
        torch.library.register_autograd(full_name, formula, setup_context=setup, lib=library)


def _mix_setup(ctx, inputs, output):
    _, partner, blend, box, pairing = inputs
    ctx.save_for_backward(partner, blend, box)
    ctx.pairing = pairing


def _mix_grad(op, ctx, grad):
    partner, blend, box = ctx.saved_tensors
    sources = offsets = None
    if ctx.pairing == TENSOR:
        sources, offsets = transpose_pairing(partner)
    grad_x = op("mix_backward")(grad, partner, sources, offsets, blend, box, ctx.pairing)
    return grad_x, None, None, None, None


def _mix_backward_setup(ctx, inputs, output):
    _, partner, _, _, blend, box, pairing = inputs
    ctx.save_for_backward(partner, blend, box)
    ctx.pairing = pairing


def _mix_backward_grad(op, ctx, grad):
    partner, blend, box = ctx.saved_tensors
    grad_x = op("mix")(grad, partner, blend, box, ctx.pairing)
    return grad_x, None, None, None, None, None, None


def _masked_setup(ctx, inputs, output):
    _, partner, blend, box, pairing, *mask, interpolation = inputs
    ctx.save_for_backward(partner, blend, box, *mask)
    ctx.pairing, ctx.interpolation = pairing, interpolation


def _masked_grad(op, ctx, grad):
    partner, blend, box, *mask = ctx.saved_tensors
    sources = offsets = None
    if ctx.pairing == TENSOR:
        sources, offsets = transpose_pairing(partner)
    plan = partner, sources, offsets, blend, box, ctx.pairing
    grad_x = op("mix_masked_backward")(grad, *plan, *mask, ctx.interpolation)
    return grad_x, *[None] * 10


def _masked_backward_setup(ctx, inputs, output):
    grad, partner, _, _, *rest = inputs
    _masked_setup(ctx, (grad, partner, *rest), output)


def _masked_backward_grad(op, ctx, grad):
    partner, blend, box, *mask = ctx.saved_tensors
    plan = partner, blend, box, ctx.pairing
    return op("mix_masked")(grad, *plan, *mask, ctx.interpolation), *[None] * 12


register_autograd("mix_masked", _masked_grad, _masked_setup)
register_autograd("mix_masked_backward", _masked_backward_grad, _masked_backward_setup)
register_autograd("mix", _mix_grad, _mix_setup)
register_autograd("mix_backward", _mix_backward_grad, _mix_backward_setup)
