"""The masks that OpenMixup's draws describe, small: lines of holes, a Gaussian, cells."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def grid_lines(
    size: tuple[int, int],
    lam: float,
    grid: tuple[int, float, float, float],
    place: tuple[float, float],
    compat: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """GridMix: bool [H] and [W]; a pixel is a hole, and shows the partner, where both are True.

    ``compat``: sides swapped, and holes before the first pixel counted from the far end, as
    OpenMixup has them. Both show only where images are not square or the crop is longer than a
    side.
    """
    n_holes, hole_aspect, area, aspect = grid
    height, width = size[::-1] if compat else size
    cut_w = int(np.sqrt(int(height * width * area) / aspect))
    cut_h = int(cut_w * aspect)
    left, top = int((width - cut_w) * place[0]), int((height - cut_h) * place[1])
    if not 1 <= n_holes <= cut_w // 2:
        raise AssertionError(
            f"n_holes: expected a number in [1, {cut_w // 2}], half the width of the crop, got "
            f"{n_holes}; allow fewer holes"
        )
    cell_w = math.ceil(cut_w / n_holes)
    cell_h = int(cell_w * hole_aspect)
    if cell_h < 1 or cut_h < 1:
        raise ValueError(
            f"hole_aspect_ratio, cut_aspect_ratio: expected cells of at least 1 pixel, got cells "
            f"of {cell_w}x{cell_h} in a crop of {cut_w}x{cut_h}; give larger ratios"
        )
    # At least a pixel, and a pixel less than the cell.
    hole_w, hole_h = (
        min(max(int(cell * np.sqrt(1 - lam)), 1), cell - 1) for cell in (cell_w, cell_h)
    )
    return (
        _holes(size[0], top, cut_h, cell_h, hole_h, compat),
        _holes(size[1], left, cut_w, cell_w, hole_w, compat),
    )


def _holes(n: int, start: int, length: int, cell: int, hole: int, wrap: bool) -> np.ndarray:
    """bool [n]: the first ``hole`` pixels of each cell, from ``start`` on, over ``length``."""
    line = np.zeros(n, bool)
    for begin in range(start, start + length, cell):
        end = min(begin + hole, start + length)
        line[slice(begin, end) if wrap else slice(max(begin, 0), max(end, 0))] = True
    return line


def gauss(size: tuple[int, int], shifts: tuple[int, int], sigma: Tensor) -> Tensor:
    """SmoothMix: float32 [H, W], the partner's weight exp(-d² / 2σ²), d from a shifted centre."""
    along_y, along_x = _squares(size, shifts, sigma.device)
    return torch.exp(-(along_y[:, None] + along_x) / (2 * sigma**2))


def gauss_lines(
    size: tuple[int, int], shifts: tuple[int, int], sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """float32 [H] and [W], whose products are those weights, but for their last bits."""
    lines = [torch.exp(-square / (2 * sigma**2)) for square in _squares(size, shifts, sigma.device)]
    return lines[0], lines[1]


def _squares(
    size: tuple[int, int], shifts: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Squared distances of rows and columns: halves and squares, exact in float32."""
    y, x = (
        (torch.arange(n, device=device) - ((n - 1) / 2 + shift)) ** 2
        for n, shift in zip(size, shifts, strict=True)
    )
    return y, x


def attentive_cells(features: Tensor, top_k: int) -> Tensor:
    """AttentiveMix: float32 [B, gh, gw], 1 in the ``top_k`` cells of largest mean over channels."""
    cells = features.mean(1)
    chosen = cells.reshape(len(cells), -1).topk(top_k).indices
    mask = torch.zeros(len(cells), cells[0].numel(), device=features.device)
    return mask.scatter_(1, chosen, 1).view(cells.shape)


def enlarged(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, …] of ``mask`` [B, gh, gw], nearest, in pixels of ``size``."""
    return torch.nn.functional.interpolate(mask[:, None], size=size, mode="nearest")
