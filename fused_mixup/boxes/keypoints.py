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
    check_padded,
    check_points,
    check_size,
    is_list,
    pack,
)
from .follow import PaddedRows
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
        Points of boxes that have to stay or go with them: a field of :func:`follow_boxes`. Padded
        points are mixed without synchronisation, and under torch.compile.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    sizes = check_size(plan, size)
    if not is_list(name, points):
        return _mix_padded(name, points, plan, sizes, count)  # type: ignore[arg-type]
    if count is not None:
        raise ValueError(
            "count: expected None, as a list has the number of points in it, got a tensor"
        )
    return _mix_lists(name, points, plan, sizes)  # type: ignore[arg-type]


def _mix_lists(
    name: str, points: list[Tensor], plan: MixPlan, size: tuple[int, int]
) -> tuple[list[Tensor], list[Tensor]]:
    batch = plan.batch_size
    if batch == 0 == len(points):
        return [], []
    packed, counts = pack(name, points, batch)
    check_points(name, packed, size, counts)
    check_device(name, plan, packed.device)
    partner = plan.partner.tolist()
    parts, runs = [], []
    for i, p in enumerate(partner):
        parts.append(points[i])
        if p != i:
            parts.append(points[p])
        runs += [counts[i], 0 if p == i else counts[p]]
    mixed = torch.cat(parts)
    run = torch.repeat_interleave(torch.arange(2 * batch), torch.tensor(runs))
    visible = visible_points(mixed, ShownWhere.of_plan(plan, packed.device).of_runs(run))
    lengths = [own + other for own, other in zip(runs[::2], runs[1::2], strict=True)]
    return list(mixed.split(lengths)), list(visible.split(lengths))


def _mix_padded(
    name: str, points: Tensor, plan: MixPlan, size: tuple[int, int], count: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    batch = plan.batch_size
    check_padded(name, points, batch, None, None, name)
    check_count(count, name, points)
    check_points(name, points, size, None, count)
    check_device(name, plan, points.device)
    most, device = points.shape[1], points.device
    index = torch.arange(batch, device=device)
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
    return mixed, visible, (own + other).int()
