"""Masks of a few numbers: Gaussians, grids of holes, rectangles and bands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import as_tensor, kind
from ..codes import MASK_INVERT, MASK_PARITY, MASK_RANK, MASK_SEPARABLE, MASK_THRESHOLD
from ..reference.random import exp_negative
from .fields import check_choice_of, check_host, check_same, image_size, integer_rows, mask_of
from .mix_mask import MixMask

_LEAST = torch.finfo(torch.float64).tiny


def gauss_mask(
    center: Tensor | Sequence[float],  # [B, 2] or (cy, cx)
    sigma: Tensor | float,  # [B] or one number
    size: Sequence[int],
    partner: bool = True,
) -> MixMask:
    """A Gaussian bell, of which the partner (or the sample) has its height as share.

    ``g[y, x] = exp(-((y - cy)² + (x - cx)²) / (2 σ²))``, and m = 1 - g, or g.

    Equivalent to::

        y, x = torch.arange(H)[:, None], torch.arange(W)
        g = torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
        m = 1 - g if partner else g

    Args:
        center: [B, 2], the (cy, cx) of each sample in pixels; pixel 0 has its centre at 0. A pair
            of numbers holds for all samples.
        sigma: [B], above 0, or one number.
        size: (H, W).
        partner: whether the bell shows the partner.

    Returns:
        A mask of B samples (one where both are numbers) on the device of the tensors: tables of
        B·(H + W) float32.

    Raises:
        TypeError: no numbers.
        ValueError: shapes or devices that do not fit; on the CPU also a sigma that is not above 0
            or a centre that is not finite.

    Notes:
        The factors of rows and columns are computed in float64 by the package's own exp, the same
        on every device, and rounded to float32 once. No value is read from a device.

    Source: Lee et al., SmoothMix, 2020; GMix in Park et al., 2022, arXiv 2208.09913.
    """
    height, width = image_size(size)
    place, spread = _pair(center, sigma), _spread(sigma, center)
    batch = spread.shape[0] if place.shape[0] == 1 else place.shape[0]
    place, spread = _rows("center", place, batch), _rows("sigma", spread, batch)
    check_same("sigma", spread, "center", place)
    check_host("center", place.isfinite(), "finite numbers")
    check_host("sigma", (spread > 0) & spread.isfinite(), "finite numbers above 0")
    under = (2.0 * spread * spread).clamp(min=_LEAST)  # above 0, where the square is not
    tables = []
    for axis, n in enumerate((height, width)):
        apart = torch.arange(n, device=place.device, dtype=torch.float64) - place[:, axis, None]
        tables.append(exp_negative(apart * apart / under[:, None]).float()[:, None])
    code = MASK_SEPARABLE + (MASK_INVERT if partner else 0)
    return mask_of(code, place, rows=tables[0], columns=tables[1])


def _pair(center: Tensor | Sequence[float], beside: object) -> Tensor:
    """float64 [B or 1, 2]; two numbers are written where the tensor ``beside`` lives."""
    if isinstance(center, Tensor):
        t = as_tensor("center", center).double()
        if t.ndim != 2 or t.shape[1] != 2:
            raise ValueError(f"center: expected [B, 2] or (cy, cx), got shape {list(t.shape)}")
        return t
    try:
        cy, cx = map(float, center)
    except (TypeError, ValueError):
        raise TypeError(f"center: expected [B, 2] or (cy, cx), got {kind(center)}") from None
    device = beside.device if isinstance(beside, Tensor) else None
    full = [torch.full((1,), v, dtype=torch.float64, device=device) for v in (cy, cx)]
    return torch.stack(full, 1)


def _spread(sigma: Tensor | float, beside: object) -> Tensor:
    if isinstance(sigma, Tensor):
        t = as_tensor("sigma", sigma).double()
        if t.ndim > 1:
            raise ValueError(f"sigma: expected [B] or a number, got shape {list(t.shape)}")
        return t.view(-1)
    if not hasattr(sigma, "__float__"):
        raise TypeError(f"sigma: expected a tensor [B] or a number, got {kind(sigma)}")
    device = beside.device if isinstance(beside, Tensor) else None
    return torch.full((1,), float(sigma), dtype=torch.float64, device=device)


def _rows(name: str, t: Tensor, batch: int) -> Tensor:
    if t.shape[0] not in (1, batch):
        raise ValueError(f"{name}: expected {batch} rows or one, got {t.shape[0]}")
    return t.expand(batch, *t.shape[1:])


# ------------------------------------------------------------------ indicators


def _inside(start: Tensor, stop: Tensor, n: int) -> Tensor:
    """bool [..., n]: start <= position < stop."""
    at = torch.arange(n, device=start.device)
    return (at >= start[..., None]) & (at < stop[..., None])


def _holes(start: Tensor, crop: Tensor, period: Tensor, hole: Tensor, n: int) -> Tensor:
    """float32 [B, 1, n]: where an axis has holes."""
    start, crop, hole = start[:, None], crop[:, None], hole[:, None]
    period = period.clamp(min=1)[:, None]

    def first_pixel(at: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a position is in a hole, and where that hole starts."""
        phase = (at - start).remainder(period)
        return (at >= start) & (at < start + crop) & (phase < hole), at - phase

    at = torch.arange(n, device=start.device)
    inside, first = first_pixel(at)
    behind, before = first_pixel(at - n)
    stop = torch.minimum(before + hole, start + crop)
    return ((inside & (first >= 0)) | (behind & (stop < 0))).float()[:, None]


