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
from .codes import CONST, NONE, PIXEL, RAND, TENSOR
from .dtypes import arithmetic
from .plan.pairing import transpose_pairing
from .schemas import CHOSEN, NAMESPACE, SCHEMAS
from .tracing import never_recompute

_libraries = [torch.library.Library(name, "DEF") for name in (NAMESPACE, CHOSEN)]
for _library in _libraries:
    for _name, _schema in SCHEMAS.items():
        _library.define(_name + _schema, tags=torch.Tag.pt2_compliant_tag)


def default_op(name: str) -> Callable[..., Any]:
    return getattr(torch.ops.fused_mixup, name).default


def chosen_op(name: str) -> Callable[..., Any]:
    return getattr(torch.ops.fused_mixup_chosen, name).default


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
draw_erasing = _op("draw_erasing")
mix_ = _op("mix_")
mix = _op("mix")
mix_out = _op("mix_out")
mix_backward = _op("mix_backward")
paste_ = _op("paste_")
mix_samples = _op("mix_samples")
mix_normalize = _op("mix_normalize")
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
    for _name in ("mix_", "paste_"):
        never_recompute(f"{_library.ns}::{_name}", _library)


# ------------------------------------------------------------------ fake implementations


def _fake(name: str) -> Callable:
    def register(fake: Callable) -> Callable:
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

    return register


@_fake("draw_plan")
def fake_draw_plan(
    state, settings, labels, partner, batch_size, spatial, per, pairing, correct_lam, symmetric
):
    return (
        state.new_empty((batch_size,), dtype=torch.int32),
        state.new_empty((batch_size, 2), dtype=torch.float32),
        state.new_empty((batch_size, 2), dtype=torch.float64),
        state.new_empty((batch_size, 2 * len(spatial)), dtype=torch.int32),
    )


@_fake("draw_erasing")
def fake_draw_erasing(
    state, settings, fill, batch_size, height, width, max_count, channels, erase_mode, clean
):
    value = {CONST: (1, 1, len(fill)), RAND: (batch_size, max_count, channels), PIXEL: (0,)}[
        erase_mode
    ]
    return (
        state.new_empty((batch_size, max_count, 4), dtype=torch.int32),
        state.new_empty(value, dtype=torch.float32),
        state.new_empty((batch_size if erase_mode == PIXEL else 0,)),
    )


@_fake("mix_")
def _(x, partner, blend, box, pairing):
    return None


@_fake("mix")
def _(x, partner, blend, box, pairing):
    return torch.empty_like(x)


@_fake("mix_out")
def _(x, partner, blend, box, pairing, out):
    return None


@_fake("mix_backward")
def _(grad, partner, sources, offsets, blend, box, pairing):
    return torch.empty_like(grad)


@_fake("paste_")
def _(x, partner, box, pairing):
    return None


@_fake("mix_samples")
def _(samples, partner, blend, box, pairing, out):
    return None


@_fake("mix_normalize")
def _(images, partner, blend, box, pairing, mean, std, flip, *erase_first_out):
    return None


@_fake("label_bounds")
def _(labels, ignore_index):
    return labels.new_empty(2, dtype=torch.int64)


@_fake("mix_targets")
def _(labels, partner, weight, pairing, num_classes, label_smoothing, dtype):
    shape = (labels.shape[0], num_classes, *labels.shape[1:])
    return labels.new_empty(shape, dtype=dtype)


@_fake("mix_boxes")
def _(boxes, count, partner, blend, box, pairing, min_visible):
    batch, room = boxes.shape[0], 2 * boxes.shape[1]
    return (
        boxes.new_empty((batch, room, 4)),
        boxes.new_empty((batch, room), dtype=torch.int32),
        boxes.new_empty((batch, room), dtype=torch.float32),
        boxes.new_empty((batch,), dtype=torch.int32),
    )


@_fake("mix_boxes_packed")
def _(boxes, counts, partner, blend, box, pairing, min_visible):
    shown = torch.library.get_ctx().new_dynamic_size()  # it depends on values
    return (
        boxes.new_empty((shown, 4)),
        boxes.new_empty((shown,), dtype=torch.int64),
        boxes.new_empty((shown,), dtype=torch.float32),
        boxes.new_empty((len(counts),), dtype=torch.int32),
    )


def _loss_like(logits, reduction, per_row=True):
    acc = arithmetic(logits.dtype)
    rows = (logits.shape[0], *logits.shape[2:]) if per_row else logits.shape
    return logits.new_empty(rows if reduction == NONE else (), dtype=acc)


def _ranks_like(logits, ranks):
    shape = (2, logits.shape[0], *logits.shape[2:]) if ranks else (0,)
    return logits.new_empty(shape, dtype=torch.int32)


@_fake("soft_target_cross_entropy")
def _(logits, *arguments):
    *_, reduction, ranks = arguments
    loss = _loss_like(logits, reduction)
    stats = loss.new_empty((3, logits.shape[0], *logits.shape[2:]))
    return loss, stats, loss.new_empty(()), _ranks_like(logits, ranks)


@_fake("soft_target_cross_entropy_backward")
def _(grad_loss, logits, *arguments):
    return torch.empty_like(logits)


@_fake("soft_target_cross_entropy_backward_")
def _(grad_loss, logits, *arguments):
    return None


@_fake("soft_target_cross_entropy_grad")
def _(logits, *arguments):
    *_, reduction, ranks = arguments
    return _loss_like(logits, reduction), torch.empty_like(logits), _ranks_like(logits, ranks)


@_fake("scale_")
def _(x, factor):
    return None


@_fake("label_ranks")
def _(logits, labels, partner_labels):
    shape = (1 if partner_labels is None else 2, *labels.shape)
    return logits.new_empty(shape, dtype=torch.int32)


@_fake("soft_target_binary_cross_entropy")
def _(logits, *arguments):
    *_, reduction, sum_classes = arguments
    return _loss_like(logits, reduction, sum_classes)


@_fake("soft_target_binary_cross_entropy_backward")
def _(grad_loss, logits, *arguments):
    return torch.empty_like(logits)


@_fake("soft_target_binary_cross_entropy_backward_")
def _(grad_loss, logits, *arguments):
    return None


@_fake("soft_target_binary_cross_entropy_grad")
def _(logits, *arguments):
    *_, reduction, sum_classes = arguments
    return _loss_like(logits, reduction, sum_classes), torch.empty_like(logits)


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


register_autograd("mix", _mix_grad, _mix_setup)
register_autograd("mix_backward", _mix_backward_grad, _mix_backward_setup)
