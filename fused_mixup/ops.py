"""The ops as PyTorch sees them: one schema each, fake implementations, autograd.

Implementations are registered on dispatch keys by ``backends.py``: the C++/CUDA extension, the
Triton kernels and ``reference.py`` each hold a function of the op's name and arguments.

Arguments that recur:
    partner   int32 [B] on the device of x, or None where ``pairing`` (see ``plan_checks.py``) is
              a rule
    blend     float64 [B, 2];  box  int32 [B, 2·D];  weight  float32 [B, 2].  Where these are one
              row on the CPU (stride 0, or B <= 1) they serve x on any device as plain arguments.
    logits    [B, K, d1…]: a row for each sample and position, the classes along dim 1
    target    of the logits' shape, in their dtype or float32 where that is a half type (then
              partner_labels and weight are None); or int64 labels [B, d1…]
    class_weight, pos_weight  [K], in the arithmetic type (float64 for float64, else float32)
    ignore_index  NO_IGNORE for none. Terms with such a label are left out; a row without others
              (of weight other than 0) has loss 0 and gradient 0, and does not count
    target_smoothing, label_smoothing  ε of the sparse target, and on top of any target
    reduction 0 mean, 1 sum, 2 none
    grad_loss in the arithmetic type: [], or of the loss's shape for reduction none
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch
from torch import Tensor

from . import reference
from .plan_checks import TENSOR
from .tracing import transforms_active

NAMESPACE = "fused_mixup"

_TARGET = "Tensor target, Tensor? partner_labels, Tensor? weight, Tensor? class_weight"
_CROSS_ENTROPY = (
    f"{_TARGET}, int ignore_index, float target_smoothing, float label_smoothing, int reduction"
)
_BINARY = (
    f"{_TARGET}, Tensor? pos_weight, float target_smoothing, float? target_threshold, "
    "int reduction, bool sum_classes"
)

SCHEMAS = {
    # -> partner, weight, blend, box. docs/drawing.md specifies every bit. state int64 [4] on the
    # device of the plan; settings float64 [6] there or on the CPU; labels int64 [B] for
    # CROSS_CLASS, partner int32 [B] for TENSOR, else None. The kernel advances the state.
    "draw_plan": "(Tensor(a!) state, Tensor settings, Tensor? labels, Tensor? partner, "
    "SymInt batch_size, SymInt[] spatial, int per, int pairing, bool correct_lam, "
    "bool symmetric) -> (Tensor, Tensor, Tensor, Tensor)",
    "mix_": "(Tensor(a!) x, Tensor? partner, Tensor blend, Tensor box, int pairing) -> ()",
    "mix": "(Tensor x, Tensor? partner, Tensor blend, Tensor box, int pairing) -> Tensor",
    "mix_out": "(Tensor x, Tensor? partner, Tensor blend, Tensor box, int pairing, "
    "Tensor(a!) out) -> ()",
    # grad_j = own part of j, plus the partner parts of the rows i whose partner is j, which are
    # i in sources[offsets[j]:offsets[j+1]] (None where pairing is a rule). As the transpose of
    # `mix` it reads the partner weight and the box of row i, not of row j.
    "mix_backward": "(Tensor grad, Tensor? partner, Tensor? sources, Tensor? offsets, "
    "Tensor blend, Tensor box, int pairing) -> Tensor",
    "paste_": "(Tensor(a!) x, Tensor? partner, Tensor box, int pairing) -> ()",
    # out [n, …] takes the first n of the len(samples) mixes; the plan has a row for each sample.
    "mix_samples": "(Tensor[] samples, Tensor? partner, Tensor blend, Tensor box, int pairing, "
    "Tensor(a!) out) -> ()",
    "mix_targets": "(Tensor labels, Tensor? partner, Tensor weight, int pairing, "
    "int num_classes, float label_smoothing, ScalarType dtype) -> Tensor",
    # ------------------------------------------------------------ losses
    # The arguments stand above. Second results: stats [3, B, d1…] (max z, log Σ exp(z - max z)
    # and Σ w t' of each row, so that the backward is one sweep for dense targets too); count [],
    # the rows that are not ignored; ranks int32 [2, B, d1…] of both labels where asked, else [0].
    "soft_target_cross_entropy": f"(Tensor logits, {_CROSS_ENTROPY}, bool ranks) "
    "-> (Tensor loss, Tensor stats, Tensor count, Tensor label_ranks)",
    "soft_target_cross_entropy_backward": "(Tensor grad_loss, Tensor logits, Tensor stats, "
    f"Tensor count, {_CROSS_ENTROPY}) -> Tensor",
    # The gradient takes the place of the logits.
    "soft_target_cross_entropy_backward_": "(Tensor grad_loss, Tensor(a!) logits, Tensor stats, "
    f"Tensor count, {_CROSS_ENTROPY}) -> ()",
    # The gradient for an upstream gradient of one, in the same pass as the loss.
    "soft_target_cross_entropy_grad": f"(Tensor logits, {_CROSS_ENTROPY}, bool ranks) "
    "-> (Tensor loss, Tensor grad, Tensor label_ranks)",
    # x *= factor, a scalar on the device of x; nothing is touched where it is exactly one.
    "scale_": "(Tensor(a!) x, Tensor factor) -> ()",
    # int32 [1 or 2, B, d1…]: how many classes stand before each label.
    "label_ranks": "(Tensor logits, Tensor labels, Tensor? partner_labels) -> Tensor",
    "soft_target_binary_cross_entropy": f"(Tensor logits, {_BINARY}) -> Tensor",
    "soft_target_binary_cross_entropy_backward": "(Tensor grad_loss, Tensor logits, "
    f"{_BINARY}) -> Tensor",
    "soft_target_binary_cross_entropy_backward_": "(Tensor grad_loss, Tensor(a!) logits, "
    f"{_BINARY}) -> ()",
    "soft_target_binary_cross_entropy_grad": f"(Tensor logits, {_BINARY}) "
    "-> (Tensor loss, Tensor grad)",
}

# Their inputs live on the host by nature: native kernels on the CPU, none for a device, and the
# reference wherever else they are called.
CPU_ONLY = frozenset({"mix_samples"})

_library = torch.library.Library(NAMESPACE, "DEF")
for _name, _schema in SCHEMAS.items():
    _library.define(_name + _schema, tags=torch.Tag.pt2_compliant_tag)

_ops = torch.ops.fused_mixup
draw_plan = _ops.draw_plan.default
mix_ = _ops.mix_.default
mix = _ops.mix.default
mix_out = _ops.mix_out.default
mix_backward = _ops.mix_backward.default
paste_ = _ops.paste_.default
mix_samples = _ops.mix_samples.default
mix_targets = _ops.mix_targets.default
soft_target_cross_entropy = _ops.soft_target_cross_entropy.default
soft_target_cross_entropy_backward = _ops.soft_target_cross_entropy_backward.default
soft_target_cross_entropy_backward_ = _ops.soft_target_cross_entropy_backward_.default
soft_target_cross_entropy_grad = _ops.soft_target_cross_entropy_grad.default
scale_ = _ops.scale_.default
label_ranks = _ops.label_ranks.default
soft_target_binary_cross_entropy = _ops.soft_target_binary_cross_entropy.default
soft_target_binary_cross_entropy_backward = _ops.soft_target_binary_cross_entropy_backward.default
soft_target_binary_cross_entropy_backward_ = _ops.soft_target_binary_cross_entropy_backward_.default
soft_target_binary_cross_entropy_grad = _ops.soft_target_binary_cross_entropy_grad.default


# ------------------------------------------------------------------ fake implementations


def _fake(name: str):
    return torch.library.register_fake(f"{NAMESPACE}::{name}", lib=_library)


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


@_fake("mix_targets")
def _(labels, partner, weight, pairing, num_classes, label_smoothing, dtype):
    shape = (labels.shape[0], num_classes, *labels.shape[1:])
    return labels.new_empty(shape, dtype=dtype)


def _loss_like(logits, reduction, per_row=True):
    acc = torch.float64 if logits.dtype == torch.float64 else torch.float32
    rows = (logits.shape[0], *logits.shape[2:]) if per_row else logits.shape
    return logits.new_empty(rows if reduction == reference.NONE else (), dtype=acc)


def _ranks_like(logits, ranks):
    shape = (2, logits.shape[0], *logits.shape[2:]) if ranks else (0,)
    return logits.new_empty(shape, dtype=torch.int32)


@_fake("soft_target_cross_entropy")
def _(logits, target, partner_labels, weight, class_weight, ignore, ts, ls, reduction, ranks):
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
def _(logits, target, partner_labels, weight, class_weight, ignore, ts, ls, reduction, ranks):
    return _loss_like(logits, reduction), torch.empty_like(logits), _ranks_like(logits, ranks)


@_fake("scale_")
def _(x, factor):
    return None


@_fake("label_ranks")
def _(logits, labels, partner_labels):
    shape = (1 if partner_labels is None else 2, *labels.shape)
    return logits.new_empty(shape, dtype=torch.int32)


@_fake("soft_target_binary_cross_entropy")
def _(logits, target, partner_labels, weight, cw, pw, ts, threshold, reduction, sum_classes):
    return _loss_like(logits, reduction, sum_classes)


@_fake("soft_target_binary_cross_entropy_backward")
def _(grad_loss, logits, *arguments):
    return torch.empty_like(logits)


@_fake("soft_target_binary_cross_entropy_backward_")
def _(grad_loss, logits, *arguments):
    return None


@_fake("soft_target_binary_cross_entropy_grad")
def _(logits, target, partner_labels, weight, cw, pw, ts, threshold, reduction, sum_classes):
    return _loss_like(logits, reduction, sum_classes), torch.empty_like(logits)


# ------------------------------------------------------------------ autograd


def transpose_pairing(partner: Tensor) -> tuple[Tensor, Tensor]:
    """int32 ``sources`` [B], ``offsets`` [B+1]: j is partner of sources[offsets[j]:offsets[j+1]].

    No value is read on the host, so this also runs on a device and under compile.
    """
    clamped = partner.clamp(0, max(partner.shape[0] - 1, 0))  # as the kernels do
    ordered, sources = torch.sort(clamped, stable=True)
    bounds = torch.arange(partner.shape[0] + 1, dtype=partner.dtype, device=partner.device)
    offsets = torch.searchsorted(ordered, bounds, out_int32=True)
    return sources.int(), offsets


def _mix_setup(ctx, inputs, output):
    _, partner, blend, box, pairing = inputs
    ctx.save_for_backward(partner, blend, box)
    ctx.pairing = pairing


def _mix_grad(ctx, grad):
    partner, blend, box = ctx.saved_tensors
    sources = offsets = None
    if ctx.pairing == TENSOR:
        sources, offsets = transpose_pairing(partner)
    grad_x = mix_backward(grad, partner, sources, offsets, blend, box, ctx.pairing)
    return grad_x, None, None, None, None


def _mix_backward_setup(ctx, inputs, output):
    _, partner, _, _, blend, box, pairing = inputs
    ctx.save_for_backward(partner, blend, box)
    ctx.pairing = pairing


def _mix_backward_grad(ctx, grad):
    partner, blend, box = ctx.saved_tensors
    return mix(grad, partner, blend, box, ctx.pairing), None, None, None, None, None, None


for _name, _backward, _setup in (
    ("mix", _mix_grad, _mix_setup),
    ("mix_backward", _mix_backward_grad, _mix_backward_setup),
):
    torch.library.register_autograd(
        f"{NAMESPACE}::{_name}", _backward, setup_context=_setup, lib=_library
    )


def serving() -> ModuleType:
    """Where ops are called: here, or in plain PyTorch for torch.func, which knows none of ours."""
    return reference if transforms_active() else sys.modules[__name__]
