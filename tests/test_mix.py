"""mix_, mix, paste_: values against the rule sample by sample, layouts, gradients, memory."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from cases import (
    BLENDABLE,
    FLOATS,
    GRID,
    layouts,
    mix_by_hand,
    mixed_by_hand,
    plans,
    random_boxes,
    values,
)

import fused_mixup as fm
from fused_mixup import MixPlan


def to_device(plan, device):
    return plan if device == "cpu" else plan.to(device)


def thin(device, every, first, pairs):
    """Take one of ``every`` ``pairs`` for Triton on a GPU, which compiles a kernel for nearly each.

    A quarter of a second each would make a quarter of an hour. ``first`` moves the choice along, so
    that over a test each plan is taken, and each layout.
    """
    if device == "cuda" and fm.backends.chosen("CUDA") == "triton":
        return itertools.islice(pairs, first % every, None, every)
    return pairs


@pytest.mark.parametrize("dtype", BLENDABLE, ids=str)
def test_all_plans_shapes_and_batches(device, dtype):
    for turn, (batch_size, shape) in enumerate(GRID):
        x, mixed = mixed_by_hand(batch_size, tuple(shape), dtype)
        for name, plan, expected in thin(device, 4, turn, mixed):
            plan = to_device(plan, device)
            got = x.to(device, copy=True)
            assert fm.mix_(got, plan) is got
            assert torch.equal(got.cpu(), expected), f"mix_ {batch_size} {shape} {name}"
            got = fm.mix(x.to(device), plan)
            assert torch.equal(got.cpu(), expected), f"mix {batch_size} {shape} {name}"


# 22 samples of 1 MiB are written past the caches of a CPU.
@pytest.mark.parametrize(
    ("dtype", "sample_bytes"),
    [*((dtype, 280) for dtype in BLENDABLE), (torch.bfloat16, 1 << 20), (torch.uint8, 1 << 20)],
    ids=str,
)
def test_pairs_cycles_and_chains_of_rows(device, dtype, sample_bytes):
    ring, pairs = [1, 2, 3, 4, 5, 6, 7, 8, 0], [10, 9, 12, 11]
    alone_and_into_the_ring = [13, 13, 14, 15, 16, 17, 18, 0, 9]
    partner = torch.tensor(ring + pairs + alone_and_into_the_ring, dtype=torch.int32)
    lam = torch.linspace(0.03, 0.97, len(partner), dtype=torch.float64)
    lam[[2, 7, 12]] = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    plan = MixPlan.per_sample(lam, partner)
    x = values((len(partner), sample_bytes // dtype.itemsize + 3), dtype)
    expected = mix_by_hand(x, plan)
    plan, got = to_device(plan, device), x.to(device)
    assert torch.equal(fm.mix(got, plan).cpu(), expected)
    assert torch.equal(fm.mix_(got, plan).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8], ids=str)
@pytest.mark.parametrize("shape", [[3, 7, 5], [3, 20, 33], [2, 3, 4, 5]], ids=str)
def test_memory_layouts(device, dtype, shape):
    x, mixed = mixed_by_hand(5, tuple(shape), dtype)
    for turn, (plan_name, plan, expected) in enumerate(mixed):
        plan = to_device(plan, device)
        for name, view in thin(device, 7, turn, layouts(x.to(device))):
            got = fm.mix(view, plan)
            assert torch.equal(got.cpu(), expected), f"mix {plan_name} {name}"
            assert got.stride() == torch.empty_like(view).stride()
            out = torch.empty((*x.shape[1:], 5), dtype=dtype, device=device).movedim(-1, 0)
            assert fm.mix(view, plan, out=out) is out
            assert torch.equal(out.cpu(), expected), f"mix out {plan_name} {name}"
            fm.mix_(view, plan)
            assert torch.equal(view.cpu(), expected), f"mix_ {plan_name} {name}"


def test_writes_nothing_beside_a_view(device):
    whole = values((6, 3, 8, 12), torch.float32, device)
    before = whole.clone()
    view = whole[1:5, :, 2:7, 3:11]
    fm.mix_(view, MixPlan.uniform(4, "roll", 0.5))
    fm.mix_(view, MixPlan.uniform(4, torch.tensor([2, 0, 3, 1], device=device), 0.5, [0, 0, 5, 8]))
    view.copy_(before[1:5, :, 2:7, 3:11])
    assert torch.equal(whole, before)


def test_float32_equals_eager_bit_for_bit(device):
    x = torch.randn(64, 3, 32, 32, device=device)
    partner = torch.randperm(64, device=device)
    for lam in torch.rand(50).tolist():
        expected = x * lam + x[partner] * (1 - lam)
        got = fm.mix_(x.clone(), MixPlan.uniform(64, partner, lam))
        assert torch.equal(got.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_nearer_the_truth_than_eager(device, dtype):
    x = torch.randn(16, 1000, dtype=torch.float64).to(dtype).to(device)
    lam = 0.3712
    truth = x.double() * lam + x.flip(0).double() * (1 - lam)
    eager = x * lam + x.flip(0) * (1 - lam)
    got = fm.mix(x, MixPlan.uniform(16, "flip", lam))
    error, eager_error = ((t.double() - truth).abs() for t in (got, eager))
    assert error.max() <= eager_error.max() and error.mean() < eager_error.mean()
    ulp = truth.abs() * torch.finfo(dtype).eps / 2
    assert (error <= ulp * 1.001 + 1e-7).all()  # one rounding errs by half a unit in the last place


def test_uint8_rounds_half_to_even(device):
    x = torch.tensor([[0, 1, 2, 3, 254, 255], [1, 2, 3, 4, 255, 254]], dtype=torch.uint8)
    got = fm.mix(x.to(device), MixPlan.uniform(2, "flip", 0.5))
    assert got[0].tolist() == [0, 2, 2, 4, 254, 254]


@pytest.mark.parametrize(("weights", "own"), [((0.5, 0.0), True), ((0.0, 0.5), False)])
def test_one_weight_of_zero_drops_its_term(device, weights, own):
    x = torch.ones(4, 600, device=device)
    x[0 if own else 3] = math.inf  # its terms with a weight of zero would be NaN
    partner = torch.tensor([1, 0, 0, 0], dtype=torch.int32, device=device)
    blend = torch.tensor([weights], dtype=torch.float64, device=device).repeat(4, 1)
    box = torch.zeros(4, 2, dtype=torch.int32, device=device)
    plan = MixPlan(partner, blend.float(), blend, box)
    want = x * 0.5 if own else x[partner.long()] * 0.5
    for got in (fm.mix(x, plan), fm.mix_(x.clone(), plan)):
        assert torch.equal(got, want)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_of_zero_drops_its_term(device, bad):
    x = torch.ones(4, 600, device=device)
    x[3] = bad
    lam = torch.tensor([1.0, 0.5, 1.0, 0.0], device=device)
    plan = MixPlan.per_sample(lam, "flip")
    for got in (fm.mix(x, plan), fm.mix_(x.clone(), plan)):
        assert (got == 1).all()
    assert (fm.mix_(x[:3].clone(), MixPlan.identity(3)) == 1).all()


def test_special_values_pass_through_a_paste(device):
    bits = torch.randint(-(2**31), 2**31 - 1, (4, 3, 9, 11), dtype=torch.int32, device=device)
    x = bits.view(torch.float32)
    plan = MixPlan.uniform(4, "roll", 0.5, [2, 3, 9, 8])
    expected = bits.clone()
    expected[:, :, 2:9, 3:8] = bits.roll(1, 0)[:, :, 2:9, 3:8]
    assert torch.equal(fm.mix(x, plan).view(torch.int32), expected)
    fm.mix_(x, plan)
    assert torch.equal(bits, expected)


def test_a_lam_that_is_zero_in_float32_drops_its_term(device):
    x = torch.ones(2, 40, device=device)
    x[1] = math.inf
    for plan in (MixPlan.uniform(2, "flip", 1e-60), MixPlan.uniform(2, "roll", 1e-46)):
        got = fm.mix_(x.clone(), plan)
        assert torch.equal(got, x.flip(0))
        assert torch.equal(fm.mix(x, plan), got)


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64]
    + [torch.complex128, torch.float8_e4m3fn, *BLENDABLE],
    ids=str,
)
def test_paste_moves_any_dtype(device, dtype):
    for shape in ([3, 20, 33], [17], [2, 3, 4, 5]):
        x = (torch.randn(5, *shape) * 50).to(dtype)
        bits = x.view(torch.uint8) if dtype.itemsize == 1 else x
        for name, plan in plans(5, shape):
            if plan.blends:
                continue
            expected = bits.clone()
            for i in range(5):
                box, d = plan.box[i].tolist(), plan.spatial_dims
                if d:
                    at = (..., *(slice(a, b) for a, b in zip(box[:d], box[d:], strict=True)))
                    expected[i][at] = bits[int(plan.partner[i])][at]
            got = x.to(device, copy=True)
            assert fm.paste_(got, to_device(plan, device)) is got
            got = got.cpu().view(torch.uint8) if dtype.itemsize == 1 else got.cpu()
            assert torch.equal(got, expected), f"{shape} {name}"


def test_large_batch(device):
    x = torch.randn(5000, 3, 4, 5)
    lam = torch.rand(5000)
    for partner in (torch.randperm(5000), torch.randint(0, 5000, (5000,))):
        plan = MixPlan.per_sample(lam, partner, random_boxes(5000, [4, 5]), lam < 0.5)
        expected = mix_by_hand(x, plan)
        got = fm.mix_(x.to(device, copy=True), to_device(plan, device))
        assert torch.equal(got.cpu(), expected)


@pytest.mark.parametrize("shape", [[0], [3, 0, 5], [3, 4, 0]], ids=str)
def test_dims_of_size_zero(device, shape):
    x = torch.empty(4, *shape, device=device)
    assert fm.mix(x, MixPlan.uniform(4, "flip", 0.5)).shape == x.shape
    fm.mix_(x, MixPlan.uniform(4, "roll", 0.5))
    fm.paste_(x, MixPlan.uniform(4, "roll", 0.5, [0] * 2))


def test_batch_of_scalars(device):
    x = torch.arange(5.0, device=device)
    got = fm.mix(x, MixPlan.uniform(5, "flip", 0.25))
    assert torch.equal(got, x * 0.25 + x.flip(0) * 0.75)


def test_uniform_plan_on_the_host_serves_every_device(device):
    x = torch.randn(6, 3, 8, 8, device=device)
    plan = MixPlan.uniform(6, "flip", 0.3, [1, 2, 5, 7])
    moved = fm.mix(x, plan.to(device))
    assert torch.equal(fm.mix(x, plan), moved)


# ------------------------------------------------------------------ gradients


def gradient_plans(batch_size, device):
    for name, plan in plans(batch_size, [2, 3, 4]):
        yield name, to_device(plan, device)


def test_gradcheck_and_gradgradcheck(device):
    x = torch.randn(3, 2, 3, 4, dtype=torch.float64, device=device, requires_grad=True)
    # On a GPU the reference sums with index_add_, in an order that changes from run to run.
    options = {"fast_mode": True, "nondet_tol": 0.0 if device == "cpu" else 1e-12}
    for _, plan in gradient_plans(3, device):
        assert torch.autograd.gradcheck(lambda t, p=plan: fm.mix(t, p), x, **options)
        assert torch.autograd.gradgradcheck(lambda t, p=plan: fm.mix(t, p), x, **options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 2, 7, 33])
def test_backward_is_the_transpose(device, dtype, batch_size):
    shape = [3, 20, 33] if batch_size < 33 else [3, 7, 5]
    g = values((batch_size, *shape), dtype)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    for turn, (name, plan) in enumerate(plans(batch_size, shape)):
        x = torch.zeros((batch_size, *shape), dtype=torch.float64, requires_grad=True)
        mask = torch.zeros_like(x, dtype=torch.bool)
        d = plan.spatial_dims
        for i in range(batch_size):
            box = plan.box[i].tolist()
            if d:
                at = (..., *(slice(a, b) for a, b in zip(box[:d], box[d:], strict=True)))
                mask[i][at] = True
        w = plan.blend.to(acc).double().view(batch_size, 2, *[1] * len(shape))
        other = x[plan.partner.long()]
        out = torch.where(mask, other, w[:, 0] * x + w[:, 1] * other)
        (expected,) = torch.autograd.grad(out, x, g.double())
        for layout, grad in thin(device, 7, turn, layouts(g.to(device))):
            leaf = torch.zeros(g.shape, dtype=dtype, device=device, requires_grad=True)
            y = fm.mix(leaf, to_device(plan, device))
            (got,) = torch.autograd.grad(y, leaf, grad)
            # Each product is rounded in the arithmetic type, up to B are summed, and the sum is
            # rounded to the dtype.
            error = (got.cpu().double() - expected).abs()
            count = torch.bincount(plan.partner.long(), minlength=batch_size).max().item() + 1
            bound = torch.finfo(dtype).eps * expected.abs()
            bound = bound + torch.finfo(acc).eps * count * g.double().abs().max() * count
            assert (error <= bound).all(), f"{name} {layout}"


def test_unused_infinite_gradient_does_not_leak(device):
    x = torch.ones(2, 3, requires_grad=True, device=device)
    y = fm.mix(x, MixPlan.per_sample(torch.tensor([1.0, 1.0]), "flip").to(device))
    (grad,) = torch.autograd.grad(y, x, torch.tensor([[math.inf] * 3, [1.0] * 3], device=device))
    assert grad[1].tolist() == [1.0] * 3


# ------------------------------------------------------------------ memory


def test_mix_in_place_takes_no_copy_of_the_batch(extra_memory):
    x = torch.randn(64, 3, 96, 96)
    assert extra_memory(lambda: x.clone()) == 6.75 * 2**20  # a copy would need this much
    permutation = MixPlan.uniform(64, torch.randperm(64), 0.3)
    anything = MixPlan.per_sample(torch.rand(64), torch.randint(0, 64, (64,)))
    box = MixPlan.uniform(64, "roll", 0.5, [10, 10, 90, 90])
    for plan in (MixPlan.uniform(64, "flip", 0.3), permutation, anything, box):
        assert extra_memory(lambda p=plan: fm.mix_(x, p)) < 2**20