def grid_mask(numbers: Tensor | Sequence[int], size: Sequence[int]) -> MixMask:
    """A grid of holes inside a crop: the partner shows in the holes.

    With (x0, y0, cw, ch, pw, ph, hw, hh), a pixel is a hole, m = 0, where it lies in the crop, and
    ``(x - x0) mod pw < hw`` and ``(y - y0) mod ph < hh``; elsewhere m = 1.

    Equivalent to (for one sample)::

        m = torch.ones(H, W)
        for y in range(y0, y0 + ch, ph):
            for x in range(x0, x0 + cw, pw):
                m[y : min(y + hh, y0 + ch), x : min(x + hw, x0 + cw)] = 0

    Args:
        numbers: [B, 8] integers, or eight for all samples: the corner (x0, y0) of the crop, its
            width and height, the width and height of a period, those of a hole.
        size: (H, W).

    Returns:
        A mask of B samples (one for eight ints) on the device of ``numbers``.

    Raises:
        TypeError: no integers.
        ValueError: another shape; on the CPU also a period below 1.

    Notes:
        GridMix draws a share λ, a number of columns nx and the crop; its holes are
        ``min(max(int(p·sqrt(1-λ)), 1), p - 1)`` wide for a period p. Its crop may be larger than
        the image. Then indices are negative, and as in the published code a hole that lies before
        the image counts from the far end, and one across the border is left out. No value is read
        from a device.

    Source: Baek et al., GridMix, 2021.
    """
    height, width = image_size(size)
    t = as_tensor("numbers", numbers)
    rows = integer_rows("numbers", t[None] if t.ndim == 1 else t, "B, 8")
    if rows.shape[1] != 8:
        raise ValueError(f"numbers: expected [B, 8] or eight ints, got shape {list(t.shape)}")
    x0, y0, crop_w, crop_h, period_w, period_h, hole_w, hole_h = rows.unbind(1)
    check_host("numbers", (period_w > 0) & (period_h > 0), "periods pw, ph of 1 and more")
    row = _holes(y0, crop_h, period_h, hole_h, height)
    column = _holes(x0, crop_w, period_w, hole_w, width)
    code = MASK_SEPARABLE + MASK_INVERT
    return mask_of(code, rows, rows=row, columns=column)


