"""How the CPU walks a batch in place: chains of rows, pairs with boxes, joined runs."""

from __future__ import annotations

import pytest
import torch
from comparing import same_bits

import fused_mixup as fm
from fused_mixup import MixPlan, masks, reference


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


# 17 MiB in float32 and more, in samples and lines that end between two lines of a cache.
LARGE = 13, 3, 337, 341


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])
def test_large_results_written_past_the_caches(dtype, channels_last):
    batch = 13 if dtype.itemsize > 2 else 26 if dtype.itemsize == 2 else 52
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.rand(batch, *LARGE[1:]).mul(255).to(dtype, memory_format=form)
    box = torch.tensor((5, 7, 100, 333)).repeat(batch, 1)
    plan = MixPlan.per_sample(torch.rand(batch), torch.randperm(batch), box)
    rows = plan.partner_or_none, plan.blend, plan.box, plan.rule
    expected = reference.mix(x, *rows)
    assert same_bits(fm.mix(x, plan), expected)
    # The result starts 4 bytes, or one element, past a line of the cache.
    store = torch.zeros(x.numel() + 64, dtype=dtype)
    skipped = (-store.data_ptr() // dtype.itemsize) % (64 // dtype.itemsize) + max(
        1, 4 // dtype.itemsize
    )
    out = store[skipped:].as_strided(x.shape, x.stride())
    assert same_bits(fm.mix(x, plan, out), expected)
    assert not store[:skipped].any() and not store[skipped + x.numel() :].any()


@pytest.mark.parametrize("each", [False, True], ids=["one mask", "a mask for each"])
def test_large_results_by_masks(each):
    x = torch.rand(LARGE)
    count = len(x) if each else 1
    stored = masks.stored_mask(torch.rand(count, 14, 14), "bilinear")
    plan = MixPlan.uniform(len(x), torch.randperm(len(x)), 0.3).with_mask(stored)
    rows = plan.partner_or_none, plan.blend, plan.box, plan.rule, *plan.mask.arguments
    assert same_bits(fm.mix(x, plan), reference.mix_masked(x, *rows))
    both = fm.mix(x, plan, clean=True)
    assert same_bits(both[: len(x)], x) and same_bits(both[len(x) :], fm.mix(x, plan))
    x.requires_grad_()
    upstream = torch.rand(LARGE)
    (grad,) = torch.autograd.grad(fm.mix(x, plan), x, upstream)
    m, partner = plan.mask.dense(LARGE[2:]), plan.partner.long()
    expected = (m * upstream).index_add(0, partner, (1 - m) * upstream)
    torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-6)
