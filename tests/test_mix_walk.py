"""How the CPU walks a batch in place: chains of rows, pairs with boxes, joined runs."""

from __future__ import annotations

import pytest
import torch
from comparing import same_bits

import fused_mixup as fm
from fused_mixup import MixPlan, reference


def cycles(*lengths: int) -> torch.Tensor:
    """A permutation with cycles of these lengths, its rows in a random order."""
    names = torch.randperm(sum(lengths)).split(lengths)
    partner = torch.empty(sum(lengths), dtype=torch.int64)
    for cycle in names:
        partner[cycle] = cycle.roll(1)
    return partner


def mixed_like_the_reference(x: torch.Tensor, plan: MixPlan) -> bool:
    expected = reference.mix(x, plan.partner_or_none, plan.blend, plan.box, plan.rule)
    return same_bits(fm.mix_(x, plan), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (7, 5), (3, 90, 131)], ids=str)
def test_cycles_of_every_length(dtype, shape):
    for lengths in [(3,), (4,), (5,), (6,), (9,), (13,), (4, 4), (8, 3, 2, 1), (5, 7)]:
        partner = cycles(*lengths)
        x = torch.rand(len(partner), *shape).mul(255).to(dtype)
        assert mixed_like_the_reference(x.clone(), MixPlan.uniform(len(x), partner, 0.3))
        lam = torch.rand(len(x))
        assert mixed_like_the_reference(x.clone(), MixPlan.per_sample(lam, partner)), lengths


@pytest.mark.parametrize("tail", [1, 2, 3, 4])
def test_rows_that_lead_into_a_cycle(tail):
    # Rows that no row reads are written first, and the last of them reads a row of the cycle.
    for length in (3, 4, 6):
        for entry in range(length):
            cycle = torch.arange(length).roll(-1)
            partner = torch.cat((cycle, torch.tensor([entry, *range(length, length + tail - 1)])))
            for order in (torch.arange(len(partner)), torch.randperm(len(partner))):
                moved = torch.empty_like(partner)
                moved[order] = order[partner]
                x = torch.randn(len(partner), 5, 40)
                assert mixed_like_the_reference(x, MixPlan.uniform(len(x), moved, 0.3))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_a_chain_ends_where_a_row_does_not_only_blend(layout):
    partner = cycles(12)
    for bad in range(12):
        x = torch.randn(12, 3, 9, 14)
        if layout == "channels_last":
            x = x.contiguous(memory_format=torch.channels_last)
        elif layout == "sliced":
            x = torch.randn(12, 3, 11, 15)[:, :, 1:-1, 1:]
        for lam, box in ((1.0, [0] * 4), (0.0, [0] * 4), (0.4, [2, 3, 8, 9])):
            lams, boxes = torch.full((12,), 0.3), torch.zeros(12, 4, dtype=torch.int32)
            lams[bad], boxes[bad] = lam, torch.tensor(box)
            plan = MixPlan.per_sample(lams, partner, boxes)
            before = x.clone(memory_format=torch.preserve_format)
            assert mixed_like_the_reference(before, plan), (bad, lam)


@pytest.mark.parametrize("size", [(6, 9), (40, 224)], ids=str)
def test_pairs_of_which_rows_are_cut_blended_or_kept(size):
    h, w = size
    generator = torch.Generator().manual_seed(0)
    kinds = [("cut", "cut"), ("cut", "blend"), ("blend", "cut"), ("cut", "keep"), ("blend", "keep")]
    for same in (True, False):
        for first, second in kinds:
            x = torch.randn(2, 3, h, w, generator=generator)
            lam, boxes = torch.ones(2), torch.zeros(2, 4, dtype=torch.int32)
            for row, kind in enumerate((first, second)):
                if kind != "keep":
                    lam[row] = 0.7 if same else torch.rand((), generator=generator)
                if kind == "cut":
                    top = 1 if same else row + 1
                    boxes[row] = torch.tensor([top, 2, h - 1, w - top])
            plan = MixPlan.per_sample(lam, "flip", boxes)
            assert mixed_like_the_reference(x, plan), (same, first, second)
