"""The values of one entry, tensors or one for each sample: their shape, and how they are mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..mixing import mix, mix_
from ..plan.mix_plan import MixPlan
from .places import Place


def mix_at(
    x: Tensor, plan: MixPlan, place: Place, inplace: bool, other: Tensor | None = None
) -> Tensor:
    """Mix an entry by its own plan, whose box ends in the dim of ``place``."""
    if place.dim == -1 or not plan.spatial_dims:
        return _mix(x, plan, inplace, other)
    alike = other is None or other.is_contiguous()
    if place.dim == 1 - x.ndim and x.is_contiguous() and alike:
        # [B, T, …]: the box is whole rows of [T, …].
        flat, plan = x.flatten(2), plan.over_whole(math.prod(x.shape[2:]))
        return _mix(flat, plan, inplace, None if other is None else other.flatten(2)).view_as(x)
    seen = x.movedim(place.dim, -1)
    made = _mix(seen, plan, inplace, None if other is None else other.movedim(place.dim, -1))
    return x if inplace else made.movedim(-1, place.dim)


def _mix(x: Tensor, plan: MixPlan, inplace: bool, other: Tensor | None) -> Tensor:
    return mix_(x, plan, other=other) if inplace else mix(x, plan, other=other)


def is_collated(plan: MixPlan, place: Place, alone: Sequence[Tensor]) -> bool:
    """Whether samples are mixed as they are stacked, in one pass."""
    plain_plan = plan.mask is None and place.dim == -1
    return plain_plan and alone[0].is_cpu and not any(x.requires_grad for x in alone)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a batch, or of one of alike samples."""
    return tuple(value.shape) if isinstance(value, Tensor) else (len(value), *value[0].shape)
