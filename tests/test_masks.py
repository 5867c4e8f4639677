"""Mixing by masks: kernels against the reference, the rule against plain PyTorch, and MixMask."""

from __future__ import annotations

import random

import pytest
import torch
from comparing import same_bits
from mask_cases import ROUGH, pool_calls, random_calls

import fused_mixup as fm
from fused_mixup import MixPlan, ops, reference
from fused_mixup.codes import FLIP, MASK_INVERT, MASK_SEPARABLE, MASK_SIGMOID, MASK_STORED, SELF
from fused_mixup.masks import MixMask
from fused_mixup.reference.masks import upsample

HALF = torch.full((1,), 0.5)


def code_of(*values):
    return torch.tensor(values, dtype=torch.int32)


def stored(map, interpolation="nearest", code=MASK_STORED):
    return MixMask(
        code_of(*[code] * len(map)), HALF.expand(len(map)), None, None, map, interpolation
    )


def agree(got, expected, rough, what):
    if rough:
        bound = ROUGH[got.dtype]
        torch.testing.assert_close(got, expected, rtol=bound, atol=bound, equal_nan=True)
    else:
        assert same_bits(got, expected), what


# ------------------------------------------------------------------ kernels


def compare(count, seed):
    rng = random.Random(seed)
    for call in random_calls(count, seed):
        args = *call.plan, *call.mask
        expected = reference.mix_masked(call.x, *args)
        got = ops.mix_masked(call.x, *args)
        assert got.stride() == torch.empty_like(call.x).stride()
        agree(got, expected, call.rough, call.what)
        *pool, out = pool_calls(call, rng)
        into = out.clone()
        reference.mix_masked_out(*pool, into)
        ops.mix_masked_out(*pool, out)
        agree(out, into, call.rough, (call.what, "pool"))
        if call.plan[3] in (FLIP, SELF):
            ops.mix_masked_(call.x, *args)
            agree(call.x, expected, call.rough, (call.what, "in place"))
        height, width = call.x.shape[-2:]
        if height:
            mean = ops.mask_mean(*call.mask, height, width)
            want = reference.mask_mean(*call.mask, height, width)
            agree(mean, want, call.rough, (call.what, "mean"))


def test_the_kernels_give_the_bits_of_the_reference():
    compare(120, 1)


@pytest.mark.proof
def test_the_kernels_give_the_bits_of_the_reference_often():
    compare(3000, 2)


def test_the_backward_is_the_transpose():
    floats = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    bounds = dict(zip(floats, (1e-5, 4e-6, 1e-2, 6e-2), strict=True))
    for call in random_calls(60, 3, floats):
        got = ops.mix_masked_backward(*call.backward(call.x))
        truth = reference.mix_masked_backward(*call.backward(call.x.double()))
        bound = bounds[call.x.dtype]
        torch.testing.assert_close(got.double(), truth, rtol=bound, atol=bound, equal_nan=True)


