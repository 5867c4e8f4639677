"""The rule by which two samples mix, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def weight_columns(weights: Tensor, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The columns of [B, 2] or [B, k] weights in ``dtype``, shaped to multiply x [B, …]."""
    w = weights.to(device=x.device, dtype=dtype)
    return w.view([*w.shape] + [1] * (x.ndim - 1)).unbind(1)


def term(weight: Tensor, value: Tensor) -> Tensor:
    """weight · value, where a weight of exactly 0 drops the term (no 0·inf)."""
    return torch.where(weight == 0, 0, weight * value)


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


def round_to(value: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        value = value.round().clamp(0, 255)
    return value.to(dtype)


def mix_rows(x: Tensor, other: Tensor, blend: Tensor, box: Tensor, acc: torch.dtype) -> Tensor:
    """The rows of x [B, …] mixed with those of ``other``, computed in ``acc``."""
    w0, w1 = weight_columns(blend, x, acc)
    blended = term(w0, x.to(acc)) + term(w1, other.to(acc))
    # Weights (1, 0) keep the bits of x, the sign of a zero included.
    blended = torch.where((w0 == 1) & (w1 == 0), x, round_to(blended, x.dtype))
    out = torch.where(inside_box(box, x), other, blended)
    return torch.empty_like(x).copy_(out)
