"""A plan checks the values of given, overwritten, compiled and fake tensors; it is immutable."""

from __future__ import annotations

import copy
import dataclasses
import io

import pytest
import torch

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, cutmix_box, mix


def test_a_plan_does_not_change_with_the_tensor_it_was_made_from():
    partner = torch.tensor([1, 2, 0], dtype=torch.int32)
    plan = MixPlan.uniform(3, partner, 0.5)
    partner.fill_(1)
    assert plan.partner.tolist() == [1, 2, 0]


def test_a_plan_of_given_tensors_is_checked():
    plan = MixPlan.uniform(3, "flip", 0.5)
    rows = plan.weight, plan.blend, plan.box
    with pytest.raises(TypeError, match="partner"):
        MixPlan(torch.arange(3), *rows, "flip")
    with pytest.raises(ValueError, match="blend: expected 3 rows"):
        MixPlan(None, plan.weight, plan.blend[:2], plan.box, "flip")
    with pytest.raises(ValueError, match="what pairing 'flip' says, .* for sample 0"):
        MixPlan(torch.arange(3, dtype=torch.int32), *rows, "flip")
    with pytest.raises(TypeError, match="partner: expected a torch.int32 tensor, got NoneType"):
        MixPlan(None, *rows)
    assert MixPlan(plan.partner, *rows, "flip") == MixPlan(None, *rows, "flip") == plan


def test_plans_and_targets_cannot_be_changed():
    plan = MixPlan.uniform(3, "flip", 0.5)
    for thing in (plan, MixedTarget.from_labels(torch.arange(3), plan, 5)):
        with pytest.raises(AttributeError, match="weight cannot be set; make a new instance"):
            thing.weight = torch.ones(3, 2)
        with pytest.raises(AttributeError, match="weight cannot be deleted"):
            del thing.weight
        assert not dataclasses.is_dataclass(thing)
        assert torch.utils._pytree.tree_leaves((thing, [1])) == [thing, 1]
        file = io.BytesIO()
        torch.save(thing, file)
        file.seek(0)
        assert torch.load(file, weights_only=True) == thing == copy.deepcopy(thing)


def test_what_a_plan_says_follows_its_tensors():
    plan = MixPlan.per_sample([0.5, 1.0, 1.0], torch.tensor([1, 2, 0]), [[0, 2], [0, 0], [0, 0]])
    assert plan.is_permutation and not plan.blends
    plan.partner.fill_(1)
    assert plan.is_permutation is False
    with pytest.raises(ValueError, match="no permutation"):
        _ = plan.inverse_partner
    plan.blend[1] = torch.tensor([0.5, 0.5])
    assert plan.blends
    plan.box[0, 1] = 9
    with pytest.raises(ValueError, match="stops up to \\[9\\]"):
        mix(torch.rand(3, 4), plan)
    plan.partner[0] = 7
    with pytest.raises(IndexError, match="got 7"):
        mix(torch.rand(3, 9), plan)


def test_plans_of_one_s_own_compile():
    x, perm, lam = torch.rand(4, 3, 8, 8), torch.tensor([2, 0, 3, 1]), torch.rand(4)
    box = torch.tensor([[0, 0, 4, 4], [1, 1, 3, 8], [0, 0, 0, 0], [2, 2, 8, 8]])
    labels = torch.arange(4)

    def step(x, perm, lam, box):
        corners, area = cutmix_box((8, 8), 0.5, (3, 4))
        plans = (
            MixPlan.uniform(4, perm, 0.3),
            MixPlan.per_sample(lam, perm, box),
            MixPlan.uniform(4, "roll", area, corners),
            MixPlan(
                None,
                MixPlan.per_sample(lam).weight,
                MixPlan.per_sample(lam).blend,
                box.int(),
                "flip",
            ),
        )
        out = [mix(x, plan) for plan in plans]
        return out + [MixedTarget.from_labels(labels, plan, 5).dense() for plan in plans]

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for got, want in zip(compiled(x, perm, lam, box), step(x, perm, lam, box), strict=True):
        assert torch.equal(got, want)


def test_fake_tensors_have_no_values_to_check():
    with torch._subclasses.FakeTensorMode():
        plan = MixPlan.per_sample(torch.rand(4), torch.randperm(4))
        target = MixedTarget.from_labels(torch.arange(4), plan, 5)
        batch, mixed = fm.BatchMix(5, cutmix_alpha=1.0)(torch.rand(4, 3, 8, 8), torch.arange(4))
        assert mix(batch, plan).shape == batch.shape and "device='cpu'" in repr(plan)
        for each in (target, mixed):
            assert fm.soft_target_cross_entropy(torch.rand(4, 5), each).shape == ()
