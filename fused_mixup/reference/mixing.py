"""The ops that mix a batch, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..dtypes import arithmetic
from ..op_checks import check_out, check_plan, check_samples, check_transpose
from ..plan.pairing import partner_rows
from .dense import term, weight_columns


def inside_box(box: Tensor, x: Tensor) -> Tensor:
    """A bool mask that broadcasts to x [B, …, spatial]: is a position in the box of its row."""
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
    other = partner_rows(x, partner, pairing)
    w0, w1 = weight_columns(blend, x, acc)
    blended = term(w0, x.to(acc)) + term(w1, other.to(acc))
    # Weights (1, 0) keep the bits of x, the sign of a zero included.
    blended = torch.where((w0 == 1) & (w1 == 0), x, _round(blended, x.dtype))
    out = torch.where(inside_box(box, x), other, blended)
    return torch.empty_like(x).copy_(out)


def mix_backward(
    grad: Tensor,  # [B, …]
    partner: Tensor | None,  # [B]
    sources: Tensor | None,  # [B]
    offsets: Tensor | None,  # [B+1]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
) -> Tensor:
    # out_i = a_i x_i + b_i x_p(i)  =>  grad_j = a_j g_j + sum over p(i) = j of b_i g_i
    check_plan(grad, pairing, partner, blend, box)
    check_transpose(pairing, sources, offsets, len(grad))
    acc = arithmetic(grad.dtype)
    g = grad.to(acc)
    w0, w1 = weight_columns(blend, grad, acc)
    inside = inside_box(box, grad)
    own = torch.where(inside, 0, term(w0, g))
    other = torch.where(inside, g, term(w1, g))
    index = partner_rows(torch.arange(len(grad), device=grad.device), partner, pairing)
    own.index_add_(0, index, other)
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
    x.copy_(torch.where(inside_box(box, x), partner_rows(x, partner, pairing), x))


def mix_samples(
    samples: Sequence[Tensor],  # B of […]
    partner: Tensor | None,  # [B]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
    out: Tensor,  # [n, …]
) -> None:
    check_samples(samples, out)
    mixed = mix(torch.stack(list(samples)), partner, blend, box, pairing)
    out.copy_(mixed[: out.shape[0]])
