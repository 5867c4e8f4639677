"""The mixes by a mask of few numbers: fmix, gridmix, smoothmix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import kind
from .calls import check_call
from .draws import draw_derangement, draw_gauss, draw_grid, draw_lam, draw_place
from .fmix_draws import (
    draw_count,
    draw_fmix_columns,
    draw_fmix_lam,
    draw_fmix_rows,
    largest,
    soft_ranks,
    sum_of_products,
    threshold_below,
)
from .masks import gauss, gauss_lines, grid_lines
from .numbers import bounds, check_lam, number, whole
from .pairs import Pairs, Targets, pair
from .values import blend_by_map, blend_by_product, blend_by_threshold, blend_swapped

Range = float | tuple[float, float]


@torch.no_grad()
def fmix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    decay_power: float = 3,
    size: int | tuple[int, ...] = (32, 32),
    max_soft: float = 0.0,
    reformulate: bool = False,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """FMix: the largest values of a low-frequency image keep the sample, the others its partner.

    ``m * img + (1 - m) * img[index]``, m 1 on a share λ of the pixels. The image comes from three
    numbers per row, which is what OpenMixup's transform makes of its spectrum; the masks are equal.

    Args:
        img, gt_label, dist_mode: as :func:`mixup`.
        alpha: of Beta(α, α), or Beta(α + 1, α) with ``reformulate``.
        lam: the share to keep. ``compat`` keeps the share λ' that is drawn anyhow, and returns
            ``lam`` for it, or where λ' < lam the inverted mask and 1-λ'.
        decay_power: δ, how fast frequencies fall off.
        size: of the mask, (H, W) of the images; a number for one mask for all rows.
        max_soft: share of the pixels over which m falls from 1 to 0, on each side, in [0, 0.5].
        return_mask: also return m, [N, 1, H, W] in the dtype of the images.
        compat: ``"0.2.9"`` draws one permutation, whatever fixed points it has.

    Returns:
        A new tensor, or ``(img, mask)``; and ``(y_a, y_b, lam)``, λ a NumPy float: what was drawn,
        not the share of pixels, which is λ·H·W rounded.

    Source: Harris et al., FMix, 2020, arXiv 2002.12047.
    """
    compat = check_call(fmix, img, gt_label, dist_mode, compat, kwargs)
    sides = _fmix_size(size, img)
    check_lam(alpha, None)
    check_lam(alpha, lam)
    decay_power, max_soft = number("decay_power", decay_power), number("max_soft", max_soft, 0)
    drawn = draw_fmix_lam(alpha, reformulate)
    if len(sides) == 1:
        rows, columns = draw_fmix_columns(decay_power, sides[0])
    else:
        rows, columns = draw_fmix_rows(decay_power, *sides)
    share = float(drawn if lam is None or compat else lam)
    if not compat:  # the kernels' arithmetic
        rows, columns = rows.astype(np.float32), columns.astype(np.float32)
    image = sum_of_products(rows, columns)
    count = draw_count(share, image.size)
    inverted = bool(compat) and lam is not None and drawn < lam
    if lam is None or inverted:
        lam = 1 - drawn if inverted else drawn
    draw = torch.randperm if compat == "0.2.9" else draw_derangement
    pairs = pair(
        img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat), draw=draw
    )
    threshold = None if compat or max_soft > 0 else threshold_below(image, count)
    if threshold is not None and not return_mask:
        every_row = np.broadcast_to(rows, (len(rows), pairs.size[0]))
        tables = torch.from_numpy(every_row.copy()), torch.from_numpy(columns)
        return blend_by_threshold(pairs, *tables, threshold), (*pairs.labels, lam)
    soft = soft_ranks(image, share, count, max_soft) if max_soft > 0 else largest(image, count)
    dtype = img.dtype if img.is_floating_point() else torch.float32
    mask = torch.from_numpy(soft).to(img.device, dtype)
    mask = 1 - mask if inverted else mask
    out = blend_by_map(pairs, mask.to(torch.float32 if dtype == torch.float64 else dtype)[None])
    full = mask.to(img.dtype).expand(len(out), 1, *pairs.size)
    return (out, full) if return_mask else out, (*pairs.labels, lam)


def _fmix_size(size: Any, img: Tensor) -> tuple[int, ...]:
    try:
        sides = (size,) if isinstance(size, int) else tuple(map(int, size))
    except (TypeError, ValueError):
        raise TypeError(f"size: expected (H, W) of the images, got {kind(size)}") from None
    expected = tuple(img.shape[-2:])
    if len(sides) in (1, 2) and sides == expected[-len(sides) :] and min(sides) > 1:
        return sides
    raise ValueError(
        f"size: expected {expected}, the sides of the images, each at least 2, got {sides}"
    )


@torch.no_grad()
def gridmix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    n_holes: int | tuple[int, int] = 20,
    hole_aspect_ratio: Range = 1.0,
    cut_area_ratio: Range = 1.0,
    cut_aspect_ratio: Range = 1.0,
    dist_mode: bool = False,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """GridMix: the partner shows through a grid of holes in a crop of the image.

    ``k * img[index] + (1 - k) * img``, k 1 in the holes.

    Args:
        img, gt_label, alpha, lam, dist_mode: as :func:`mixup`.
        n_holes: holes along a row, or bounds to draw them from.
        hole_aspect_ratio, cut_area_ratio, cut_aspect_ratio: a number, or bounds to draw it from:
            height over width of a cell; share of the image that the crop takes; height over width
            of the crop.
        return_mask: also return k, float32 [N, 1, H, W].
        compat: OpenMixup's sides, swapped where images are not square, and its holes at the far
            end for a crop that starts before the image.

    Returns:
        A new tensor (float32 for half precision, as OpenMixup's), or ``(img, mask)``; and
        ``(y_a, y_b, lam)``, λ a float32 tensor []: the share of pixels that are no holes.

    Raises:
        AssertionError: more holes than half the width of the crop that was drawn.
        ValueError: bounds out of order or not above 0, and a drawn crop without a whole cell.

    Source: Baek et al., GridMix, 2021, https://doi.org/10.1016/j.patcog.2020.107594.
    """
    compat = check_call(gridmix, img, gt_label, dist_mode, compat, kwargs)
    counts = _hole_bounds(n_holes)
    ratios = [
        _ratio_bounds("hole_aspect_ratio", hole_aspect_ratio),
        _ratio_bounds("cut_area_ratio", cut_area_ratio),
        _ratio_bounds("cut_aspect_ratio", cut_aspect_ratio),
    ]
    lam = draw_lam(alpha, lam)
    grid = draw_grid(counts, *ratios)
    pairs = pair(img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat))
    rows, columns = grid_lines(pairs.size, lam, grid, draw_place(), bool(compat))
    tables = torch.from_numpy(rows)[None], torch.from_numpy(columns)[None]
    out: Any = blend_by_threshold(pairs.to_float32(), *tables, 0.5, partner_shows=True)
    # Divided on the device: there a division by a number may round as a product.
    count = torch.tensor(float(rows.sum() * columns.sum()), device=img.device)
    share = 1 - count / (pairs.size[0] * pairs.size[1])
    if return_mask:
        holes = torch.from_numpy(rows[:, None] & columns).to(img.device, torch.float32)
        out = _with_mask(pairs, out, holes)
    return out, (*pairs.labels, share)


def _hole_bounds(n_holes: Any) -> tuple[int, int]:
    low, high = (whole("n_holes", n, 1) for n in bounds("n_holes", n_holes))
    if low > high:
        raise ValueError(f"n_holes: expected bounds in order, got {low} and {high}")
    return low, high


def _ratio_bounds(name: str, value: Any) -> tuple[float, float]:
    low, high = (number(name, r) for r in bounds(name, value))
    if not min(low, high) > 0:
        raise ValueError(f"{name}: expected numbers above 0, got {low} and {high}")
    return low, high


@torch.no_grad()
def smoothmix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """SmoothMix: the partner shows through a Gaussian.

    ``g * img[index] + (1 - g) * img``, g = exp(-d² / 2σ²), d the distance from a drawn centre.

    Args:
        img, gt_label, dist_mode: as :func:`mixup`; of any sides (OpenMixup: square and even).
        alpha, lam: a λ is drawn if none is given, and not used.
        return_mask: also return g, float32 [N, 1, H, W].
        compat: λ is mean(g), which is the partner's share, as OpenMixup returns it.

    Returns:
        A new tensor (float32 for half precision, as OpenMixup's), or ``(img, mask)``; and
        ``(y_a, y_b, lam)``, λ a float32 tensor []: 1 - mean(g), the share of the sample.

    Source: Lee et al., SmoothMix, 2020, CVPR workshops.
    """
    compat = check_call(smoothmix, img, gt_label, dist_mode, compat, kwargs)
    draw_lam(alpha, lam)
    pairs = pair(img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat))
    shift_y, shift_x, sigma = draw_gauss(pairs.size)
    sigma, shifts = sigma.to(img.device), (shift_y, shift_x)
    if compat:
        g = gauss(pairs.size, shifts, sigma)
        out: Any = blend_swapped(pairs.to_float32(), g[None])
        share = torch.sum(g) / (pairs.size[0] * pairs.size[1])
    else:
        down, across = gauss_lines(pairs.size, shifts, sigma)
        out = blend_by_product(pairs.to_float32(), down, across)
        share = 1 - down.mean() * across.mean()
    if return_mask:
        out = _with_mask(pairs, out, g if compat else torch.outer(down, across))
    return out, (*pairs.labels, share)


def _with_mask(pairs: Pairs, out: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return out, mask.expand(len(out), 1, *pairs.size)
