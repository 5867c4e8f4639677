"""Plans of rectangles by their papers' rules: where they come from, and where they go.

Each function takes numbers for the whole batch, or a tensor with a row for each sample, on any
device; none reads a value of a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_tensor, check_number, integer, integer_tuple, integers
from ..codes import PAIRINGS
from ..plan.rectangles import RectanglePlan
from ..reference.pairing import partner_indices
from ..tracing import has_host_values

Rows = Tensor | Sequence[Any]  # one row for all samples, or one for each


def resize_into(
    batch_size: int,
    size: Sequence[int],
    box: Rows,  # [4] or [B, 4]
    partner: str | Tensor | Sequence[int] = "flip",  # [B]
    *,
    source_box: Rows | None = None,  # [4] or [B, 4]
    resample: str = "nearest",
    tau: float | Tensor | None = None,  # [] or [B]
    weight: Tensor | None = None,  # [B, 2]
) -> RectanglePlan:
    """The whole partner, or a part of it, resized into a box: ResizeMix, RecursiveMix, SnapMix.

    ``out[i, …, box_i] = resample(x[partner_i, …, source_box_i])``; label weights are the shares of
    the area.

    Equivalent to (OpenMixup's ResizeMix)::

        top, left, bottom, right = box
        small = torch.nn.functional.interpolate(x[partner], (bottom - top, right - left))
        x[..., top:bottom, left:right] = small

    Args:
        batch_size: B.
        size: (H, W) of the samples.
        box: (top, left, bottom, right), half-open, inside ``size``; an empty one pastes nothing.
        partner: ``"flip"``, ``"roll"``, or integers [B] (of the other tensor, if there is one).
        source_box: the part of the partner; None for all of it.
        resample: as in :class:`RectanglePlan`.
        tau: the scale factor τ where the partner was resized by ``interpolate(scale_factor=τ)``,
            whose step is 1/τ, not the ratio of the sizes (the ResizeMix paper's code).
        weight: label weights [B, 2] in place of the shares, such as SnapMix's.

    Returns:
        A :class:`RectanglePlan` of one rectangle for each sample.

    Raises:
        TypeError, ValueError, IndexError: as :class:`RectanglePlan`; rows of another batch size.

    Source: Qin et al., ResizeMix, 2020, arXiv 2012.11101; Huang et al., SnapMix, 2021,
    arXiv 2012.04846; Yang et al., RecursiveMix, 2022, arXiv 2203.06844.
    """
    batch_size = integer("batch_size", batch_size)
    height, width = _size("size", size)
    boxes = _rows("box", box, batch_size, 4)
    whole = (0, 0, height, width) if source_box is None else source_box
    sources = _rows("source_box", whole, batch_size, 4, boxes.device)
    scale = None
    if tau is not None:
        factor = tau if isinstance(tau, Tensor) else check_number("tau", tau)
        factors = torch.as_tensor(factor, dtype=torch.float64, device=boxes.device)
        if factors.shape not in ((), (batch_size,)):
            shape = list(factors.shape)
            raise ValueError(f"tau: expected a number or [{batch_size}], got shape {shape}")
        if has_host_values(factors) and not bool(((factors > 0) & factors.isfinite()).all()):
            raise ValueError("tau: expected finite factors above 0, got others")
        step = 1.0 / factors
        scale = step.float().reshape(-1, 1, 1).expand(batch_size, 1, 2)
    index = _partners("partner", partner, batch_size, boxes.device)
    return RectanglePlan(
        index[:, None], sources[:, None], boxes[:, None], weight, resample, scale, None,
        (height, width),
    )  # fmt: skip


def shifted_cutmix(
    batch_size: int,
    size: Sequence[int],
    box: Rows,  # [4] or [B, 4]
    start: Rows,  # [2] or [B, 2]
    partner: str | Tensor | Sequence[int] = "flip",  # [B]
) -> RectanglePlan:
    """CutMix whose piece comes from another place of the partner than it goes to: SMMix.

    ``out[i, …, box_i] = x[partner_i, …, start_i : start_i + size of box_i]``, moved as it is; label
    weights are the shares of the area.

    Equivalent to::

        top, left, bottom, right = box
        y, x_ = start
        piece = x[partner][..., y : y + bottom - top, x_ : x_ + right - left]
        x[..., top:bottom, left:right] = piece

    Args:
        batch_size: B.
        size: (H, W) of the samples.
        box: (top, left, bottom, right), half-open, inside ``size``.
        start: (top, left) of the piece in the partner.
        partner: ``"flip"``, ``"roll"``, or integers [B].

    Returns:
        A :class:`RectanglePlan` of one rectangle for each sample.

    Raises:
        TypeError, ValueError, IndexError: as :class:`RectanglePlan`; rows of another batch size.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899; Chen et al., SMMix, 2022, arXiv 2212.12977.
    """
    batch_size = integer("batch_size", batch_size)
    boxes = _rows("box", box, batch_size, 4)
    starts = _rows("start", start, batch_size, 2, boxes.device)
    source_box = torch.cat((starts, starts + boxes[:, 2:] - boxes[:, :2]), 1)
    return resize_into(batch_size, size, boxes, partner, source_box=source_box, resample="none")


def ricap_plan(
    size: Sequence[int],
    boundary: Rows,  # [2] or [B, 2]
    source: Rows,  # [B, 4]
    start: Rows,  # [4, 2] or [B, 4, 2]
) -> RectanglePlan:
    """Four crops of four samples that fill one image: RICAP. Labels weigh by the four areas.

    Tile k is ``x[source_k, …, start_k : start_k + size of tile k]``; tiles are top left, bottom
    left, top right, bottom right, the order of the paper's code.

    Equivalent to (one boundary and start for the batch)::

        y, x_ = boundary
        sizes = (y, x_), (H - y, x_), (y, W - x_), (H - y, W - x_)
        crop = [
            x[source[:, k]][..., a : a + h, b : b + w]
            for k, ((a, b), (h, w)) in enumerate(zip(start, sizes))
        ]
        torch.cat((torch.cat(crop[:2], -2), torch.cat(crop[2:], -2)), -1)

    Args:
        size: (H, W) of the samples.
        boundary: (row, column) at which the four tiles meet; the code draws ``round(H * beta)``.
        source: integers [B, 4]: the sample of each tile.
        start: (top, left) of each crop, at most ``size`` minus the size of its tile.

    Returns:
        A :class:`RectanglePlan` of four rectangles, of weight 0 for the sample itself.

    Raises:
        TypeError, ValueError, IndexError: as :class:`RectanglePlan`; rows of another batch size.

    Source: Takahashi et al., RICAP, 2018, arXiv 1811.09030.
    """
    height, width = _size("size", size)
    index = _sources(source)
    y, x = _rows("boundary", boundary, len(index), 2, index.device).unbind(1)
    zero, bottom, right = torch.zeros_like(y), torch.full_like(y, height), torch.full_like(x, width)
    tiles = (zero, zero, y, x), (y, zero, bottom, x), (zero, x, y, right), (y, x, bottom, right)
    box = torch.stack([torch.stack(tile, 1) for tile in tiles], 1)
    starts = integers("start", start, index.device).to(box)
    starts = starts.expand(len(index), 4, 2) if starts.shape == (4, 2) else starts
    if starts.shape != (len(index), 4, 2):
        raise ValueError(
            f"start: expected shape [4, 2] or [{len(index)}, 4, 2], got {list(starts.shape)}"
        )
    source_box = torch.cat((starts, starts + box[..., 2:] - box[..., :2]), 2)
    return RectanglePlan(index, source_box, box, fill=0.0, size=(height, width))


def mosaic_plan(
    size: Sequence[int],
    centre: Rows,  # [2] or [B, 2]
    source: Rows,  # [B, 4]
    *,
    canvas: Sequence[int] | None = None,
    fill: float = 114.0,
) -> RectanglePlan:
    """Four samples around a centre, each touching it with a corner, on a new canvas: mosaic.

    Tiles are top left, top right, bottom left, bottom right; what leaves the canvas is cut off,
    what no tile covers holds ``fill``. Label weights are the visible shares, and sum to one.

    Equivalent to::

        canvas = x.new_full((B, C, *canvas), fill)
        y, x_ = centre  # each slice below is clipped to the canvas
        canvas[..., y - H : y, x_ - W : x_] = x[source[:, 0]]
        canvas[..., y - H : y, x_ : x_ + W] = x[source[:, 1]]
        canvas[..., y : y + H, x_ - W : x_] = x[source[:, 2]]
        canvas[..., y : y + H, x_ : x_ + W] = x[source[:, 3]]

    Args:
        size: (H, W) of the samples.
        centre: (row, column) on the canvas, inside it. YOLO draws it between a half and three
            halves of ``size``. For Kornia's ``cropping_mode="slice"``, a window at (y, x) of a
            mosaic without gaps: ``(H - y, W - x)`` on a canvas of the window's size, with
            ``fill=0`` and the second and third source exchanged.
        source: integers [B, 4]: the sample of each tile.
        canvas: (height, width) of the result; by default twice ``size``, as YOLO's.
        fill: what is left over, 114 in YOLO for bytes; ``114 / 255`` for floats.

    Returns:
        A :class:`RectanglePlan` of four rectangles, of weight 0 for the sample itself.

    Raises:
        TypeError, ValueError, IndexError: as :class:`RectanglePlan`; rows of another batch size, a
            centre outside the canvas.

    Source: Bochkovskiy et al., YOLOv4, 2020, arXiv 2004.10934.
    """
    height, width = _size("size", size)
    extent = (2 * height, 2 * width) if canvas is None else _size("canvas", canvas)
    index = _sources(source)
    centres = _rows("centre", centre, len(index), 2, index.device)
    if has_host_values(centres) and not bool(
        ((centres >= 0) & (centres <= torch.tensor(extent))).all()
    ):
        raise ValueError(
            f"centre: expected places on the canvas, {list(extent)}, got some up to "
            f"{centres.amax(0).tolist()}"
        )
    spans = []  # for each axis, before and behind the centre: box and source, start and stop
    for at, n, end in zip(centres.unbind(1), (height, width), extent, strict=True):
        before = torch.minimum(at, torch.full_like(at, n))
        behind = torch.minimum(end - at, torch.full_like(at, n))
        zero, whole = torch.zeros_like(at), torch.full_like(at, n)
        spans.append(((at - before, at, whole - before, whole), (at, at + behind, zero, behind)))
    boxes, sources = [], []
    for down in spans[0]:
        for across in spans[1]:
            boxes.append(torch.stack((down[0], across[0], down[1], across[1]), 1))
            sources.append(torch.stack((down[2], across[2], down[3], across[3]), 1))
    box, source_box = torch.stack(boxes, 1), torch.stack(sources, 1)
    return RectanglePlan(index, source_box, box, fill=fill, size=extent)


def _size(name: str, size: Sequence[int]) -> tuple[int, int]:
    sizes = integer_tuple(name, size)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"{name}: expected (height, width), each at least 1, got {list(sizes)}")
    return sizes[0], sizes[1]


def _rows(
    name: str, value: Rows, batch: int, columns: int, device: torch.device | None = None
) -> Tensor:
    """Integers [B, columns] of a row for all samples or one for each; int64."""
    rows = integers(name, value, device).long()
    if device is not None:
        rows = rows.to(device)
    rows = rows.expand(batch, columns) if rows.shape == (columns,) else rows
    if rows.shape != (batch, columns):
        raise ValueError(
            f"{name}: expected shape [{columns}] or [{batch}, {columns}], got {list(rows.shape)}"
        )
    return rows


def _sources(source: Rows) -> Tensor:
    index = integers("source", source)
    if index.ndim != 2 or index.shape[1] != 4:
        raise ValueError(f"source: expected shape [B, 4], got {list(index.shape)}")
    return index


def _partners(
    name: str, partner: str | Tensor | Sequence[int], batch: int, device: torch.device
) -> Tensor:
    if isinstance(partner, str):
        if partner not in ("flip", "roll"):
            raise ValueError(f"{name}: expected 'flip', 'roll' or integers [B], got {partner!r}")
        return partner_indices(PAIRINGS[partner], batch, device)
    index = as_tensor(name, integers(name, partner, device)).to(device)
    if index.shape != (batch,):
        raise ValueError(f"{name}: expected shape [{batch}], got {list(index.shape)}")
    return index