@pytest.mark.parametrize("pairing", ["flip", [1, 1, 0]])
def test_gradients_of_first_and_second_order(backend, pairing):
    partner = pairing if isinstance(pairing, str) else torch.tensor(pairing)
    mask = stored(torch.rand(3, 2, 2), "bilinear")
    plan = MixPlan.uniform(3, partner, 0.3, [1, 2, 3, 3]).with_mask(mask)
    x = torch.rand(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    bank = torch.rand(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    for mix in (lambda x: fm.mix(x, plan), lambda x: fm.mix(x, plan, other=bank, clean=True)):
        assert torch.autograd.gradcheck(mix, x)
    assert torch.autograd.gradgradcheck(lambda x: fm.mix(x, plan), x)
    assert torch.autograd.gradcheck(lambda other: fm.mix(x.detach(), plan, other=other), bank)


# ------------------------------------------------------------------ the rule


def test_a_constant_mask_is_a_blend(backend):
    x, lam = torch.rand(6, 3, 9, 11), 0.3125
    plan = MixPlan.uniform(6, "roll", lam)
    masked = plan.with_mask(stored(torch.full((1, 1, 1), lam)))
    assert torch.equal(fm.mix(x, masked), fm.mix(x, plan))


def test_a_mask_of_a_rectangle_is_a_box(backend):
    x = torch.rand(6, 3, 9, 11)
    inside = torch.zeros(1, 9, 11, dtype=torch.bool)
    inside[:, 2:7, 3:9] = True
    boxes = MixPlan.uniform(6, "flip", 0.5, [2, 3, 7, 9])
    for mask in (
        stored(inside, code=MASK_STORED + MASK_INVERT),
        MixMask(
            code_of(MASK_SEPARABLE + MASK_INVERT),
            HALF,
            inside.any(2)[:, None].float(),
            inside.any(1)[:, None].float(),
        ),
    ):
        plan = MixPlan.uniform(6, "flip", 0.5).with_mask(mask)
        assert torch.equal(fm.mix(x, plan), fm.mix(x, boxes))
        assert torch.equal(fm.mix_(x.clone(), plan), fm.mix(x, boxes))
        assert mask.mean((9, 11)).item() == pytest.approx(1 - 30 / 99, abs=1e-7)


@pytest.mark.parametrize("pairing", ["flip", "roll", "self"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rule_is_the_plain_line(backend, pairing, dtype):
    x, m = torch.randn(5, 3, 12, 10, dtype=dtype), torch.rand(5, 12, 10)
    plan = MixPlan.uniform(5, pairing, 1.0).with_mask(stored(m))
    share, partner = m[:, None], x[plan.partner.long()]
    expected = share * x + (1 - share) * partner
    assert torch.equal(fm.mix(x, plan), expected)
    assert torch.equal(fm.mix_(x.clone(), plan), expected)
    assert torch.equal(fm.mix(x, plan, out=torch.empty_like(x)), expected)
    both = fm.mix(x, plan, clean=True)
    assert torch.equal(both[:5], x) and torch.equal(both[5:], expected)


def test_what_is_not_shown_stays_out(backend):
    x = torch.rand(2, 1, 4, 6)
    x[1] = torch.nan
    m = torch.zeros(1, 4, 6, dtype=torch.bool)
    m[:, :, :3] = True
    mixed = fm.mix(x, MixPlan.uniform(2, "flip", 1.0).with_mask(stored(m)))
    assert torch.equal(mixed[0].isnan(), ~m)
    assert torch.equal(mixed[1].isnan(), m)


def test_partners_come_from_another_tensor(backend):
    x, bank = torch.rand(3, 2, 4, 5), torch.rand(7, 2, 4, 5)
    index = torch.tensor([6, 0, 6])
    plan = MixPlan.uniform(3, index, 0.25, pool=7)
    assert torch.equal(fm.mix(x, plan, other=bank), 0.25 * x + 0.75 * bank[index])
    both = fm.mix(x.to(memory_format=torch.channels_last), plan, other=bank, clean=True)
    assert torch.equal(both, torch.cat((x, 0.25 * x + 0.75 * bank[index])))
    flip = MixPlan.uniform(3, "flip", 0.25)
    assert torch.equal(fm.mix(x, flip, other=bank[:3]), 0.25 * x + 0.75 * bank[:3].flip(0))


def test_class_maps_take_the_larger_share(backend):
    labels, m = torch.arange(2 * 4 * 6).view(2, 4, 6), torch.rand(2, 4, 6)
    m[0, 0, 0] = 0.5  # a tie is the sample's own
    plan = MixPlan.uniform(2, "flip", 0.5, [1, 1, 2, 2]).with_mask(stored(m))
    expected = torch.where(m < 0.5, labels.flip(0), labels)
    expected[:, 1, 1] = labels.flip(0)[:, 1, 1]
    assert torch.equal(fm.paste_(labels.clone(), plan), expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (14, 14), (30, 41), (50, 60)])
def test_maps_are_sampled_as_interpolate_does(interpolation, size):
    m = torch.rand(2, *size)
    got = upsample(m, 31, 40, interpolation == "bilinear")
    expected = torch.nn.functional.interpolate(m[:, None], (31, 40), mode=interpolation)[:, 0]
    exact = 0 if interpolation == "nearest" else 1e-6
    torch.testing.assert_close(got, expected, rtol=exact, atol=exact)


def test_a_sigmoid_follows_the_sampling(backend):
    logits = torch.randn(2, 3, 3) * 3
    mask = stored(logits, "bilinear", MASK_STORED + MASK_SIGMOID + MASK_INVERT)
    large = torch.nn.functional.interpolate(logits[:, None], (24, 24), mode="bilinear")
    torch.testing.assert_close(mask.dense((24, 24)), 1 - large.sigmoid(), rtol=1e-5, atol=1e-6)
    x = torch.rand(2, 1, 24, 24)
    mixed = fm.mix(x, MixPlan.uniform(2, "flip", 1.0).with_mask(mask))
    share = 1 - large.sigmoid()
    torch.testing.assert_close(mixed, share * x + (1 - share) * x.flip(0))


def test_means_are_exact_in_any_order(backend):
    m = torch.rand(3, 40, 50)
    whole = (m.double() * 2**24).round().sum((1, 2)) / 2**24 / 2000
    assert torch.equal(stored(m).mean((40, 50)), whole.float())


# ------------------------------------------------------------------ compile


def test_compiled_without_recompiling(backend):
    def step(x, plan):
        mixed = fm.mix(x, plan)
        return mixed, plan.mask.mean(x.shape[-2:])

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    x = torch.rand(4, 3, 8, 8)
    for seed in range(3):
        torch.manual_seed(seed)
        plan = MixPlan.uniform(4, "flip", 1.0).with_mask(stored(torch.rand(4, 2, 2)))
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            got = compiled(x, plan)
        assert all(map(torch.equal, got, step(x, plan)))


# ------------------------------------------------------------------ labels


def test_class_maps_of_a_target_are_cut_by_the_mask(backend):
    labels, m = torch.randint(0, 9, (2, 4, 6)), torch.rand(2, 4, 6)
    plan = MixPlan.uniform(2, "flip", 0.3).with_mask(stored(m))
    target = fm.MixedTarget.from_labels(labels, plan, 9)
    shown = torch.where(m < 0.5, labels.flip(0), labels)
    assert torch.equal(target.dominant, shown)
    expected = torch.nn.functional.one_hot(shown, 9).movedim(-1, 1).float()
    assert torch.equal(target.dense(), expected)
    classes = fm.MixedTarget.from_labels(labels[:, 0, 0], plan, 9)
    assert torch.equal(classes.weight, plan.weight)


def test_weights_of_what_is_seen():
    plan = MixPlan.uniform(2, "flip", 0.3).with_mask(stored(torch.tensor([[[1.0, 0.0]]])))
    seen = plan.with_weight(plan.mask.mean((4, 6)))
    assert torch.equal(seen.weight, torch.full((2, 2), 0.5)) and seen.mask == plan.mask


# ------------------------------------------------------------------ what is refused


def test_what_is_refused():
    mask, plan = stored(torch.rand(1, 2, 2)), MixPlan.uniform(3, "flip", 0.3)
    masked, pooled = plan.with_mask(mask), MixPlan.uniform(3, torch.tensor([6, 0, 1]), 0.3, pool=7)
    x, images = torch.rand(3, 2, 4, 6), torch.zeros(3, 3, 4, 6, dtype=torch.uint8)
    rows, signal = torch.rand(1, 5, 4), MixPlan.uniform(3, "flip", 0.3, [1, 2])
    boxes = torch.zeros(3, 1, 4)
    for error, text, call in (
        (ValueError, r"numbers in \[0, 1\]", lambda: stored(torch.full((1, 1, 1), 2.0))),
        (ValueError, "numbers, got NaN", lambda: stored(torch.full((1, 2, 2), torch.nan))),
        (ValueError, "divide bytes by 255", lambda: stored(images[:1, 0] + 200)),
        (ValueError, "R from 1 to 4", lambda: MixMask(code_of(1), HALF, rows, rows)),
        (ValueError, "rows: expected a tensor", lambda: MixMask(code_of(1), HALF)),
        (ValueError, "code: expected form", lambda: MixMask(code_of(32), HALF)),
        (TypeError, "map: expected bool, uint8", lambda: stored(torch.zeros(1, 2, 2).long())),
        (TypeError, "mask: expected a MixMask", lambda: plan.with_mask(torch.rand(3))),
        (ValueError, "expected 3 samples or one", lambda: plan.with_mask(mask.expand(2))),
        (ValueError, "boxes have 2 dims", lambda: signal.with_mask(mask)),
        (ValueError, r"\[B, …, H, W\]", lambda: fm.mix(x[:, 0, 0], masked)),
        (ValueError, "without a mask", lambda: fm.mix_samples(list(x), masked)),
        (ValueError, "without a mask", lambda: fm.mix_boxes(boxes, None, masked, (4, 6))),
        (ValueError, "without a mask", lambda: fm.mix_normalize(images, masked, mean=0, std=1)),
        (ValueError, "other: expected the 7 samples", lambda: fm.mix(x, pooled, clean=True)),
        (ValueError, "other: expected", lambda: fm.mix(x, pooled, other=x)),
        (ValueError, "mix\\(x, plan, other=", lambda: fm.mix_(x, pooled)),
        (ValueError, "pool: expected at least 3", lambda: MixPlan.uniform(3, "flip", 0.3, pool=2)),
        (IndexError, r"\[0, 7\)", lambda: MixPlan.uniform(1, torch.tensor([7]), 0.3, pool=7)),
        (ValueError, "out: expected memory of its own", lambda: fm.mix(x, plan, x, other=x)),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            call()
    sized = MixMask(code_of(1), HALF, torch.rand(1, 1, 4), torch.rand(1, 1, 6))
    with pytest.raises(ValueError, match="use plan.resize"):
        fm.mix(torch.rand(3, 8, 12), plan.with_mask(sized))
    large = plan.with_mask(sized).resize((4, 6), (8, 12))
    assert fm.mix(torch.rand(3, 8, 12), large).shape == (3, 8, 12)
