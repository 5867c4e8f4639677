"""Codes of masks that no check compares with the tensors that are there: changed after it was made,
and those of a form that is none. Kernels take 0 for a sum whose tensors are missing."""

from __future__ import annotations

import pytest
import torch
from comparing import same_bits

import fused_mixup as fm
from fused_mixup import MixPlan, reference
from fused_mixup.codes import (
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
    MASK_STORED,
    MASK_THRESHOLD,
)
from fused_mixup.masks import MixMask

B, H, W = 4, 6, 9


def mask_of(kind, shared, interpolation="nearest"):
    """A mask of one form, for all samples or for each."""
    rows = 1 if shared else B
    code = torch.full((rows,), {"rows": MASK_SEPARABLE, "map": MASK_STORED}.get(kind, 0)).int()
    tensors = {"rows": torch.rand(rows, 2, H) / 2, "columns": torch.rand(rows, 2, W)}
    if kind == "map":
        tensors = {"map": torch.rand(rows, 3, 4)}
    if kind == "none":
        tensors = {}
    mask = MixMask(code, torch.zeros(rows), **tensors, interpolation=interpolation)
    return mask.expand(B)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["rows", "map", "none"])
def test_any_code_is_safe(backend, kind, shared, interpolation):
    plan = MixPlan.uniform(B, "flip", 0.3)
    for form in (0, MASK_SEPARABLE, MASK_STORED, MASK_SEPARABLE + MASK_STORED):
        for function in (0, MASK_THRESHOLD, MASK_INVERT, MASK_INVERT + MASK_THRESHOLD):
            mask = mask_of(kind, shared, interpolation)
            (mask.code[:1] if shared else mask.code).fill_(form + function)
            x = torch.rand(B, 3, H, W, requires_grad=True)
            mixed = fm.mix(x, plan.with_mask(mask))
            m = mask.dense((H, W))
            with fm.backend("reference"):
                truth = mask.dense((H, W))
                expected = fm.mix(x, plan.with_mask(mask))
            assert same_bits(m, truth) and same_bits(mixed.detach(), expected.detach())
            torch.testing.assert_close(mask.mean((H, W)), truth.mean((1, 2, 3)))
            (grad,) = torch.autograd.grad(mixed.sum(), x)
            torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), x)[0])
            given = x.detach().clone()
            assert same_bits(fm.mix_(given, plan.with_mask(mask)), expected.detach())


def test_the_parity_of_a_sum_that_no_integer_holds(backend):
    sums = torch.tensor([3e9, -3e9, 2.0**24 + 2, 7.0])
    code = torch.full((4,), MASK_SEPARABLE + MASK_PARITY, dtype=torch.int32)
    mask = MixMask(code, torch.zeros(4), sums.view(4, 1, 1), torch.ones(4, 1, 1))
    assert mask.dense((1, 1)).flatten().tolist() == [0, 0, 0, 1]
    assert mask.mean((1, 1)).tolist() == [0, 0, 0, 1]


def test_a_map_larger_than_a_float_counts_is_refused():
    map = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(1, 1, 2**24)
    code, threshold = torch.tensor([MASK_STORED], dtype=torch.int32), torch.zeros(1)
    with pytest.raises(ValueError, match="map: expected .* sides from 1 to 16,777,215"):
        MixMask(code, threshold, map=map)
    args = code, threshold, None, None, map, 0, 4, 4
    for mask_mean in (torch.ops.fused_mixup.mask_mean, reference.mask_mean):
        with pytest.raises((RuntimeError, ValueError), match="map: expected"):
            mask_mean(*args)
