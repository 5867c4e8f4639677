"""Boxes through a plan, with every field that belongs to them; ``mix_boxes`` is a case of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import implementation
from ..plan.mix_plan import MixPlan
from ..plan.pairing import partner_rows
from .checks import (
    check_box_dtype,
    check_corners,
    check_count,
    check_device,
    check_padded,
    check_points,
    check_share,
    check_size,
    is_list,
    pack,
    refuse_box,
    sample_of_row,
)
from .formats import check_format, from_corners, to_corners
from .visibility import ShownWhere, visible_points


class FollowedBoxes(NamedTuple):
    """What :func:`follow_boxes` returns: lists where lists came in, padded tensors otherwise."""

    boxes: Any  # B of [m_i, 4], or [B, 2·N, 4]
    fields: dict[str, Any]  # each B of [m_i, …], or [B, 2·N, …]
    weights: Any  # float32, B of [m_i], or [B, 2·N]
    visible: dict[str, Any]  # bool, for each of ``points``: B of [m_i, …], or [B, 2·N, …]
    counts: Tensor | None  # int32 [B], or None for lists


def follow_boxes(
    boxes: Tensor | Sequence[Tensor],
    fields: Mapping[str, Any],
    plan: MixPlan,
    size: Sequence[int],
    *,
    points: Collection[str] = (),
    format: str = "xyxy",
    min_visible: float = 0.1,
    count: Tensor | None = None,
    name: str = "boxes",
) -> FollowedBoxes:
    """Boxes that a mixed batch shows, and the rows of all fields that belong to them.

    Args:
        boxes: B tensors [n_i, 4] on the CPU, or [B, N, 4] on any device, as for :func:`mix_boxes`.
        fields: name -> B tensors [n_i, …], or [B, N, …], as boxes are; any dtype and shape.
        plan: a plan for B samples.
        size: (H, W) of the images.
        points: the names of fields that hold keypoints [n_i, …, 2] or [n_i, …, 3].
        format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        min_visible: the least share of a box that has to be seen.
        count: int64 or int32 [B] for padded boxes, how many each sample has.
        name: what errors call the boxes.

    Returns:
        A :class:`FollowedBoxes`; ``visible`` says of keypoints which the mixed image shows.

    Raises:
        TypeError, ValueError: as :func:`mix_boxes` and :func:`mix_keypoints`.
    """
    check_format(format)
    share = check_share(min_visible)
    sizes = check_size(plan, size)
    if is_list(name, boxes):
        if count is not None:
            raise ValueError(
                "count: expected None, as a list has the number of boxes in it, got a tensor"
            )
        return _follow_lists(name, boxes, fields, plan, sizes, points, format, share)  # type: ignore[arg-type]
    return _follow_padded(name, boxes, fields, plan, sizes, points, format, share, count)  # type: ignore[arg-type]


def _follow_lists(
    name: str,
    boxes: list[Tensor],
    fields: Mapping[str, Any],
    plan: MixPlan,
    size: tuple[int, int],
    points: Collection[str],
    format: str,
    share: float,
) -> FollowedBoxes:
    batch = plan.batch_size
    if batch == 0 == len(boxes):
        empty: dict[str, Any] = {field: [] for field in fields}
        return FollowedBoxes([], empty, [], {field: [] for field in points}, None)
    rows, counts = pack(name, boxes, batch)
    if rows.ndim == 1 and rows.shape[0] == 0:
        rows = rows.view(0, 4)
    if rows.ndim != 2:
        raise ValueError(f"{name}: expected tensors [n, 4], got {rows.ndim} dims")
    check_box_dtype(name, rows)
    check_device(name, plan, rows.device)
    packed = {}
    for field, values in fields.items():
        if not is_list(field, values):
            raise TypeError(f"{field}: expected a list, as {name} is, got a tensor")
        packed[field], _ = pack(field, values, batch, counts, name)
    corners = to_corners(rows, format)
    for field in points:
        check_points(field, packed[field], size, counts)

    partner = plan.partner_or_none
    shown, source, weight, left = implementation().mix_boxes_packed(
        corners, counts, partner, plan.blend, plan.box, plan.rule, share
    )
    *lengths, bad = left.tolist()
    if bad >= 0:
        refuse_box(name, corners[bad], format, sample_of_row(bad, counts))
    followed = {field: t.index_select(0, source) for field, t in packed.items()}
    visible = {}
    if points:
        sample = torch.repeat_interleave(torch.arange(batch), left[:batch])
        stop = torch.tensor(counts).cumsum(0)[sample]
        own = (source < stop) & (source >= stop - torch.tensor(counts)[sample])
        where = ShownWhere.of_plan(plan, rows.device).of_runs(2 * sample + ~own)
        for field in points:
            visible[field] = visible_points(followed[field], where).split(lengths)
    if format != "xyxy" or shown.dtype != rows.dtype:
        before = (rows[source], corners[source]) if format != "xyxy" else ()
        shown = from_corners(shown, format, rows.dtype, *before)
    return FollowedBoxes(
        list(shown.split(lengths)),
        {field: list(t.split(lengths)) for field, t in followed.items()},
        list(weight.split(lengths)),
        {field: list(t) for field, t in visible.items()},
        None,
    )


def _follow_padded(
    name: str,
    boxes: Tensor,
    fields: Mapping[str, Any],
    plan: MixPlan,
    size: tuple[int, int],
    points: Collection[str],
    format: str,
    share: float,
    count: Tensor | None,
) -> FollowedBoxes:
    batch = plan.batch_size
    check_padded(name, boxes, batch, None, None, name)
    if boxes.ndim != 3:
        raise ValueError(f"{name}: expected shape [B, N, 4], got {list(boxes.shape)}")
    check_box_dtype(name, boxes)
    check_device(name, plan, boxes.device)
    check_count(count, name, boxes)
    most = boxes.shape[1]
    for field, values in fields.items():
        check_padded(field, values, batch, boxes.device, most, name)
    corners = to_corners(boxes, format)
    check_corners(name, corners, format, count)
    for field in points:
        check_points(field, fields[field], size, None, count)

    shown, source, weight, left = implementation().mix_boxes(
        corners, count, plan.partner_or_none, plan.blend, plan.box, plan.rule, share
    )
    gather = PaddedRows(plan, source, most)
    followed = {field: gather(t) for field, t in fields.items()}
    visible = {}
    if points:
        where = ShownWhere.of_plan(plan, boxes.device).of_padded(source < most)
        for field in points:
            visible[field] = gather.blank(visible_points(followed[field], where))
    if format != "xyxy" or shown.dtype != boxes.dtype:
        before = (gather(boxes), gather(corners)) if format != "xyxy" else ()
        shown = gather.blank(from_corners(shown, format, boxes.dtype, *before))
    return FollowedBoxes(shown, followed, weight, visible, left)


class PaddedRows:
    """Takes rows of padded tensors [B, N, …] by ``source`` [B, 2·N]; zeros where it is -1."""

    def __init__(self, plan: MixPlan, source: Tensor, most: int) -> None:
        own = (torch.arange(source.shape[0], device=source.device) * most).unsqueeze(1)
        other = partner_rows(own, plan.partner_or_none, plan.rule) - most
        self.missing = source < 0
        first = torch.where(source < most, own, other)
        self.rows = (first + source).clamp(min=0).flatten()
        self.shape = source.shape

    def __call__(self, t: Tensor) -> Tensor:
        rows = t.flatten(0, 1).index_select(0, self.rows)
        return self.blank(rows.view(*self.shape, *t.shape[2:]))

    def blank(self, t: Tensor) -> Tensor:
        missing = self.missing.view(*self.shape, *[1] * (t.ndim - 2))
        return t.masked_fill(missing, 0)
