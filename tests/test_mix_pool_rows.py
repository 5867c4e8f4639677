"""Pools and clean halves under plans without boxes, in every layout, against plain PyTorch."""

from __future__ import annotations

import copy

import pytest
import torch

from fused_mixup import MixPlan, mix, mix_
from fused_mixup.codes import MASK_STORED
from fused_mixup.masks import MixMask

SHAPES = [(5, 7), (4, 3, 9), (4, 3, 6, 5), (3, 2, 4, 3, 5), (1, 3, 4, 4), (0, 3, 4, 4), (4, 0)]


def layouts(x):
    yield x
    if x.ndim == 4:
        yield x.to(memory_format=torch.channels_last)
    if x.ndim == 5:
        yield x.to(memory_format=torch.channels_last_3d)
    yield x.transpose(1, -1).contiguous().transpose(1, -1)
    yield torch.cat((x, x), -1)[..., : x.shape[-1]]


def by_hand(x, partners, plan):
    w = plan.blend.to(x.dtype if x.dtype == torch.float64 else torch.float32)
    own, other = (w[:, k].view(-1, *[1] * (x.ndim - 1)) for k in (0, 1))
    return (x * own + partners * other).to(x.dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_to_the_plain_way(device, shape, dtype):
    batch, pool = shape[0], shape[0] + 3
    banks = list(layouts(torch.rand(pool, *shape[1:]).to(device, dtype)))
    for k, x in enumerate(layouts(torch.rand(shape).to(device, dtype))):
        for bank in (banks[k], banks[k - 1]):  # as x lies, and otherwise
            lam, rows = torch.rand(batch, dtype=torch.float64), torch.randint(pool, (batch,))
            plan = MixPlan.per_sample(lam, rows, pool=pool).to(device)
            found = mix(x, plan, other=bank)
            expected = by_hand(x, bank[plan.partner.long()], plan)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
            assert found.stride() == torch.empty_like(x).stride()
            here = copy.deepcopy(x)  # with its strides
            assert mix_(here, plan, other=bank) is here and here.stride() == x.stride()
            assert torch.equal(here, found)
        plan = MixPlan.uniform(batch, "flip", 0.3)
        both = mix(x, plan, clean=True)
        expected = torch.cat((x, by_hand(x, x.flip(0), plan.to(device))))
        torch.testing.assert_close(both, expected, rtol=0, atol=0)


def test_nothing_comes_in_from_a_partner_with_a_weight_of_0(device):
    x, bank = torch.rand(4, 3, 5, 5).to(device), torch.full((6, 3, 5, 5), torch.nan).to(device)
    plan = MixPlan.uniform(4, torch.arange(4), 1.0, pool=6).to(device)
    assert torch.equal(mix(x, plan, other=bank), x)


def test_labels_of_one_number_a_sample_are_mixed_too(device):
    x, bank = torch.rand(6).to(device), torch.rand(9).to(device)
    plan = MixPlan.uniform(6, torch.arange(6) + 3, 0.25, pool=9).to(device)
    torch.testing.assert_close(mix(x, plan, other=bank), 0.25 * x + 0.75 * bank[3:])


def test_in_place_with_boxes_and_masks(device):
    x, bank = torch.rand(4, 3, 6, 5).to(device), torch.rand(5, 3, 6, 5).to(device)
    rows = torch.tensor([4, 4, 0, 2])
    box = torch.tensor([[0, 0, 3, 2], [0, 0, 0, 0], [2, 1, 6, 5], [1, 1, 1, 4]])
    cut = MixPlan.per_sample(torch.rand(4), rows, box, pool=5).to(device)
    mask = MixMask(torch.full((4,), MASK_STORED).int(), torch.zeros(4), map=torch.rand(4, 3, 3))
    for plan in (cut, cut.with_mask(mask.to(device))):
        expected = mix(x, plan, other=bank)
        assert torch.equal(mix_(x.clone(), plan, other=bank), expected)
        assert not torch.equal(expected, x)


def test_what_is_written_is_no_pool():
    x = torch.rand(6, 4)
    plan = MixPlan.uniform(3, "roll", 0.5)
    for other in (x[:3], x[1:4]):
        with pytest.raises(ValueError, match="other: expected memory of its own, got memory of x"):
            mix_(x[:3], plan, other=other)
    with pytest.raises(ValueError, match=r"other: expected \[3, 4\].*make a plan with pool=M"):
        mix_(x[:3], plan, other=x)
    with pytest.raises(ValueError, match=r"got \[3, 4\] torch.float64 on cpu$"):
        mix_(x[:3], plan, other=x[3:].double())
    bank = x[3:].clone().requires_grad_()
    with pytest.raises(ValueError, match="other: expected a tensor that does not require grad"):
        mix_(x[:3], plan, other=bank)
    with torch.no_grad():
        mix_(x[:3].clone(), plan, other=bank)
    before = x.clone()
    mix_(x[:3], plan, other=x[3:])
    assert torch.equal(x[:3], 0.5 * before[:3] + 0.5 * before[3:].roll(1, 0))