def rectangle_mask(
    boxes: Tensor | Sequence[Sequence[Sequence[int]]],  # [B, n, 4]
    size: Sequence[int],
    combine: str = "union",
    inside: str = "partner",
) -> MixMask:
    """Up to four rectangles, joined or by exclusive or.

    A pixel is inside where it lies in any rectangle (union), or in an odd number of them (xor).
    ``m = 0`` inside and 1 outside, or the other way round for ``inside="self"``.

    Equivalent to::

        count = sum((y >= t) & (y < b) & (x >= l) & (x < r) for t, l, b, r in boxes[i])
        hit = count > 0 if combine == "union" else count % 2 == 1
        m = (~hit if inside == "partner" else hit).float()

    Args:
        boxes: [B, n, 4] integers, n up to 4: (top, left, bottom, right), the last two exclusive.
            An empty rectangle (top >= bottom or left >= right) holds nothing, so that samples may
            have fewer than n. What lies outside the image is not seen.
        size: (H, W).
        combine: ``"union"`` or ``"xor"``.
        inside: whose pixels show inside, ``"partner"`` or ``"self"``.

    Returns:
        A mask of B samples on the device of ``boxes``: tables of B·n·(H + W) float32.

    Raises:
        TypeError: no integers.
        ValueError: another shape, more than four rectangles, an unknown word.

    Notes:
        More rectangles: join them into a bool map for :func:`stored_mask`. No value is read from a
        device.

    Source: French et al., Semi-supervised semantic segmentation needs strong, varied
    perturbations, 2020, arXiv 1906.01916 (xor).
    """
    height, width = image_size(size)
    check_choice_of("combine", combine, ("union", "xor"))
    check_choice_of("inside", inside, ("partner", "self"))
    rows = integer_rows("boxes", boxes, "B, n, 4")
    if rows.shape[2] != 4 or not 1 <= rows.shape[1] <= MASK_RANK:
        raise ValueError(
            f"boxes: expected [B, n, 4] with n from 1 to {MASK_RANK}, got shape "
            f"{list(rows.shape)}; join more of them into a map for stored_mask"
        )
    top, left, bottom, right = rows.unbind(2)
    code = MASK_SEPARABLE + (MASK_THRESHOLD if combine == "union" else MASK_PARITY)
    return mask_of(
        code + (MASK_INVERT if inside == "partner" else 0),
        rows,
        0.5,
        rows=_inside(top, bottom, height).float(),
        columns=_inside(left, right, width).float(),
    )


def band_mask(
    row_bands: Tensor | Sequence[Sequence[Sequence[int]]] | None,  # [B, n, 2]
    column_bands: Tensor | Sequence[Sequence[Sequence[int]]] | None,  # [B, k, 2]
    size: Sequence[int],
    combine: str = "union",
    inside: str = "partner",
) -> MixMask:
    """Bands over the full width and the full height, joined or by exclusive or.

    A row band (start, stop) is the rectangle (start, 0, stop, W), a column band (0, start, H,
    stop); see :func:`rectangle_mask` for m.

    Equivalent to::

        boxes = [(a, 0, b, W) for a, b in row_bands[i]] + [(0, a, H, b) for a, b in column_bands[i]]
        rectangle_mask([boxes], (H, W), combine, inside)

    Args:
        row_bands: [B, n, 2] integers (start, stop), or None for none. Empty bands hold nothing.
        column_bands: [B, k, 2], or None; n + k up to 4.
        size: (H, W): of a spectrogram, frequency and time.
        combine, inside: as in :func:`rectangle_mask`.

    Returns:
        A mask of B samples.

    Raises:
        TypeError, ValueError: as :func:`rectangle_mask`; no bands at all.

    Notes:
        SpecMix draws up to two bands in time and two in frequency, of a width that is a share of
        the axis. No value is read from a device.

    Source: Kim et al., SpecMix, 2021, arXiv 2108.03020.
    """
    height, width = image_size(size)
    parts: list[Tensor] = []
    for name, bands, other in (
        ("row_bands", row_bands, width),
        ("column_bands", column_bands, height),
    ):
        if bands is None:
            continue
        t = integer_rows(name, bands, "B, n, 2")
        if t.shape[2] != 2:
            raise ValueError(f"{name}: expected [B, n, 2], got shape {list(t.shape)}")
        if parts:
            check_same(name, t, "row_bands", parts[0])
        start, stop = t.unbind(2)
        first, last = torch.zeros_like(start), torch.full_like(start, other)
        box = (start, first, stop, last) if name == "row_bands" else (first, start, last, stop)
        parts.append(torch.stack(box, 2))
    if not parts:
        raise ValueError("row_bands, column_bands: expected at least one, got None")
    return rectangle_mask(torch.cat(parts, 1), (height, width), combine, inside)
