"""MixPlan and cutmix_box: how plans are made, checked, compared and moved."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

import fused_mixup as fm
from fused_mixup import MixPlan, cutmix_box
from fused_mixup.arguments import is_host_row


def test_cutmix_box_is_inside_and_its_lam_is_the_area():
    hypothesis = pytest.importorskip("hypothesis")  # only this test needs it
    st = hypothesis.strategies
    given = hypothesis.given(
        st.lists(st.integers(1, 60), min_size=1, max_size=3), st.floats(0, 1), st.data()
    )
    given(check_cutmix_box)()


def check_cutmix_box(spatial, lam, data):
    from hypothesis import strategies as st

    center = [data.draw(st.integers(0, n - 1)) for n in spatial]
    box, area_lam = cutmix_box(spatial, lam, center)
    d = len(spatial)
    covered = torch.zeros(spatial, dtype=torch.bool)
    covered[tuple(slice(a, b) for a, b in zip(box[:d], box[d:], strict=True))] = True
    assert all(0 <= a <= b <= n for a, b, n in zip(box[:d], box[d:], spatial, strict=True))
    assert area_lam == 1 - int(covered.sum()) / math.prod(spatial)
    for k in range(d):  # no wider than requested, and narrower only where it is clipped
        side = int(spatial[k] * (1 - lam) ** (1 / d))
        assert box[d + k] - box[k] <= max(side, int(spatial[k] * (1 - lam) ** (1 / d) + 1e-9))
        inside = side <= center[k] <= spatial[k] - side
        assert not inside or abs(box[d + k] - box[k] - side) <= (0 if d != 2 else 1)


@pytest.mark.parametrize(
    ("spatial", "lam", "center", "box", "area_lam"),
    [
        ((224, 224), 0.75, (112, 112), (56, 56, 168, 168), 0.75),
        ((224, 224), 0.75, (0, 223), (0, 167, 56, 224), 1 - 56 * 57 / 224**2),
        ((9,), 0.5, (4,), (2, 6), 1 - 4 / 9),
        ((8, 8, 8), 0.0, (4, 4, 4), (0, 0, 0, 8, 8, 8), 0.0),
        ((7, 7), 0.0, (3, 3), (0, 0, 7, 7), 0.0),  # an odd side keeps its last row and column
        ((5, 5), 1.0, (2, 2), (2, 2, 2, 2), 1.0),
    ],
)
def test_cutmix_box_known_values(spatial, lam, center, box, area_lam):
    assert cutmix_box(spatial, lam, center) == (box, pytest.approx(area_lam, abs=0))


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (((8, 8), 1.5, (0, 0)), ValueError, "lam: expected"),
        (((8, 8), math.nan, (0, 0)), ValueError, "lam: expected"),
        (((8, 8), 0.5, (8, 0)), ValueError, "center: expected a point inside"),
        (((8, 8), 0.5, (1,)), ValueError, "the same 1, 2 or 3 dims"),
        (((8, 8, 8, 8), 0.5, (1, 1, 1, 1)), ValueError, "1, 2 or 3 dims"),
        (((8, 8), 0.5, (1.5, 0)), TypeError, "center: expected a sequence of ints"),
        (((0, 8), 0.5, (0, 0)), ValueError, "center"),
    ],
)
def test_cutmix_box_bad_input(args, error, says):
    with pytest.raises(error, match=says):
        cutmix_box(*args)


def test_uniform_mixup_rows():
    plan = MixPlan.uniform(3, "flip", 0.3)
    assert plan.partner.tolist() == [2, 1, 0]
    assert plan.blend.tolist() == [[0.3, 1 - 0.3]] * 3
    assert torch.equal(plan.weight, torch.tensor([[0.3, 1 - 0.3]] * 3))
    assert plan.box.shape == (3, 0) and plan.spatial_dims == 0
    assert (plan.partner.dtype, plan.weight.dtype) == (torch.int32, torch.float32)
    assert (plan.blend.dtype, plan.box.dtype) == (torch.float64, torch.int32)


def test_uniform_cutmix_rows():
    plan = MixPlan.uniform(2, "roll", 0.75, (1, 2, 3, 4))
    assert plan.partner.tolist() == [1, 0]
    assert plan.blend.tolist() == [[1, 0]] * 2 and plan.weight.tolist() == [[0.75, 0.25]] * 2
    assert plan.box.tolist() == [[1, 2, 3, 4]] * 2 and plan.spatial_dims == 2


def test_per_sample_rows():
    lam = torch.tensor([0.25, 0.5, 1.0])
    boxes = [[0, 2], [1, 1], [0, 4]]
    plan = MixPlan.per_sample(lam, torch.tensor([1, 1, 0]), boxes)
    assert plan.blend.tolist() == [[1, 0], [0.5, 0.5], [1, 0]]
    assert plan.box.tolist() == [[0, 2], [0, 0], [0, 4]]
    forced = MixPlan.per_sample(lam, "flip", boxes, cut=[False, True, False])
    assert forced.blend.tolist() == [[0.25, 0.75], [1, 0], [1, 0]]
    assert forced.box.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_one_minus_lam_keeps_the_dtype_it_was_drawn_in():
    lam = torch.tensor([0.1], dtype=torch.float32)
    assert MixPlan.per_sample(lam).blend[0, 1].item() == (1 - lam).item()
    assert MixPlan.per_sample(lam.double()).blend[0, 1].item() == 1 - lam.double().item()
    half = MixPlan.per_sample(torch.tensor([0.1], dtype=torch.bfloat16))
    assert half.weight.sum().item() == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("rule", ["flip", "roll", "self"])
@pytest.mark.parametrize("batch_size", [0, 1, 2, 5])
def test_rules_and_their_inverse(rule, batch_size):
    plan = MixPlan.uniform(batch_size, rule, 0.5)
    x = torch.arange(batch_size)
    expected = {"flip": x.flip(0), "roll": x.roll(1), "self": x}[rule]
    assert torch.equal(plan.partner.long(), expected)
    assert plan.is_permutation
    assert torch.equal(plan.partner.long()[plan.inverse_partner.long()], x)


def test_is_permutation():
    assert MixPlan.uniform(3, torch.tensor([2, 0, 1]), 0.5).is_permutation
    shared = MixPlan.uniform(3, torch.tensor([0, 0, 1]), 0.5)
    assert not shared.is_permutation
    with pytest.raises(ValueError, match="no permutation"):
        _ = shared.inverse_partner


def test_equal_printed_pickled_moved():
    torch.manual_seed(0)
    for plan in (
        MixPlan.uniform(12, "flip", 0.3, (0, 1, 2, 3)),
        MixPlan.per_sample(torch.rand(12), torch.randperm(12)),
        MixPlan.identity(0),
    ):
        for same in (pickle.loads(pickle.dumps(plan)), plan.to("cpu")):
            assert same == plan and same.pairing == plan.pairing
            assert same.is_permutation == plan.is_permutation
        assert plan != MixPlan.uniform(12, "roll", 0.7)
        assert f"batch_size={plan.batch_size}" in repr(plan)
    text = repr(MixPlan.uniform(12, "flip", 0.3, (0, 1, 2, 3)))
    assert "0: partner 11, weight (0.3, 0.7), blend (1, 0), box [0, 1, 2, 3]" in text
    assert "4 more" in text
    with pytest.raises(TypeError):
        hash(plan)


def test_moving_packs_one_buffer():
    plan = MixPlan.per_sample(torch.rand(5), torch.randperm(5), torch.zeros(5, 4, dtype=torch.int))
    moved = plan.to("meta")
    tensors = (moved.blend, moved.weight, moved.partner, moved.box)
    storage = moved.blend.untyped_storage()
    assert all(t.untyped_storage()._cdata == storage._cdata for t in tensors)
    assert storage.nbytes() == 5 * (16 + 8 + 4 + 16)
    assert moved.is_permutation and "device='meta'" in repr(moved)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_values_survive_the_move_to_a_gpu():
    plan = MixPlan.per_sample(torch.rand(5), torch.randperm(5), torch.randint(0, 9, (5, 2)))
    assert plan.to("cuda") == plan


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_partners_of_any_strides(dtype):
    wide = torch.tensor([1, 9, 2, 9, 0, 9], dtype=dtype)
    for partner in (wide[::2], torch.tensor([2], dtype=dtype).expand(3)):
        for plan in (
            MixPlan.uniform(3, partner, 0.25),
            MixPlan.per_sample(torch.full((3,), 0.25), partner),
            MixPlan(partner.int(), torch.ones(3, 2), torch.ones(3, 2).double(), no_box(3)),
        ):
            x = torch.tensor([1.0, 2.0, 3.0])
            w0, w1 = plan.blend[0].tolist()
            assert torch.equal(fm.mix(x, plan), w0 * x + w1 * x[partner.long()])


def test_numpy_integers_are_integers():
    two = np.int64(2)
    box, _ = cutmix_box((np.int64(8), np.int64(8)), np.float64(0.5), (two, two))
    assert MixPlan.uniform(two, "flip", np.float32(0.5), np.array(box)).batch_size == 2


def test_empty_batches_of_plans():
    for plan in (MixPlan.per_sample([], box=[]), MixPlan.uniform(0), MixPlan.identity(0)):
        assert plan.batch_size == 0


def test_partners_of_a_rule_are_made_in_the_mode_that_asks():
    plan = MixPlan.uniform(4, "flip", 0.5)
    with torch._subclasses.FakeTensorMode():
        assert isinstance(plan.partner, torch._subclasses.FakeTensor)
    with torch.inference_mode():
        assert plan.partner.is_inference()
    assert type(plan.partner) is torch.Tensor and not plan.partner.is_inference()
    assert (
        plan.partner.tolist() == [3, 2, 1, 0] == pickle.loads(pickle.dumps(plan)).partner.tolist()
    )


def test_a_plan_without_rows_says_what_it_lacks():
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        _ = object.__new__(MixPlan).weight


def test_the_default_device_moves_no_plan():
    partner, lam, x = torch.tensor([1, 2, 0]), torch.full((3,), 0.25), torch.tensor([1.0, 2.0, 3.0])
    boxes = torch.zeros(3, 2, dtype=torch.int64)
    with torch.device("meta"):
        plans = [
            MixPlan.uniform(3, partner, 0.25),
            MixPlan.per_sample(lam, partner),
            MixPlan.per_sample(lam, partner, boxes),
        ]
        plans += [MixPlan(p.partner, p.weight, p.blend, p.box, p.pairing) for p in plans]
        assert {p.device.type for p in plans} == {"cpu"}
        mixed = [fm.mix(x, plan) for plan in plans[:2] + plans[3:5]]
    for got in mixed:
        assert torch.equal(got, 0.25 * x + 0.75 * x[partner])


def no_box(batch_size):
    return torch.empty(batch_size, 0, dtype=torch.int32)


def test_frozen():
    with pytest.raises(AttributeError):
        MixPlan.identity(2).partner = torch.zeros(2)


def rows(**kw):
    fields = {
        "partner": torch.zeros(2, dtype=torch.int32),
        "weight": torch.ones(2, 2),
        "blend": torch.ones(2, 2, dtype=torch.float64),
        "box": torch.zeros(2, 4, dtype=torch.int32),
    }
    return MixPlan(**{**fields, **kw})


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: MixPlan.uniform(-1), ValueError, "batch_size"),
        (lambda: MixPlan.uniform(2, "shuffle"), ValueError, "partner: expected 'flip'"),
        (lambda: MixPlan.uniform(2, "flip", 1.1), ValueError, "lam"),
        (lambda: MixPlan.uniform(2, "flip", "a"), TypeError, "lam"),
        (lambda: MixPlan.uniform(2, "flip", torch.ones(2)), TypeError, "lam.*per_sample"),
        (lambda: MixPlan.uniform(2, None), TypeError, "partner"),
        (lambda: MixPlan.uniform(2.0), TypeError, "batch_size"),
        (lambda: MixPlan.uniform(2, "flip", 0.5, (0, math.nan)), TypeError, "box"),
        (lambda: MixPlan.uniform(2, "flip", 0.5, 3), TypeError, "box"),
        (lambda: MixPlan.uniform(2, "flip", 0.5, (0, 2**31)), ValueError, "box.*32 bits"),
        (lambda: MixPlan.per_sample(None), TypeError, "lam"),
        (lambda: MixPlan.per_sample(torch.rand(1), box=[[0, 2**32 + 5]]), ValueError, "32 bits"),
        (
            lambda: MixPlan.per_sample(torch.rand(2), cut=[True, False]),
            ValueError,
            "box to be given",
        ),
        (lambda: MixPlan.per_sample(torch.rand(2, requires_grad=True)), ValueError, "detach"),
        (lambda: rows(weight=torch.ones(2, 2, requires_grad=True)), ValueError, "detach"),
        (lambda: MixPlan.uniform(2, torch.tensor([0, 2])), IndexError, r"partner.*\[0, 2\).*got 2"),
        (lambda: MixPlan.uniform(2, torch.tensor([0, -1])), IndexError, "got -1"),
        (lambda: MixPlan.uniform(2, torch.tensor([0, 2**32])), IndexError, "partner"),
        (lambda: MixPlan.uniform(2, torch.tensor([0.0, 1])), TypeError, "partner.*integers"),
        (lambda: MixPlan.uniform(3, torch.tensor([0, 1])), ValueError, r"shape \[3\]"),
        (lambda: MixPlan.uniform(2, "flip", 0.5, (3, 3, 1, 5)), ValueError, "box.*start <= stop"),
        (lambda: MixPlan.uniform(2, "flip", 0.5, (-1, 3)), ValueError, "box"),
        (lambda: MixPlan.uniform(2, "flip", 0.5, (1, 2, 3)), ValueError, "box: expected"),
        (lambda: MixPlan.per_sample(torch.tensor([0.5, 1.5])), ValueError, "lam"),
        (lambda: MixPlan.per_sample(torch.tensor([1, 0])), TypeError, "lam: expected floats"),
        (lambda: MixPlan.per_sample(torch.rand(2, 2)), ValueError, "lam"),
        (lambda: MixPlan.per_sample(torch.rand(2), box=[[0, 1]]), ValueError, "box"),
        (lambda: MixPlan.per_sample(torch.rand(2), box=[[0.5, 1]] * 2), TypeError, "box"),
        (lambda: MixPlan.per_sample(torch.rand(2), cut=[True]), ValueError, "cut"),
        (lambda: rows(partner=[0, 0]), TypeError, "partner: expected a torch.int32 tensor"),
        (lambda: rows(weight=torch.ones(2, 2).half()), TypeError, "weight: expected dtype"),
        (lambda: rows(blend=torch.ones(3, 2).double()), ValueError, "blend: expected 2 rows"),
        (lambda: rows(weight=torch.ones(2, 3)), ValueError, r"weight: expected shape \[B, 2\]"),
        (lambda: rows(box=torch.zeros(2, 8).int()), ValueError, "box"),
        (lambda: rows(box=torch.zeros(4).int()), ValueError, "box: expected 2 dims"),
        (lambda: rows(pairing="random"), ValueError, "pairing"),
        (lambda: rows(weight=torch.tensor([[math.nan, 0]] * 2)), ValueError, "finite"),
    ],
)
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize("box", [None, (2, 3, 9, 8)])
@pytest.mark.parametrize("batch_size", [0, 1, 5])
def test_uniform_plans_need_no_numpy(monkeypatch, batch_size, box):
    want = MixPlan.uniform(batch_size, "roll", 0.3, box)
    monkeypatch.setattr("fused_mixup.plan.tensors.np", None)
    plan = MixPlan.uniform(batch_size, "roll", 0.3, box)
    assert plan == want
    for name in ("weight", "blend", "box"):
        ours, theirs = getattr(plan, name), getattr(want, name)
        assert ours.dtype == theirs.dtype and is_host_row(ours) and is_host_row(theirs)
        assert pickle.loads(pickle.dumps(theirs)).equal(theirs)
