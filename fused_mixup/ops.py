"""The ops as PyTorch sees them: one schema each, fake implementations, autograd.

Implementations are registered on dispatch keys by ``backends.py``: the C++/CUDA extension, the
Triton kernels and ``reference.py`` each hold a function of the op's name and arguments.

Arguments that recur:
    partner   int32 [B] on the device of x, or None where ``pairing`` (see ``plan_checks.py``) is
              a rule
    blend     float64 [B, 2];  box  int32 [B, 2·D];  weight  float32 [B, 2].  Where these are one
              row on the CPU (stride 0, or B <= 1) they serve x on any device as plain arguments.
    reduction 0 mean, 1 sum, 2 none
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from .plan_checks import TENSOR

NAMESPACE = "fused_mixup"

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
    # target: [B, K] in the dtype of the logits, or float32 where those are of a half type (then
    # partner_labels and weight are None); or int64 labels [B].
    # stats [B, 3]: max z, log Σ exp(z - max z) and Σ t' of each row, so that the backward is one
    # sweep for dense targets too.
    "soft_target_cross_entropy": "(Tensor logits, Tensor target, Tensor? partner_labels, "
    "Tensor? weight, float target_smoothing, float label_smoothing, int reduction) "
    "-> (Tensor loss, Tensor stats)",
    "soft_target_cross_entropy_backward": "(Tensor grad_loss, Tensor logits, Tensor stats, "
    "Tensor target, Tensor? partner_labels, Tensor? weight, float target_smoothing, "
    "float label_smoothing, int reduction) -> Tensor",
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


# ------------------------------------------------------------------ fake implementations


def _fake(name: str):
    return torch.library.register_fake(f"{NAMESPACE}::{name}", lib=_library)


@_fake("draw_plan")
def _(state, settings, labels, partner, batch_size, spatial, per, pairing, correct_lam, symmetric):
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


@_fake("soft_target_cross_entropy")
def _(logits, target, partner_labels, weight, target_smoothing, label_smoothing, reduction):
    acc = torch.float64 if logits.dtype == torch.float64 else torch.float32
    rows = logits.shape[:1] if reduction == reference.NONE else ()
    return logits.new_empty(rows, dtype=acc), logits.new_empty((logits.shape[0], 3), dtype=acc)


@_fake("soft_target_cross_entropy_backward")
def _(grad_loss, logits, stats, target, partner_labels, weight, ts, ls, reduction):
    return torch.empty_like(logits)


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


def _loss_setup(ctx, inputs, output):
    logits, target, partner_labels, weight, *ctx.options = inputs
    loss, stats = output
    ctx.mark_non_differentiable(stats)
    ctx.save_for_backward(logits, stats, target, partner_labels, weight)


def _loss_grad(ctx, grad_loss, _grad_stats):
    logits, stats, target, partner_labels, weight = ctx.saved_tensors
    grad_logits = grad_target = None
    if ctx.needs_input_grad[0]:
        grad_logits = soft_target_cross_entropy_backward(
            grad_loss, logits, stats, target, partner_labels, weight, *ctx.options
        )
    if ctx.needs_input_grad[1]:
        # d loss / d t = -(1-ε) log_softmax(z)
        _, label_smoothing, reduction = ctx.options
        scale = reference.row_scale(grad_loss, logits.shape[0], reduction)
        grad_target = (
            (1.0 - label_smoothing) * scale * -torch.log_softmax(logits.to(stats.dtype), 1)
        )
        grad_target = grad_target.to(target.dtype)
    return grad_logits, grad_target, None, None, None, None, None


def _loss_backward_setup(ctx, inputs, output):
    grad_loss, logits, stats, target, partner_labels, weight, *ctx.options = inputs
    ctx.save_for_backward(grad_loss, logits, stats, target, partner_labels, weight)


def _loss_backward_grad(ctx, v):
    # Second order, in plain PyTorch. With s the scale of a row, T = Σ t, p = softmax(z):
    #   d/dz  <v, s (T p - t)> = s T (p v - p <p, v>)
    #   d/ds  <v, s (T p - t)> = <v, T p - t>
    #   d/dt  <v, s (T p - t)> = s (<p, v> - v), times 1-ε for the target before smoothing
    grad_loss, logits, stats, target, partner_labels, weight = ctx.saved_tensors
    target_smoothing, label_smoothing, reduction = ctx.options
    t = reference._smoothed_target(
        logits, target, partner_labels, weight, target_smoothing, label_smoothing
    )
    p = torch.softmax(logits.to(t.dtype), 1)
    v = v.to(t.dtype)
    scale = reference.row_scale(grad_loss, logits.shape[0], reduction)
    total = t.sum(1, keepdim=True)
    pv = (p * v).sum(1, keepdim=True)
    grad_logits = (scale * total * p * (v - pv)).to(logits.dtype)
    per_row = (v * (total * p - t)).sum(1)
    if reduction == reference.NONE:
        grad_grad_loss = per_row
    else:
        grad_grad_loss = per_row.mean() if reduction == reference.MEAN else per_row.sum()
    grad_target = None
    if ctx.needs_input_grad[3]:
        grad_target = ((1.0 - label_smoothing) * scale * (pv - v)).to(target.dtype)
    return grad_grad_loss, grad_logits, None, grad_target, None, None, None, None, None


for _name, _backward, _setup in (
    ("mix", _mix_grad, _mix_setup),
    ("mix_backward", _mix_backward_grad, _mix_backward_setup),
    ("soft_target_cross_entropy", _loss_grad, _loss_setup),
    ("soft_target_cross_entropy_backward", _loss_backward_grad, _loss_backward_setup),
):
    torch.library.register_autograd(
        f"{NAMESPACE}::{_name}", _backward, setup_context=_setup, lib=_library
    )
