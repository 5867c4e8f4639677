"""The values of one entry, tensors or one for each sample: their shape, and how they are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..mixing import mix, mix_
from ..plan.mix_plan import MixPlan
from .places import Place


def mix_at(x: Tensor, plan: MixPlan, place: Place, inplace: bool) -> Tensor:
    """Mix an entry by its own plan, whose box ends in the dim of ``place``."""
    if place.dim == -1 or not plan.spatial_dims:
        return mix_(x, plan) if inplace else mix(x, plan)
    if place.dim == 1 - x.ndim and x.is_contiguous():  # [B, T, …]: the box is whole rows of [T, …]
        flat, plan = x.flatten(2), plan.over_whole(x[0, 0].numel())
        return mix_(flat, plan).view_as(x) if inplace else mix(flat, plan).view_as(x)
    seen = x.movedim(place.dim, -1)
    if inplace:
        mix_(seen, plan)
        return x
    return mix(seen, plan).movedim(-1, place.dim)


def is_collated(plan: MixPlan, place: Place, alone: Sequence[Tensor]) -> bool:
    """Whether samples are mixed as they are stacked, in one pass."""
    plain_plan = plan.mask is None and place.dim == -1
    return plain_plan and alone[0].is_cpu and not any(x.requires_grad for x in alone)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a batch, or of one of alike samples."""
    return tuple(value.shape) if isinstance(value, Tensor) else (len(value), *value[0].shape)
