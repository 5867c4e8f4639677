"""Masks of samples, and the ops that mix by them, in plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..codes import (
    BILINEAR,
    MASK_FORM,
    MASK_FUNCTION,
    MASK_INVERT,
    MASK_PARITY,
    MASK_RANK,
    MASK_SCALE,
    MASK_SEPARABLE,
    MASK_SIGMOID,
    MASK_STORED,
    MASK_THRESHOLD,
    NEAREST,
    TENSOR,
)
from ..dtypes import arithmetic
from ..op_checks import check_plan, check_transpose, expect, expect_shape
from ..schemas import MaskArguments
from .blending import inside_box, mix_rows, round_to, term, weight_columns
from .pairing import partner_indices, partner_rows


def dense_mask(mask: MaskArguments, height: int, width: int) -> Tensor:
    """The mask m of every pixel, float32 [B, H, W]; 1 where the code is 0."""
    check_mask(mask, height, width)
    code, threshold, rows, columns, stored, interpolation = mask
    assert code is not None and threshold is not None
    s = torch.zeros((len(code), height, width), device=code.device)
    form = (code & MASK_FORM).view(-1, 1, 1)
    if rows is not None and columns is not None:
        sums = rows[:, 0, :, None] * columns[:, 0, None, :]
        for k in range(1, rows.shape[1]):
            sums = sums + rows[:, k, :, None] * columns[:, k, None, :]
        s = torch.where(form == MASK_SEPARABLE, sums, s)
    if stored is not None:
        s = torch.where(form == MASK_STORED, upsample(stored, height, width, interpolation), s)
    function = (code & MASK_FUNCTION).view(-1, 1, 1)
    m = torch.where(function == MASK_THRESHOLD, (s > threshold.view(-1, 1, 1)).float(), s)
    m = torch.where(function == MASK_PARITY, s.remainder(2), m)
    m = torch.where(function == MASK_SIGMOID, 1 / (1 + torch.exp(-s)), m)
    m = torch.where((code & MASK_INVERT).bool().view(-1, 1, 1), 1 - m, m)
    return torch.where(form == 0, 1.0, m)


def upsample(stored: Tensor, height: int, width: int, interpolation: int) -> Tensor:
    """A map [B, h, w] at the size of the image, float32, as F.interpolate does it."""
    values = stored.float()
    if interpolation == BILINEAR:
        (y0, y1, ly), (x0, x1, lx) = (
            _bilinear(*sizes, stored.device)
            for sizes in ((stored.shape[1], height), (stored.shape[2], width))
        )
        top, bottom = values[:, y0], values[:, y1]
        top = (1 - lx) * top[..., x0] + lx * top[..., x1]
        bottom = (1 - lx) * bottom[..., x0] + lx * bottom[..., x1]
        return (1 - ly)[:, None] * top + ly[:, None] * bottom
    y, x = (
        _nearest(*sizes, stored.device)
        for sizes in ((stored.shape[1], height), (stored.shape[2], width))
    )
    return values[:, y][..., x]


def _scaled(small: int, large: int, device: torch.device, shift: float) -> Tensor:
    # The quotient is rounded to float32 before it multiplies, as kernels do it. A fill, as the
    # sizes may be symbols of a compiler.
    n = torch.arange(large, device=device, dtype=torch.float32) + shift
    ratio = torch.full((), small, device=device, dtype=torch.float32) / torch.full(
        (), max(large, 1), device=device, dtype=torch.float32
    )
    return n * ratio


def _nearest(small: int, large: int, device: torch.device) -> Tensor:
    return _scaled(small, large, device, 0.0).floor().long().clamp(max=small - 1)


def _bilinear(small: int, large: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    at = (_scaled(small, large, device, 0.5) - 0.5).clamp(min=0.0)
    low = at.floor().clamp(max=small - 1)
    first = low.long()
    return first, (first + 1).clamp(max=small - 1), at - low


def mask_at(mask: MaskArguments, x: Tensor) -> Tensor:
    """The mask of every element of x [B, …, H, W]: [B, 1…, H, W]."""
    m = dense_mask(mask, *x.shape[-2:])
    return m.view(m.shape[0], *[1] * (x.ndim - 3), *m.shape[1:])


def paste_rows(x: Tensor, other: Tensor, box: Tensor, mask: MaskArguments) -> Tensor:
    """``other`` where m < ½ and in the box, else x: what can be moved and not blended."""
    pasted = inside_box(box, x)
    if mask.code is not None:
        pasted = pasted | (mask_at(mask, x) < 0.5)
    return torch.where(pasted, other, x)


def keep_masked(weight: Tensor, code: Tensor) -> Tensor:
    """Weights [B, 2] of what lies outside a pasted mask: (1, 0) in rows that have one."""
    kept = weight.new_tensor([1.0, 0.0]).to(code.device)
    return torch.where((code & MASK_FORM != 0)[:, None], kept, weight.to(code.device))


def pool_rows(pool: Tensor, partner: Tensor | None, pairing: int, batch: int) -> Tensor:
    """The partners of ``batch`` samples among those of ``pool``."""
    if pairing != TENSOR:
        partner = partner_indices(pairing, batch, pool.device)
    return partner_rows(pool, partner, TENSOR)


def mix_masked(
    x: Tensor,  # [B, …, H, W]
    partner: Tensor | None,  # [B]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
    code: Tensor | None,
    threshold: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    map: Tensor | None,
    interpolation: int,
) -> Tensor:
    mask = MaskArguments(code, threshold, rows, columns, map, interpolation)
    check_masked(x, None, pairing, partner, blend, box, mask)
    return mix_with(x, partner_rows(x, partner, pairing), blend, box, mask)


def mix_with(x: Tensor, other: Tensor, blend: Tensor, box: Tensor, mask: MaskArguments) -> Tensor:
    """The rows of x mixed with those of ``other``, in pairs."""
    out = mix_rows(x, other, blend, box, arithmetic(x.dtype))
    if mask.code is None:
        return out
    acc = arithmetic(x.dtype)
    m = mask_at(mask, x)
    kept = term(m.to(acc), x.to(acc)) + term((1 - m).to(acc), other.to(acc))
    masked = torch.where(m == 1, x, torch.where(m == 0, other, round_to(kept, x.dtype)))
    masked = torch.where(inside_box(box, x), other, masked)
    has_mask = (mask.code & MASK_FORM).bool().view(-1, *[1] * (x.ndim - 1))
    return torch.empty_like(x).copy_(torch.where(has_mask, masked, out))


def mix_masked_(x: Tensor, *plan_and_mask: Any) -> None:
    x.copy_(mix_masked(x, *plan_and_mask))


def mix_masked_out(
    x: Tensor,  # [B, …, H, W]
    other: Tensor | None,  # [M, …, H, W]
    partner: Tensor | None,  # [B]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
    code: Tensor | None,
    threshold: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    map: Tensor | None,
    interpolation: int,
    clean: bool,
    out: Tensor,  # [B or 2B, …, H, W]
) -> None:
    mask = MaskArguments(code, threshold, rows, columns, map, interpolation)
    check_masked(x, other, pairing, partner, blend, box, mask)
    check_masked_out(x, clean, out)
    batch = len(x)
    partners = pool_rows(x if other is None else other, partner, pairing, batch)
    mixed = mix_with(x, partners, blend, box, mask)
    if clean:
        out[:batch].copy_(x)
    out[out.shape[0] - batch :].copy_(mixed)


def mix_masked_backward(
    grad: Tensor,  # [B, …, H, W]
    partner: Tensor | None,  # [B]
    sources: Tensor | None,  # [B]
    offsets: Tensor | None,  # [B+1]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
    code: Tensor | None,
    threshold: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    map: Tensor | None,
    interpolation: int,
) -> Tensor:
    # out_i = a_i x_i + b_i x_p(i), at each pixel  =>  grad_j = a_j g_j + Σ_{p(i) = j} b_i g_i
    mask = MaskArguments(code, threshold, rows, columns, map, interpolation)
    check_masked(grad, None, pairing, partner, blend, box, mask)
    check_transpose(pairing, sources, offsets, len(grad))
    acc = arithmetic(grad.dtype)
    g = grad.to(acc)
    a, b = weight_columns(blend, grad, acc)
    if code is not None:
        has_mask = (code & MASK_FORM).bool().view(-1, *[1] * (grad.ndim - 1))
        m = mask_at(mask, grad)
        a = torch.where(has_mask, m.to(acc), a)
        b = torch.where(has_mask, (1 - m).to(acc), b)
    inside = inside_box(box, grad)
    own = torch.where(inside, 0, term(a, g))
    index = partner_rows(torch.arange(len(grad), device=grad.device), partner, pairing)
    own.index_add_(0, index, torch.where(inside, g, term(b, g)))
    return torch.empty_like(grad).copy_(own)


def mask_mean(
    code: Tensor,  # [B]
    threshold: Tensor,  # [B]
    rows: Tensor | None,  # [B, R, H]
    columns: Tensor | None,  # [B, R, W]
    map: Tensor | None,  # [B, h, w]
    interpolation: int,
    height: int,
    width: int,
) -> Tensor:
    mask = MaskArguments(code, threshold, rows, columns, map, interpolation)
    m = dense_mask(mask, height, width)
    m = torch.where(m > 0, m.clamp(max=1), 0)  # values on a device are not checked
    total = (m * MASK_SCALE).round().long().sum((1, 2))
    mean = (total.double() / (height * width * MASK_SCALE)).float()
    return torch.where((code & MASK_FORM) == 0, 1.0, mean)


# ------------------------------------------------------------------ checks of the ops' arguments


def check_mask(mask: MaskArguments, height: int, width: int) -> None:
    code, threshold, rows, columns, stored, interpolation = mask
    assert code is not None
    batch = code.shape[0] if code.ndim == 1 else -1
    expect(code.dtype == torch.int32 and code.ndim == 1, "code", "int32 [B]", code.dtype)
    expect_shape("threshold", threshold, batch)
    expect((rows is None) == (columns is None), "rows, columns", "both or neither", "one")
    rank = 0 if rows is None or rows.ndim != 3 else rows.shape[1]
    if rows is not None:
        expect(1 <= rank <= MASK_RANK, "rows", f"[B, 1 to {MASK_RANK}, H]", list(rows.shape))
        expect_shape("rows", rows, batch, rank, height)
        expect_shape("columns", columns, batch, rank, width)
    if stored is not None:
        fits = stored.ndim == 3 and stored.shape[0] == batch and min(stored.shape[1:]) > 0
        fits = fits and max(stored.shape[1:]) < MASK_SCALE  # what a float counts
        expect(fits, "map", f"[{batch}, h, w], neither empty nor larger", list(stored.shape))
    expect(NEAREST <= interpolation <= BILINEAR, "interpolation", "0 or 1", interpolation)


def check_masked(
    x: Tensor,
    other: Tensor | None,
    pairing: int,
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    mask: MaskArguments,
) -> None:
    check_plan(x, pairing, partner, blend, box)
    if other is not None:
        expect(other.dtype == x.dtype, "other", str(x.dtype), other.dtype)
        expect_shape("other", other, other.shape[0], *x.shape[1:])
        enough = other.shape[0] >= (1 if pairing == TENSOR and len(x) else len(x))
        expect(enough, "other", f"{len(x)} samples, or partners [B]", other.shape[0])
    if mask.code is not None:
        expect(x.ndim >= 3, "x", "[B, …, H, W]", list(x.shape))
        expect_shape("code", mask.code, x.shape[0])
        check_mask(mask, *x.shape[-2:])


def check_masked_out(x: Tensor, clean: bool, out: Tensor) -> None:
    expect(out.dtype == x.dtype, "out", str(x.dtype), out.dtype)
    expect_shape("out", out, (2 if clean else 1) * x.shape[0], *x.shape[1:])
