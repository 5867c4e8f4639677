"""Label weights by the area of a box, and which cells of a grid lie in one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_box, check_size, columns


def area_weights(
    box: Tensor,  # [B, 2·D]
    size: Sequence[int],  # [D]
) -> Tensor:
    """Label weights by area: the partner has the share of the box, the sample the rest.

    ``weight_i = (1 - a_i, a_i)``, ``a_i = Π_d (stop_d - start_d) / size_d``

    Equivalent to::

        starts, stops = box.chunk(2, 1)
        a = (stops - starts).clamp(min=0).prod(1) / math.prod(size)
        torch.stack((1 - a, a), 1)

    Args:
        box: integers [B, 2·D], D starts, then D stops, as :class:`MixPlan` has them.
        size: the D sizes of the samples.

    Returns:
        float32 [B, 2] on the device of the box.

    Raises:
        TypeError, ValueError: no integers, other shapes.

    Notes:
        An empty box gives (1, 0).

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    box = check_box("box", box, None, None)
    sizes = check_size(size, box.shape[1] // 2)
    share = area_share(columns(box, box.device), sizes)
    return torch.stack((1.0 - share, share), 1)


def area_share(edges: list[Tensor], sizes: Sequence[int]) -> Tensor:
    """float32: the share of boxes with the columns ``edges``."""
    d = len(edges) // 2
    area = torch.ones_like(edges[0], dtype=torch.int64)
    for start, stop in zip(edges[:d], edges[d:], strict=True):
        area = area * (stop.long() - start.long()).clamp(min=0)
    return area.float() / float(math.prod(sizes))


def inside(places: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """bool [B, n] (or [n] for one row): which of the places [n] lie in [start, stop)."""
    if start.ndim:
        start, stop = start.unsqueeze(-1), stop.unsqueeze(-1)
    return (places >= start) & (places < stop)


def pixel_of_cell(cells: int, pixels: int, device: torch.device) -> Tensor:
    """The pixel at which nearest interpolation reads each cell: floor(i · pixels / cells)."""
    at = torch.arange(cells, dtype=torch.float32, device=device)
    # float32, as F.interpolate computes it.
    return (at * (pixels / cells)).floor().clamp(max=pixels - 1)


def box_mass(maps: Tensor, edges: list[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Σ of maps [B, h, w] over the cells whose places lie in the boxes, [B]."""
    top, left, bottom, right = edges
    rows = inside(places[0], top, bottom).to(maps.dtype)
    across = inside(places[1], left, right).to(maps.dtype)
    # One pass over the maps.
    return ((maps * across.unsqueeze(-2)).sum(-1) * rows).sum(-1)
