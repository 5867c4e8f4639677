"""OpenMixup's draws: the same numbers from the same generators, in the same order.

λ, sides and places come from NumPy's global generator, grids and blocks from Python's ``random``
too, pairings and Gaussians from PyTorch's generator of the CPU. What depends on the draws alone is
here, as plain numbers; the masks that they describe are in ``masks.py``.
"""

# ruff: noqa: NPY002  (the legacy generator is the one that OpenMixup draws from)

from __future__ import annotations

import math
import random

import numpy as np
import torch
from torch import Tensor

from .numbers import check_lam

Box = tuple[int, int, int, int]  # starts, then stops, of dims 2 and 3


def draw_lam(alpha: float, lam: float | None) -> float:
    """λ ~ Beta(α, α), or the λ that was given: then nothing is drawn."""
    check_lam(alpha, lam)
    return np.random.beta(alpha, alpha) if lam is None else lam


def draw_derangement(batch_size: int, tries: int = 10) -> Tensor:
    """int64 [B]: a permutation, drawn again up to ``tries`` times while it has a fixed point."""
    index = torch.randperm(batch_size)
    own = torch.arange(batch_size)
    for _ in range(tries):
        if not bool((index == own).any()):
            break
        index = torch.randperm(batch_size)
    return index


def draw_cut_box(size: tuple[int, int], share: float) -> Box:
    """A box of ``share`` of each side, around a centre drawn in dim 2, then in dim 3; clipped."""
    sides = [int(n * share) for n in size]
    center = [np.random.randint(n) for n in size]
    return clipped_box(size, center, sides)


def clipped_box(size: tuple[int, int], center: list[int], sides: list[int]) -> Box:
    """``sides`` around ``center``, clipped to the image: an odd side loses a pixel."""
    (y0, y1), (x0, x1) = (
        (min(max(c - s // 2, 0), n), min(max(c + s // 2, 0), n))
        for n, c, s in zip(size, center, sides, strict=True)
    )
    return y0, x0, y1, x1


def cut_share(lam: float) -> float:
    """The share of each side that a box of area 1-λ takes."""
    return float(np.sqrt(1.0 - lam))


def outside_share(box: Box, size: tuple[int, int]) -> np.float64:
    """The share of the image outside the box, of OpenMixup's type."""
    y0, x0, y1, x1 = box
    return np.float64(1 - (y1 - y0) * (x1 - x0) / (size[0] * size[1]))


# ------------------------------------------------------------------ ResizeMix


def draw_scale(
    scope: tuple[float, float], alpha: float, lam: float | None, use_alpha: bool, clamp: bool
) -> float:
    """τ, the share of each side that the pasted image takes. ``clamp``: a given λ to the scope."""
    low, high = scope
    if lam is not None:
        return min(max(lam, low), high) if clamp else lam
    if use_alpha:
        scale = np.random.beta(alpha, alpha)
        if low <= scale <= high:
            return scale
    return np.random.uniform(low, high)


# ------------------------------------------------------------------ GridMix


def draw_grid(
    n_holes: tuple[int, int],
    hole_aspect: tuple[float, float],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, float, float, float]:
    """Holes along a row, aspect of a hole, area of the crop, aspect of the crop."""
    count = random.randint(*n_holes)
    return count, *(np.random.uniform(*bounds) for bounds in (hole_aspect, area, aspect))  # type: ignore[return-value]


def draw_place() -> tuple[float, float]:
    """Where the crop starts, as shares of the room that is left: along dim 3, then dim 2."""
    return np.random.random(), np.random.random()


# ------------------------------------------------------------------ SmoothMix


def draw_gauss(size: tuple[int, int]) -> tuple[int, int, Tensor]:
    """Shifts of the centre along dims 2 and 3, and σ, float32 [1]."""
    h, w = size
    shift_x = int(torch.randint(0, w, (1,)) - w / 2)
    shift_y = int(torch.randint(0, h, (1,)) - h / 2)
    return shift_y, shift_x, (torch.rand(1) / 4 + 0.25) * h


# ------------------------------------------------------------------ TokenMix, MixPro, SMMix

TOKENS = 14  # cells along a side of TokenMix's mask
_ASPECT = 0.3  # a block is at most 1 / 0.3 times as long as wide


def draw_blocks(lam: float, minimum_tokens: int) -> np.ndarray:
    """float32 [14, 14]: rectangles of 1, until int((1-λ)·196) + ``minimum_tokens`` are covered."""
    mask = np.zeros((TOKENS, TOKENS), np.float32)
    goal = min(mask.size, int((1 - lam) * mask.size) + minimum_tokens)
    covered = 0
    while covered < goal:
        added = _draw_block(mask, goal - covered)
        if not added:
            break
        covered += added
    return mask


def _draw_block(mask: np.ndarray, most: int) -> int:
    """Set one rectangle that adds from 1 to ``most`` cells; how many, 0 after ten failures."""
    bounds = math.log(_ASPECT), math.log(1 / _ASPECT)
    for _ in range(10):
        area = random.uniform(1, most)
        aspect = math.exp(random.uniform(*bounds))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h >= TOKENS or w >= TOKENS:
            continue
        top, left = random.randint(0, TOKENS - h), random.randint(0, TOKENS - w)
        block = mask[top : top + h, left : left + w]
        added = block.size - int(block.sum())
        if 0 < added <= most:
            block[:] = 1
            return added
    return 0


def draw_tokens(lam: float, minimum_tokens: int) -> np.ndarray:
    """float32 [14, 14]: 1 in int((1-λ)·196) + ``minimum_tokens`` cells drawn one by one."""
    mask = np.zeros(TOKENS * TOKENS, np.float32)
    goal = min(mask.size, int((1 - lam) * mask.size) + minimum_tokens)
    mask[np.random.permutation(mask.size)[:goal]] = 1
    return mask.reshape(TOKENS, TOKENS)


def draw_kept_cells(batch_size: int, cells: tuple[int, int], lam: float) -> tuple[Tensor, float]:
    """float32 [B, gh, gw]: 1 in ceil(λ·g) cells of each sample that it keeps; and their share."""
    total = cells[0] * cells[1]
    count = int(np.ceil(total * lam))
    mask = np.zeros((batch_size, total), np.float32)
    for row in mask:
        row[np.random.permutation(total)[:count]] = 1
    return torch.from_numpy(mask).view(batch_size, *cells), count / total


def draw_side(side: int, low: float, high: float) -> int:
    """SMMix: the side of its window, in cells."""
    sides = range(int(side * low), int(side * high) + 1)
    return random.choice(sides)
