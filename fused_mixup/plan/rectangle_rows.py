"""Rows of rectangles: their checks, and the shares of a result that show them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_int32


def check_rows(
    source: Tensor,  # [B, R], not empty
    source_box: Tensor,  # [B, R, 4]
    box: Tensor,  # [B, R, 4]
    resample: str,
    size: Sequence[int] | None,
) -> tuple[int, ...]:
    """Check values on the host: (largest source, stops of the sources, stops of the boxes)."""
    low, high = (int(v) for v in torch.aminmax(source))
    if low < 0:
        raise IndexError(f"source: expected indices of at least 0, got {low}")
    for name, b in (("source_box", source_box), ("box", box)):
        bad = ((b[..., :2] < 0) | (b[..., 2:] < b[..., :2])).any(-1)
        if bool(bad.any()):
            i, k = (int(n) for n in bad.nonzero()[0])
            raise ValueError(
                f"{name}: expected 0 <= top <= bottom and 0 <= left <= right (the order is "
                f"top, left, bottom, right), got {b[i, k].tolist()} in sample {i}"
            )
    sizes, sources = (b[..., 2:] - b[..., :2] for b in (box, source_box))
    used = (sizes > 0).all(-1)
    wrong = used & (sources != sizes).any(-1)
    if resample == "none" and bool(wrong.any()):
        i, k = (int(n) for n in wrong.nonzero()[0])
        raise ValueError(
            "source_box: expected the sizes of box, as resample='none' copies, got "
            f"{sources[i, k].tolist()} for {sizes[i, k].tolist()} in sample {i}; use "
            "resample='nearest' or 'bilinear'"
        )
    wrong = used & (sources == 0).any(-1)
    if bool(wrong.any()):
        raise ValueError(
            "source_box: expected a part of a sample, got an empty one in sample "
            f"{int(wrong.nonzero()[0, 0])}; for no rectangle give an empty box"
        )
    if not bool(used.any()):
        return high, 0, 0, 0, 0
    stops = [t[used][:, 2:].amax(0).tolist() for t in (source_box, box)]
    if size is not None:
        check_inside("box", stops[1], "size", size)
    return high, *stops[0], *stops[1]


def visible_shares(box: Tensor, size: Sequence[int], own: bool) -> Tensor:
    """The shares of :meth:`RectanglePlan.visible` for boxes [B, R, 4], where they live.

    The edges of all boxes cut the result into cells, of which each shows one rectangle or none.
    """
    extent = torch.tensor([*size, *size], device=box.device)
    box = torch.minimum(box.long().clamp(min=0), extent)
    shown = []  # for each axis: [B, R, cells] whether a box covers a cell, [B, cells] its length
    for axis in (0, 1):
        low, high = box[..., axis], box[..., 2 + axis]
        zero = low.new_zeros(len(low))
        ends = torch.stack((zero, zero + size[axis]), 1)
        edges = torch.cat((low, high, ends), 1).sort(1).values
        first = edges[:, None, :-1]
        covers = (first >= low[..., None]) & (first < high[..., None])
        shown.append((covers, edges.diff(dim=1)))
    (rows, heights), (columns, widths) = shown
    covers = rows[..., :, None] & columns[..., None, :]  # [B, R, cells, cells]
    area = heights[:, :, None] * widths[:, None, :]
    parts, free = [], torch.ones_like(area, dtype=torch.bool)
    for k in reversed(range(box.shape[1])):
        parts.append((area * (covers[:, k] & free)).sum((1, 2)))
        free = free & ~covers[:, k]
    rest = (area * free).sum((1, 2))
    parts.append(rest if own else torch.zeros_like(rest))
    areas = torch.stack(parts[::-1], 1)
    total = areas.sum(1, keepdim=True).clamp(min=1)
    return (areas / total).float()


def check_inside(name: str, stops: Sequence[int], of: str, extent: Sequence[int]) -> None:
    if any(stop > n for stop, n in zip(stops, extent, strict=True)):
        raise ValueError(
            f"{name}: expected rectangles inside {of}, {list(extent)}, got some down to "
            f"{list(stops)}; clip them, or draw them for this size"
        )


def narrow(name: str, t: Tensor) -> Tensor:
    check_int32(name, t)
    return t.to(torch.int32).contiguous()


def expect_rows(name: str, t: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if t.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(t.shape)}")
    if t.device != device:
        raise ValueError(f"{name}: expected it on {device} like source, got {t.device}")
