"""Mixes that put images together of parts: mosaic, jigsaw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..codes import MAX_RECTANGLES
from ..collage.patches import mix_patches
from ..collage.rectangles import mix_rectangles
from ..plan.patches import PatchPlan
from ..plan.rectangles import RectanglePlan
from .base import Fused, Params, wants_grad
from .installed import theirs


class RandomMosaic(Fused, theirs.RandomMosaic):
    r"""Kornia's ``RandomMosaic``: a window of a grid of samples, of which the first is the sample.

    ``out[i] = canvas_i[:, y_i : y_i + h, x_i : x_i + w]``, zeros beyond the canvas.

    Equivalent to (Kornia itself, a grid of 2 × 2)::

        a, b, c, d = (x[permutation[:, k]] for k in range(4))
        canvas = torch.cat((torch.cat((a, b), -2), torch.cat((c, d), -2)), -1)
        torch.stack([canvas[i, :, y : y + h, x : x + w] for i, (x, y) in enumerate(corner)])

    Args:
        output_size: (h, w) of the window; None for that of the images.
        mosaic_grid: (across, down): how many samples lie side by side.
        start_ratio_range: (low, high) of the window's corner, as a share of an image.
        min_bbox_size: the area below which a box becomes zeros.
        data_keys: what the inputs are: ``"input"`` and boxes, ``"bbox"``, ``"bbox_xyxy"`` or
            ``"bbox_xywh"``.
        p: how probable it is that a sample is mixed; the others are cut or padded to the size.
        keepdim: give an unbatched image back without a batch dim.
        padding_mode, resample, align_corners: of ``cropping_mode="resample"``.
        cropping_mode: ``"slice"``, or ``"resample"``, which Kornia's own lines do.

    Returns:
        The images; or a list of them and boxes, those of all tiles.

    Raises:
        RuntimeError: class labels.
        TypeError, ValueError, NotImplementedError: as :class:`RandomMixUpV2`.

    Notes:
        Equals Kornia bit for bit, boxes too. Kornia's own lines do what is rare: windows over
        more than four samples, and images that need a gradient.

    Source: Bochkovskiy et al., YOLOv4, 2020, arXiv 2004.10934.
    """

    def _mix(self, x: Tensor, params: Params, flags: Any, gate: Tensor) -> Tensor | None:
        if flags["cropping_mode"] != "slice" or wants_grad(x):
            return None
        across, down = flags["mosaic_grid"]
        size = x.shape[-2:]
        extent = tuple(size if flags["output_size"] is None else flags["output_size"])
        order = params["permutation"]
        gate = gate.to(order.device)
        corner = params["src"][:, 0].long().to(order.device) * gate[:, None]  # (x, y)
        if bool((corner < 0).any()):
            return None
        rows = _spans(corner[:, 1], size[0], extent[0], down)
        columns = _spans(corner[:, 0], size[1], extent[1], across)
        if len(rows) * len(columns) > MAX_RECTANGLES:
            return None
        if flags["output_size"] is None and (_gaps(rows, extent[0]) or _gaps(columns, extent[1])):
            return None  # Kornia's windows differ in size there
        sources, boxes, source_boxes = [], [], []
        for tile_y, *y in rows:
            for tile_x, *x_ in columns:
                own = (tile_y == 0) & (tile_x == 0)
                index = (tile_x * down + tile_y).clamp(max=across * down - 1)
                sources.append(order.gather(1, index[:, None])[:, 0])
                start_y, stop_y, from_y, to_y = y
                start_x, stop_x, from_x, to_x = x_
                seen = (gate | own).long()  # a sample without a mosaic shows itself alone
                boxes.append(torch.stack((start_y, start_x, stop_y, stop_x), 1) * seen[:, None])
                source_boxes.append(torch.stack((from_y, from_x, to_y, to_x), 1) * seen[:, None])
        source = torch.stack(sources, 1)
        weight = torch.zeros(len(x), 1 + source.shape[1])  # a mosaic has no class labels
        plan = RectanglePlan(
            source, torch.stack(source_boxes, 1), torch.stack(boxes, 1), weight,
            fill=0.0, size=extent,
        )  # fmt: skip
        return mix_rectangles(x, plan.to(x.device))


def _spans(corner: Tensor, size: int, extent: int, count: int) -> list[tuple[Tensor, ...]]:
    """For each tile that a window may show on an axis: its number, box and source, [B] each.

    A window of ``extent`` starts at ``corner`` of a row of ``count`` tiles of ``size``.
    """
    first = corner // size
    spans: list[tuple[Tensor, ...]] = []
    for k in range(min((extent + size - 2) // size + 1, count)):
        tile = first + k
        start = (tile * size - corner).clamp(0, extent)
        stop = ((tile + 1) * size - corner).clamp(0, extent)
        stop = torch.where(tile < count, stop, start)
        start_of_tile = (start + corner - tile * size).clamp(0, size)
        spans.append((tile, start, stop, start_of_tile, start_of_tile + stop - start))
    return spans


def _gaps(spans: list[tuple[Tensor, ...]], extent: int) -> bool:
    """Whether some window reaches beyond the last tile."""
    covered = torch.stack([stop - start for _, start, stop, _, _ in spans]).sum(0)
    return bool((covered < extent).any())


class RandomJigsaw(Fused, theirs.RandomJigsaw):
    r"""Kornia's ``RandomJigsaw``: the patches of each image in a random order.

    Patch ``permutation_i[c · rows + r]``, counted row by row, goes to row r and column c.

    Equivalent to (Kornia itself)::

        patches = x.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))  # [B, C, r, h, c, w]
        patches = patches.movedim((2, 4), (1, 2)).flatten(1, 2)  # [B, r · c, C, h, w]
        order = permutation.view(B, columns, rows).transpose(1, 2).flatten(1)
        torch.stack([p[k] for p, k in zip(patches, order)])  # and back into images

    Args:
        grid: (rows, columns) of patches; they have to divide the images.
        data_keys: what the inputs are: ``"input"`` alone.
        p: how probable it is that a sample is rearranged.
        same_on_batch: one order for the batch.
        keepdim: give an unbatched image back without a batch dim.
        ensure_perm: draw again where the order would be that of the image.

    Returns:
        The images.

    Raises:
        RuntimeError: a grid that does not divide the images.
        ValueError: ``ensure_perm`` with a single patch.
        TypeError, ValueError, NotImplementedError: as :class:`RandomMixUpV2`.

    Notes:
        Equals Kornia bit for bit. Kornia's own lines do images that need a gradient.

    Source: Noroozi and Favaro, Jigsaw puzzles, 2016, arXiv 1603.09246.
    """

    def _mix(self, x: Tensor, params: Params, flags: Any, gate: Tensor) -> Tensor | None:
        if wants_grad(x):
            return None
        rows, columns = flags["grid"]
        order = params["permutation"].long().view(len(x), columns, rows).transpose(1, 2)
        own = torch.arange(rows * columns, device=order.device).view(1, rows, columns)
        index = torch.where(gate.to(order.device)[:, None, None], order, own)
        return mix_patches(x, PatchPlan(index).to(x.device))
