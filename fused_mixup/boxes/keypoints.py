"""``mix_keypoints``: the keypoints of a mixed batch, and which of them are seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..plan.mix_plan import MixPlan
from ..plan.pairing import partner_rows
from .checks import (
    check_count,
    check_device,
    check_image_plan,
    check_padded,
    check_points,
    check_size,
    is_list,
    pack,
)
from .follow import MixedRows, PaddedRows
from .visibility import ShownWhere, visible_points


def mix_keypoints(
    points: Tensor | Sequence[Tensor],  # B of [n_i, …, 2 or 3], or [B, N, …, 2 or 3]
    plan: MixPlan,
    size: Sequence[int],
    *,
    count: Tensor | None = None,  # [B]
    name: str = "points",
) -> tuple[Any, ...]:
    """The keypoints of a mixed batch: those of each sample, then its partner's, and which are seen.

    A point lies in the pixel of its floor. With C the plan's box of row i, and b its blend::

        own point:        seen where its pixel is outside C, and b0 != 0
        partner's point:  seen where its pixel is inside C, or b1 != 0

    A sample that is its own partner keeps its points, once, all of them seen.

    Equivalent to (for MixUp, where every point is seen)::

        [torch.cat((points[i], points[p])) for i, p in enumerate(plan.partner)]

    Args:
        points: B tensors [n_i, …, 2] on the CPU; or [B, N, …, 2] on any device, padded. x, y in
            pixels. In a third column 0 says that a point is not labelled: it is not seen, and its
            place means nothing.
        plan: a plan for B samples; its boxes, if any, have two dims.
        size: (H, W) of the images.
        count: int64 or int32 [B] for padded points: how many of the N each sample has; by default
            all.
        name: what errors call the points.

    Returns:
        For lists (points, visible): B tensors each, [n_i + n_p, …, 2] and bool [n_i + n_p, …].
        For padded ones (points, visible, count): [B, 2·N, …, 2], bool [B, 2·N, …] and int32 [B];
        rows behind the count are 0 and False. No point is left out, so that indices of keypoints
        keep their meaning.

    Raises:
        TypeError, ValueError: as :func:`mix_boxes`; on the CPU, a point outside the image.

    Notes:
        Points that have to stay or go with their boxes: :class:`BatchMix` takes both. Padded points
        are mixed without synchronisation, and under torch.compile.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    check_image_plan(plan, size)
    rows = checked_points(points, plan.batch_size, size, count=count, name=name)
    mixed = rows.mix(plan)
    found = mixed.rows, mixed.visible[name]
    return found if mixed.counts is None else (*found, mixed.counts)


def checked_points(
    points: Any,
    batch_size: int,
    size: Sequence[int],
    *,
    count: Tensor | None = None,
    name: str = "points",
) -> PointLists | PaddedPoints:
    """Keypoints, checked, and yet to be mixed; arguments as those of :func:`mix_keypoints`."""
    sizes = check_size(size)
    if not is_list(name, points):
        return PaddedPoints(points, batch_size, sizes, count, name)
    if count is not None:
        raise ValueError(
            "count: expected None, as a list has the number of points in it, got a tensor"
        )
    return PointLists(points, batch_size, sizes, name)


class PointLists:
    """B tensors of points."""

    def __init__(
        self, points: list[Tensor], batch_size: int, size: tuple[int, int], name: str
    ) -> None:
        self.points, self.name = points, name
        self.counts: list[int] = []
        if points or batch_size:
            packed, self.counts = pack(name, points, batch_size)
            check_points(name, packed, size, self.counts)

    def mix(self, plan: MixPlan) -> MixedRows:
        points, counts = self.points, self.counts
        if not points:
            return MixedRows([], {}, [], {self.name: []}, None)
        check_device(self.name, plan, points[0].device)
        parts, runs = [], []
        for i, p in enumerate(plan.partner.tolist()):
            parts += [points[i]] if p == i else [points[i], points[p]]
            runs += [counts[i], 0 if p == i else counts[p]]
        mixed = torch.cat(parts)
        run = torch.repeat_interleave(torch.arange(len(runs)), torch.tensor(runs))
        visible = visible_points(mixed, ShownWhere.of_plan(plan, mixed.device).of_runs(run))
        lengths = [own + other for own, other in zip(runs[::2], runs[1::2], strict=True)]
        seen = {self.name: list(visible.split(lengths))}
        return MixedRows(list(mixed.split(lengths)), {}, [], seen, None, runs[::2])


class PaddedPoints:
    """Points [B, N, …]."""

    def __init__(
        self,
        points: Tensor,
        batch_size: int,
        size: tuple[int, int],
        count: Tensor | None,
        name: str,
    ) -> None:
        check_padded(name, points, batch_size, None, None, name)
        check_count(count, name, points)
        check_points(name, points, size, None, count)
        self.points, self.count, self.name = points, count, name

    def mix(self, plan: MixPlan) -> MixedRows:
        points, count = self.points, self.count
        check_device(self.name, plan, points.device)
        most, device = points.shape[1], points.device
        index = torch.arange(plan.batch_size, device=device)
        partner = partner_rows(index, plan.partner_or_none, plan.rule)
        own = torch.full_like(index, most) if count is None else count.clamp(0, most)
        other = torch.where(partner == index, 0, own[partner])
        place = torch.arange(2 * most, device=device)
        stop = own.unsqueeze(1)
        source = torch.where(place < stop, place, place - stop + most)
        source = torch.where(place < (own + other).unsqueeze(1), source, -1)
        gather = PaddedRows(plan, source, most)
        mixed = gather(points)
        shown = ShownWhere.of_plan(plan, device).of_padded(source < most)
        visible = gather.blank(visible_points(mixed, shown))
        return MixedRows(mixed, {}, None, {self.name: visible}, (own + other).int())
