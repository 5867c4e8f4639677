"""Keypoints checked, and then mixed: B tensors of them, or one that is padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..plan.mix_plan import MixPlan
from ..reference.pairing import partner_rows
from .checks import (
    check_count,
    check_padded,
    check_points,
    check_serves,
    check_size,
    is_list,
    pack,
)
from .rows import MixedRows, PaddedRows
from .visibility import ShownWhere, visible_points


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
    if isinstance(points, Tensor) and points.is_nested:
        raise TypeError(
            f"{name}: expected a list of tensors or a padded one, got a nested tensor; use "
            "list(points.unbind())"
        )
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
        check_serves(self.name, plan.serves(points[0].device), plan.device, points[0].device)
        parts, runs = [], []
        for i, p in enumerate(plan.partner.tolist()):
            parts += [points[i]] if p == i else [points[i], points[p]]
            runs += [counts[i], 0 if p == i else counts[p]]
        mixed = torch.cat(parts)
        run = torch.repeat_interleave(torch.arange(len(runs)), torch.tensor(runs))
        rows = plan.partner_or_none, plan.rule, plan.blend, plan.box
        visible = visible_points(mixed, ShownWhere.of_rows(*rows, mixed.device).of_runs(run))
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
        check_serves(self.name, plan.serves(points.device), plan.device, points.device)
        most, device = points.shape[1], points.device
        index = torch.arange(plan.batch_size, device=device)
        partner = partner_rows(index, plan.partner_or_none, plan.rule)
        own = torch.full_like(index, most) if count is None else count.clamp(0, most)
        other = torch.where(partner == index, 0, own[partner])
        place = torch.arange(2 * most, device=device)
        stop = own.unsqueeze(1)
        source = torch.where(place < stop, place, place - stop + most)
        source = torch.where(place < (own + other).unsqueeze(1), source, -1)
        gather = PaddedRows(plan.partner_or_none, plan.rule, source, most)
        mixed = gather(points)
        rows = plan.partner_or_none, plan.rule, plan.blend, plan.box
        shown = ShownWhere.of_rows(*rows, device).of_padded(source < most)
        visible = gather.blank(visible_points(mixed, shown))
        return MixedRows(mixed, {}, None, {self.name: visible}, (own + other).int())
