"""Every op in plain PyTorch: the specification, the fallback, and the truth in tests.

Each function takes the arguments of the op of the same name in ``ops.py``. It is written to be
read, not to be fast: it makes full-size temporaries, which the other backends do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..codes import MEAN, NONE, SUM, TENSOR
from ..dtypes import arithmetic
from ..op_checks import check_out, check_plan, check_samples, check_transpose
from ..plan.pairing import partner_indices
from .draw import draw_plan
from .losses import (
    label_ranks,
    scale_,
    soft_target_binary_cross_entropy,
    soft_target_binary_cross_entropy_backward,
    soft_target_binary_cross_entropy_backward_,
    soft_target_binary_cross_entropy_grad,
    soft_target_cross_entropy,
    soft_target_cross_entropy_backward,
    soft_target_cross_entropy_backward_,
    soft_target_cross_entropy_grad,
)
from .targets import dense_target, mix_targets, term, weight_columns

__all__ = [
    "MEAN",
    "NONE",
    "SUM",
    "dense_target",
    "draw_plan",
    "label_ranks",
    "mix",
    "mix_",
    "mix_backward",
    "mix_out",
    "mix_samples",
    "mix_targets",
    "paste_",
    "scale_",
    "soft_target_binary_cross_entropy",
    "soft_target_binary_cross_entropy_backward",
    "soft_target_binary_cross_entropy_backward_",
    "soft_target_binary_cross_entropy_grad",
    "soft_target_cross_entropy",
    "soft_target_cross_entropy_backward",
    "soft_target_cross_entropy_backward_",
    "soft_target_cross_entropy_grad",
]


def _partner(partner: Tensor | None, pairing: int, x: Tensor) -> Tensor:
    """int64 [B] on the device of x, clamped so that nothing is read out of bounds."""
    if pairing != TENSOR or partner is None:
        return partner_indices(pairing, x.shape[0], x.device).long()
    return partner.long().clamp(0, max(x.shape[0] - 1, 0))


def _inside(box: Tensor, x: Tensor) -> Tensor:
    """bool, broadcastable to x [B, …, spatial]: whether a position lies in the box of its row."""
    d = box.shape[1] // 2
    box = box.to(x.device)
    inside = torch.full([x.shape[0]] + [1] * (x.ndim - 1), d > 0, device=x.device)
    for k in range(d):
        dim = x.ndim - d + k
        p = torch.arange(x.shape[dim], device=x.device)
        p = p.view([-1 if i == dim else 1 for i in range(x.ndim)])
        row = [-1] + [1] * (x.ndim - 1)
        inside = inside & (p >= box[:, k].view(row)) & (p < box[:, d + k].view(row))
    return inside


def _round(value: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        value = value.round().clamp(0, 255)
    return value.to(dtype)


def mix(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> Tensor:
    check_plan(x, pairing, partner, blend, box)
    acc = arithmetic(x.dtype)
    other = x[_partner(partner, pairing, x)]
    w0, w1 = weight_columns(blend, x, acc)
    blended = term(w0, x.to(acc)) + term(w1, other.to(acc))
    # Weights (1, 0) keep the bits of x, the sign of a zero included.
    blended = torch.where((w0 == 1) & (w1 == 0), x, _round(blended, x.dtype))
    out = torch.where(_inside(box, x), other, blended)
    return torch.empty_like(x).copy_(out)


def mix_backward(
    grad: Tensor,
    partner: Tensor | None,
    sources: Tensor | None,
    offsets: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
) -> Tensor:
    # out_i = a_i x_i + b_i x_p(i)  =>  grad_j = a_j g_j + sum over p(i) = j of b_i g_i
    check_plan(grad, pairing, partner, blend, box)
    check_transpose(pairing, sources, offsets, len(grad))
    acc = arithmetic(grad.dtype)
    g = grad.to(acc)
    w0, w1 = weight_columns(blend, grad, acc)
    inside = _inside(box, grad)
    own = torch.where(inside, 0, term(w0, g))
    other = torch.where(inside, g, term(w1, g))
    own.index_add_(0, _partner(partner, pairing, grad), other)
    return torch.empty_like(grad).copy_(own)


def mix_(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> None:
    x.copy_(mix(x, partner, blend, box, pairing))


def mix_out(
    x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int, out: Tensor
) -> None:
    check_out(out, x)
    out.copy_(mix(x, partner, blend, box, pairing))


def paste_(x: Tensor, partner: Tensor | None, box: Tensor, pairing: int) -> None:
    check_plan(x, pairing, partner, None, box)
    x.copy_(torch.where(_inside(box, x), x[_partner(partner, pairing, x)], x))


def mix_samples(
    samples: Sequence[Tensor],
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    out: Tensor,
) -> None:
    check_samples(samples, out)
    mixed = mix(torch.stack(list(samples)), partner, blend, box, pairing)
    out.copy_(mixed[: out.shape[0]])
