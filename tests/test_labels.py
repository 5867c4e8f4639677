"""Labels follow a plan: maps with the pixels, float labels by weight, targets sliced as batches."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, mix_labels, mix_targets
from fused_mixup.arguments import is_host_row

K = 5
PARTNERS = torch.tensor([2, 0, 3, 1])
BOXES = [[0, 0, 4, 4], [1, 2, 8, 6], [0] * 4, [0] * 4]
PLANS = {
    "MixUp": MixPlan.uniform(4, "flip", 0.3),
    "CutMix": MixPlan.uniform(4, "roll", 0.75, (0, 2, 4, 6)),
    "an empty box": MixPlan.uniform(4, "flip", 0.75, (2, 2, 2, 6)),
    "rows cut and rows blended": MixPlan.per_sample([0.7, 0.4, 0.1, 1.0], PARTNERS, BOXES),
    "no permutation": MixPlan.per_sample([0.7, 0.4, 0.1, 1.0], torch.tensor([1, 1, 1, 2]), BOXES),
    "a box over a blend": MixPlan(
        None,
        torch.tensor([[0.4, 0.6]]).expand(4, 2),
        torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(4, 2),
        torch.tensor([[0, 0, 3, 5]], dtype=torch.int32).expand(4, 4),
        "flip",
    ),
}


def partners(plan):
    return plan.partner.long()


def as_images(maps, plan):
    """Mix the one-hot planes of maps as an image: a target of maps must equal them."""
    planes = F.one_hot(maps, K).movedim(-1, 1).float().contiguous()
    return fm.mix(planes, plan)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("sizes", [(8, 8), (3, 8, 8)])
def test_maps_are_mixed_as_the_image_is(name, sizes):
    plan, maps = PLANS[name], torch.randint(K, (4, *sizes))
    before = maps.clone()
    want = as_images(maps, plan)
    target = MixedTarget.from_labels(maps, plan, K)
    torch.testing.assert_close(target.dense(), want, atol=1e-6, rtol=0)
    torch.testing.assert_close(fm.mix_targets(maps, plan, K), want, atol=1e-6, rtol=0)
    assert torch.equal(maps, before)
    logits = torch.randn(want.shape)
    loss = fm.soft_target_cross_entropy(logits, target)
    torch.testing.assert_close(loss, F.cross_entropy(logits, want))


def test_maps_keep_what_is_ignored_and_a_row_on_the_host():
    maps = torch.randint(K, (4, 8, 8))
    maps[:, :2] = 255
    plan = PLANS["CutMix"]
    target = MixedTarget.from_labels(maps, plan, K, ignore_index=255)
    want = maps.clone()
    want[:, :4, 2:6] = maps.roll(1, 0)[:, :4, 2:6]
    assert torch.equal(target.labels, want) and is_host_row(target.weight)
    logits = torch.randn(4, K, 8, 8)
    torch.testing.assert_close(
        fm.soft_target_cross_entropy(logits, target),
        F.cross_entropy(logits, want, ignore_index=255),
    )


def test_labels_of_samples_follow_by_weight_whatever_the_boxes():
    plan, labels = PLANS["CutMix"], torch.arange(4)
    target = MixedTarget.from_labels(labels, plan, K)
    assert torch.equal(target.weight, plan.weight)
    # Several labels of a sample are not a row of pixels if the caller says so.
    sound = MixPlan.uniform(4, "flip", 0.75, (0, 3))
    several = torch.randint(K, (4, 6))
    assert torch.equal(
        MixedTarget.from_labels(several, sound.for_labels(), K).dense(),
        MixedTarget.from_labels(several, MixPlan.uniform(4, "flip", 0.75), K).dense(),
    )
    with pytest.raises(ValueError, match="inside the last 1 dims of labels, \\[2\\]"):
        MixedTarget.from_labels(several[:, :2], sound, K)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 8, 8), (4, 0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_labels_are_blended_by_weight(name, shape, dtype):
    plan, values = PLANS[name], torch.rand(shape).to(dtype)
    w = plan.weight.double().view(4, 2, *[1] * (values.ndim - 1))
    want = values.double() * w[:, 0] + values.double()[partners(plan)] * w[:, 1]
    got = mix_labels(values, plan)
    assert got.dtype == dtype
    torch.testing.assert_close(got, want.to(dtype))


def test_float_labels_have_gradients_and_boxes_of_any_dims():
    values = torch.rand(4, 6, dtype=torch.float64, requires_grad=True)
    for plan in (*PLANS.values(), MixPlan.uniform(4, "flip", 0.75, (0, 3))):
        torch.autograd.gradcheck(lambda y, plan=plan: mix_labels(y, plan), values)
    compiled = torch.compile(mix_labels, backend="aot_eager", fullgraph=True)
    plan = PLANS["rows cut and rows blended"]
    assert torch.equal(compiled(values, plan), mix_labels(values, plan))


def test_labels_that_are_not_floats_are_refused_with_the_remedy():
    plan = PLANS["MixUp"]
    for values in (torch.arange(4), torch.ones(4, 3, dtype=torch.bool), torch.ones(4, 3).byte()):
        with pytest.raises(TypeError, match=r"\.float\(\); class indices: MixedTarget"):
            mix_labels(values, plan)
    with pytest.raises(TypeError, match="got a list of length 2"):
        mix_labels([0.1, 0.2], plan)
    with pytest.raises(ValueError, match=r"values: expected shape \[4, …\] as in plan"):
        mix_labels(torch.rand(3), plan)


# ------------------------------------------------------------------ torch.func


@pytest.mark.parametrize("name", PLANS)
def test_mix_under_torch_func(name):
    plan, x = PLANS[name], torch.rand(3, 4, 2, 8, 8, dtype=torch.float64)
    mixed = torch.stack([fm.mix(one, plan) for one in x])
    torch.testing.assert_close(torch.func.vmap(lambda one: fm.mix(one, plan))(x), mixed)

    def loss(one):
        return (fm.mix(one, plan) ** 3).sum()

    leaf = x[0].clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x[0]), want)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x)[0], want)
    compiled = torch.compile(torch.func.grad(loss), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x[0]), want)
    written = torch.func.vmap(lambda one: fm.mix_(one.clone(), plan))(x)
    torch.testing.assert_close(written, mixed)


# ------------------------------------------------------------------ a target as a batch


def target_of(plan, labels=None, **options):
    labels = torch.arange(8) % K if labels is None else labels
    return MixedTarget.from_labels(labels, plan, K, 0.1, **options)


TARGETS = {
    "one row": target_of(MixPlan.uniform(8, "flip", 0.3)),
    "rows": target_of(MixPlan.per_sample(torch.rand(8), torch.randperm(8))),
    "maps": target_of(MixPlan.uniform(8, "roll", 0.3), torch.randint(K, (8, 2, 3))),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_cut_as_its_labels_are(name):
    target = TARGETS[name]
    dense = target.dense()
    picks = (
        slice(2, 5), slice(None, None, 3), slice(8, None), [0, 3, 3], torch.tensor([7, 0]),
        torch.arange(8) > 5, torch.arange(8).numpy(), torch.zeros(8, dtype=torch.bool),
    )  # fmt: skip
    for pick in picks:
        part = target[pick]
        assert torch.equal(part.dense(), dense[pick]) and part.labels_in_range
        assert part._numbers == target._numbers
        assert is_host_row(part.weight) or name == "rows"
    assert (
        len(target) == 8 == target.size(0) and target.shape == target.size() == target.labels.shape
    )
    assert target.device == torch.device("cpu")
    for cut in (target.split(3), target.split([1, 7]), target.chunk(3), target.chunk(20)):
        assert torch.equal(torch.cat([part.dense() for part in cut]), dense)
    assert [len(part) for part in target.split(3)] == [3, 3, 2]
    copied = target.clone()
    assert copied == target and copied.labels.data_ptr() != target.labels.data_ptr()


def test_cuts_that_are_none_are_refused():
    target = TARGETS["maps"]
    for index in (0, None, "a", (slice(2), 1)):
        with pytest.raises(TypeError, match=r"target\[i : i \+ 1\]"):
            target[index]
    with pytest.raises(IndexError, match="one dim"):
        target[torch.zeros(2, 2, dtype=torch.long)]
    with pytest.raises(TypeError, match="not iterable"):
        list(target)


def test_a_target_moves_and_keeps_its_dtypes():
    target = TARGETS["rows"]
    for same in (
        target.to("cpu"), target.cpu(), target.to(torch.float16), target.to(dtype=torch.bfloat16),
        target.to("cpu", non_blocking=True), pickle.loads(pickle.dumps(target)),
        copy.copy(target),
    ):  # fmt: skip
        assert same == target and same.weight.dtype == torch.float32
    moved = target.to("meta")
    assert {t.device.type for t in (moved.labels, moved.partner_labels, moved.weight)} == {"meta"}
    assert target != TARGETS["one row"] and target != 3 and "num_classes=5" in repr(target)


def test_labels_that_were_written_to_are_looked_at_again():
    target = target_of(MixPlan.uniform(8, "flip", 0.3))
    assert target.labels_in_range
    target.labels[0] = -100
    assert not target.labels_in_range
    target.partner_labels[1] = K
    with pytest.raises(IndexError, match="got 5"):
        _ = target.labels_in_range


def test_labels_of_another_tensor_are_not_taken_from_the_batch() -> None:
    plan = MixPlan.uniform(2, torch.tensor([5, 1]), 0.5, pool=6)
    labels = torch.tensor([0, 1])
    for mixed in (
        lambda: MixedTarget.from_labels(labels, plan, 3),
        lambda: mix_targets(labels, plan, 3),
        lambda: mix_labels(torch.rand(2, 3), plan),
    ):
        with pytest.raises(ValueError, match="plan: expected partners among the batch.*pool=6; "):
            mixed()
