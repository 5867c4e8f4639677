"""Boxes through a plan, with every field that belongs to them; ``mix_boxes`` is a case of it.

Two steps: all is checked when a :class:`BoxLists` or :class:`PaddedBoxes` is made, before a plan is
drawn, and ``mix`` applies the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import implementation
from ..plan.mix_plan import MixPlan
from .checks import (
    check_box_dtype,
    check_corners,
    check_count,
    check_padded,
    check_points,
    check_serves,
    check_share,
    check_size,
    is_list,
    pack,
    pack_objects,
)
from .formats import check_format, from_corners, to_corners
from .rows import MixedRows, PaddedRows
from .visibility import ShownWhere, visible_points


def checked_boxes(
    boxes: Any,
    fields: Mapping[str, Any],
    batch_size: int,
    size: Sequence[int],
    *,
    points: Collection[str] = (),
    format: str = "xyxy",
    min_visible: float = 0.1,
    count: Tensor | None = None,
    name: str = "boxes",
) -> BoxLists | PaddedBoxes:
    """Boxes with all fields that belong to them, checked, and yet to be mixed.

    Args:
        boxes: B tensors [n_i, 4] on the CPU, or [B, N, 4] on any device, as for :func:`mix_boxes`.
        fields: name -> B tensors [n_i, …], or [B, N, …], as boxes are; any dtype and shape. Beside
            lists of boxes also B lists of n_i Python objects.
        batch_size: B.
        size: (H, W) of the images.
        points: the names of fields that hold keypoints [n_i, …, 2] or [n_i, …, 3].
        format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        min_visible: the least share of a box that has to be seen.
        count: int64 or int32 [B] for padded boxes, how many each sample has.
        name: what errors call the boxes.

    Raises:
        TypeError, ValueError: as :func:`mix_boxes` and :func:`mix_keypoints`.
    """
    check_format(format)
    share, sizes = check_share(min_visible), check_size(size)
    if not is_list(name, boxes):
        return PaddedBoxes(boxes, fields, batch_size, sizes, points, format, share, count, name)
    if count is not None:
        raise ValueError(
            "count: expected None, as a list has the number of boxes in it, got a tensor"
        )
    return BoxLists(boxes, fields, batch_size, sizes, points, format, share, name)


class BoxLists:
    """B tensors of boxes, and their fields, packed one after the other."""

    def __init__(
        self,
        boxes: list[Tensor],
        fields: Mapping[str, Any],
        batch_size: int,
        size: tuple[int, int],
        points: Collection[str],
        format: str,
        share: float,
        name: str,
    ) -> None:
        self.name, self.format, self.share, self.points = name, format, share, points
        self.batch_size = batch_size
        rows, self.counts = pack(name, boxes, batch_size)
        if rows.ndim == 1 and rows.shape[0] == 0:
            rows = rows.view(0, 4)
        if rows.ndim != 2:
            raise ValueError(f"{name}: expected tensors [n, 4], got {rows.ndim} dims")
        check_box_dtype(name, rows)
        self.rows, self.corners = rows, to_corners(rows, format)
        check_corners(name, self.corners, format, self.counts)
        self.fields: dict[str, Any] = {}
        for field, values in fields.items():
            if not is_list(field, values):
                raise TypeError(f"{field}: expected a list, as {name} is, got a tensor")
            packing = pack_objects if any(type(v) is list for v in values) else pack
            self.fields[field], _ = packing(field, values, batch_size, self.counts, name)
        for field in points:
            check_points(field, self.fields[field], size, self.counts)

    def mix(self, plan: MixPlan, with_own: bool = False, with_weights: bool = True) -> MixedRows:
        if self.batch_size == 0:
            points: dict[str, Any] = {field: [] for field in self.points}
            return MixedRows([], {field: [] for field in self.fields}, [], points, None, [])
        rows, corners = self.rows, self.corners
        check_serves(self.name, plan.serves(rows.device), plan.device, rows.device)
        partner = plan.partner_or_none
        shown, source, weight, left = implementation().mix_boxes_packed(
            corners, self.counts, partner, plan.blend, plan.box, plan.rule, self.share
        )
        lengths = left.tolist()
        fields: dict[str, Any] = {}
        for field, values in self.fields.items():
            if isinstance(values, Tensor):
                fields[field] = values.index_select(0, source)
            else:
                taken = iter([values[k] for k in source.tolist()])
                fields[field] = [[next(taken) for _ in range(n)] for n in lengths]
        visible, own_rows = {}, None
        if self.points or with_own:
            sample = torch.repeat_interleave(torch.arange(self.batch_size), left)
            stop = torch.tensor(self.counts).cumsum(0)[sample]
            own = (source < stop) & (source >= stop - torch.tensor(self.counts)[sample])
            own_rows = (
                torch.zeros(self.batch_size, dtype=torch.int64)
                .index_add_(0, sample, own.long())
                .tolist()
            )
            where = ShownWhere.of_rows(
                plan.partner_or_none, plan.rule, plan.blend, plan.box, rows.device
            ).of_runs(2 * sample + ~own)
            for field in self.points:
                visible[field] = visible_points(fields[field], where).split(lengths)
        if self.format != "xyxy" or shown.dtype != rows.dtype:
            before = (rows[source], corners[source]) if self.format != "xyxy" else ()
            shown = from_corners(shown, self.format, rows.dtype, *before)
        # A split costs as much as mixing.
        weights = list(weight.split(lengths)) if with_weights else None
        return MixedRows(
            list(shown.split(lengths)),
            {k: list(t.split(lengths)) if isinstance(t, Tensor) else t for k, t in fields.items()},
            weights,
            {field: list(t) for field, t in visible.items()},
            None,
            own_rows,
        )


class PaddedBoxes:
    """Boxes [B, N, 4], and their fields [B, N, …]."""

    def __init__(
        self,
        boxes: Tensor,
        fields: Mapping[str, Any],
        batch_size: int,
        size: tuple[int, int],
        points: Collection[str],
        format: str,
        share: float,
        count: Tensor | None,
        name: str,
    ) -> None:
        self.name, self.format, self.share, self.points = name, format, share, points
        self.boxes, self.fields, self.count = boxes, fields, count
        check_padded(name, boxes, batch_size, None, None, name)
        if boxes.ndim != 3:
            raise ValueError(f"{name}: expected shape [B, N, 4], got {list(boxes.shape)}")
        check_box_dtype(name, boxes)
        check_count(count, name, boxes)
        for field, values in fields.items():
            check_padded(field, values, batch_size, boxes.device, boxes.shape[1], name)
        self.corners = to_corners(boxes, format)
        check_corners(name, self.corners, format, None, count)
        for field in points:
            check_points(field, fields[field], size, None, count)

    def mix(self, plan: MixPlan, with_own: bool = False, with_weights: bool = True) -> MixedRows:
        boxes, most = self.boxes, self.boxes.shape[1]
        check_serves(self.name, plan.serves(boxes.device), plan.device, boxes.device)
        shown, source, weight, left = implementation().mix_boxes(
            self.corners,
            self.count,
            plan.partner_or_none,
            plan.blend,
            plan.box,
            plan.rule,
            self.share,
        )
        gather = PaddedRows(plan.partner_or_none, plan.rule, source, most)
        fields = {field: gather(t) for field, t in self.fields.items()}
        visible = {}
        own = (source >= 0) & (source < most)
        if self.points:
            where = ShownWhere.of_rows(
                plan.partner_or_none, plan.rule, plan.blend, plan.box, boxes.device
            ).of_padded(source < most)
            for field in self.points:
                visible[field] = gather.blank(visible_points(fields[field], where))
        if self.format != "xyxy" or shown.dtype != boxes.dtype:
            before = (gather(boxes), gather(self.corners)) if self.format != "xyxy" else ()
            shown = gather.blank(from_corners(shown, self.format, boxes.dtype, *before))
        return MixedRows(shown, fields, weight, visible, left, own)
