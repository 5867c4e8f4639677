"""Rows of plans whose partners lie on other ranks: what they read, and the plans that mix them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..masks.mix_mask import MixMask
from ..plan.checks import Facts
from ..plan.mix_plan import MixPlan, known_plan

NOTHING, BOX, WHOLE = range(3)  # what a row reads of its partner


def regions(plan: MixPlan, places: Tensor | None = None) -> Tensor:
    """int8 [B]: what each row reads of its partner; ``places`` [B, 4] take it resized."""
    d, box = plan.spatial_dims, plan.box
    whole = plan.blend[:, 1] != 0
    if plan.mask is not None:
        whole = whole | (plan.mask.code != 0)
    if places is not None:
        whole = whole | (places[:, 2:] > places[:, :2]).all(1)
    cut = (box[:, d:] > box[:, :d]).all(1) if d else torch.zeros_like(whole)
    return torch.where(whole, WHOLE, torch.where(cut, BOX, NOTHING)).to(torch.int8)


def with_partners(
    plan: MixPlan, rows: slice | Tensor, partner: Tensor, pool: int | None = None
) -> MixPlan:
    """Some ``rows`` of a plan, with partners at these places of the batch or of a pool."""
    tensors = partner.int(), plan.weight[rows], plan.blend[rows], plan.box[rows]
    mask = None if plan.mask is None else plan.mask.take(rows)
    facts = Facts(None, plan._facts.blends, plan._facts.box_stop)
    return known_plan(tensors, "tensor", facts, mask, pool)


def only(plan: MixPlan, here: Tensor, partner: Tensor) -> MixPlan:
    """The plan that mixes the rows ``here`` [B] with these partners, and leaves others alone."""
    if here.all():
        return with_partners(plan, slice(None), partner)
    at = here[:, None]
    untouched = 1.0 - torch.arange(2, dtype=torch.float64)
    blend, box = torch.where(at, plan.blend, untouched), torch.where(at, plan.box, 0)
    mask: MixMask | None = None
    if plan.mask is not None:
        assert isinstance(plan.mask, MixMask)
        own = plan.mask
        code, tables = torch.where(here, own.code, 0), (own.rows, own.columns, own.map)
        mask = MixMask(code, own.threshold, *tables, interpolation=own.interpolation)
    facts = Facts(None, False, plan._facts.box_stop)
    partner = torch.where(here, partner, torch.arange(plan.batch_size)).int()
    tensors = partner, plan.weight, blend, box
    return known_plan(tensors, "tensor", facts, mask)


def twice(plan: MixPlan, itself: Tensor) -> MixPlan:
    """The plan for a batch of 2B, whose second half are the partners of the first.

    ``itself`` [B]: rows that are their own partners. What it makes of the second half is of no use.
    """
    rows = torch.arange(plan.batch_size).repeat(2)
    return with_partners(plan, rows, rows + plan.batch_size * ~itself.repeat(2))


def runs(rows: Tensor) -> list[tuple[int, int]]:
    """The runs [start, stop) of ascending indices that follow each other."""
    if not len(rows):
        return []
    ends = (rows.diff() != 1).nonzero().flatten() + 1
    starts = [0, *ends.tolist()]
    stops = [*ends.tolist(), len(rows)]
    return list(zip(starts, stops, strict=True))
