"""Class maps, which keep their width: the bounds of their labels, and their targets."""

from __future__ import annotations

import pytest
import torch

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, ops, reference
from fused_mixup.codes import NO_IGNORE
from fused_mixup.target.checks import MAP_DTYPES

dtypes = pytest.mark.parametrize("dtype", MAP_DTYPES, ids=str)


def maps_of(dtype, shape, low=0, high=100, seed=0):
    pick = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=pick).to(dtype)


@dtypes
def test_bounds_of_labels_that_are_not_ignored(dtype):
    signed = dtype != torch.uint8
    for shape in ((0,), (1,), (7, 3), (2, 257, 131)):
        for ignored in (NO_IGNORE, -100, -1, 3, 255, 2**40):
            labels = maps_of(dtype, shape, -50 if signed else 0, 100)
            if labels.numel():
                labels.view(-1)[::3] = 255 if ignored == 255 and dtype != torch.int8 else 3
            kept = [y for y in labels.flatten().tolist() if y != ignored]
            expected = [min(kept), max(kept)] if kept else [0, -1]
            assert ops.label_bounds(labels, ignored).tolist() == expected
            assert reference.label_bounds(labels, ignored).tolist() == expected
    whole = maps_of(dtype, (64, 64))
    for view in (whole.t(), whole[::2, 1:], whole[:, :1].expand(64, 9)):
        assert torch.equal(ops.label_bounds(view, 3), reference.label_bounds(view, 3))
    low = max(torch.iinfo(dtype).min, NO_IGNORE + 1)
    ends = torch.tensor([low, torch.iinfo(dtype).max], dtype=dtype)
    assert ops.label_bounds(ends, NO_IGNORE).tolist() == ends.tolist()
    assert ops.label_bounds(ends[:1], int(ends[0])).tolist() == [0, -1]


@dtypes
def test_a_target_of_any_width_is_that_of_int64(dtype):
    k = 5
    wide = maps_of(torch.int64, (4, 3, 6), 0, k)
    wide[:, 0] = 100
    plan = MixPlan.per_sample(
        torch.tensor([0.3, 0.6, 0.5, 0.9]),
        torch.tensor([2, 0, 3, 1]),
        [[0, 1, 2, 4]] * 4,
        [True, False, True, False],
    )
    expected = MixedTarget.from_labels(wide, plan, k, 0.1, 100)
    got = MixedTarget.from_labels(wide.to(dtype), plan, k, 0.1, 100)
    assert got.labels.dtype == got.partner_labels.dtype == dtype
    assert torch.equal(got.dense(), expected.dense())
    assert torch.equal(got.dominant.long(), expected.dominant)
    logits = torch.randn(4, k, 3, 6, requires_grad=True)
    for loss in (
        lambda t: fm.soft_target_cross_entropy(logits, t),
        lambda t: fm.soft_target_cross_entropy(logits, t, return_accuracy=(1, 2))[1][1],
        lambda t: fm.mixed_accuracy(logits, t)[0],
    ):
        assert torch.equal(loss(got), loss(expected))
    weights = logits.movedim(1, -1).detach()[..., :2], torch.randn(k, 2)
    assert torch.equal(
        fm.linear_soft_target_cross_entropy(*weights, None, got),
        fm.linear_soft_target_cross_entropy(*weights, None, expected),
    )
    kept = MixedTarget.from_labels(wide[:, 1:].to(dtype), plan, k)
    assert torch.equal(
        fm.soft_target_binary_cross_entropy(logits[:, :, 1:], kept),
        fm.soft_target_binary_cross_entropy(
            logits[:, :, 1:], MixedTarget.from_labels(wide[:, 1:], plan, k)
        ),
    )
    for same in (got[1:3], got.split(2)[0], got.clone(), got.to("cpu")):
        assert same.labels.dtype == dtype
    with pytest.raises(IndexError, match=r"in \[0, 5\) or 7, which is ignored, got 100"):
        MixedTarget.from_labels(wide.to(dtype), plan, k, ignore_index=7)


def test_labels_of_samples_are_int64():
    plan = MixPlan.identity(3)
    with pytest.raises(TypeError, match=r"int64.*uint8; use .long\(\)"):
        MixedTarget.from_labels(torch.zeros(3, dtype=torch.uint8), plan, 5)
    for wrong in (torch.zeros(3, 2, dtype=torch.bool), torch.zeros(3, 2)):
        with pytest.raises(TypeError, match="int64"):
            MixedTarget.from_labels(wrong, plan, 5)
    one = torch.zeros(3, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"partner_labels: expected a torch.uint8 tensor"):
        MixedTarget(one, one.long(), torch.ones(3, 2), 5)
