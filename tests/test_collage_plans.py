"""RectanglePlan and PatchPlan: fields, checks of values, text, equality, moving and saving."""

from __future__ import annotations

import io
import pickle

import pytest
import torch

import fused_mixup as fm
from fused_mixup import PatchPlan, RectanglePlan


def rectangles(**options):
    return fm.resize_into(3, (8, 9), (1, 2, 5, 8), "roll", **options)


def patches():
    return PatchPlan(
        torch.zeros(3, 2, 2, dtype=torch.int16), mask=torch.rand(3, 4, 4), partner=[2, 0, 1]
    )


PLANS = {"rectangles": rectangles, "steps": lambda: rectangles(tau=0.5), "patches": patches}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_saved_moved_and_compared(name):
    plan = PLANS[name]()
    file = io.BytesIO()
    torch.save(plan, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.to("cpu") is plan
    there = plan.to("meta")
    assert there.device.type == "meta" and there.batch_size == 3
    assert plan != 3 and type(plan).__name__ in repr(plan) and repr(there)
    with pytest.raises(AttributeError, match="cannot be set"):
        plan.weight = None


def test_plans_that_differ_are_not_equal():
    assert rectangles() != rectangles(resample="bilinear")
    assert rectangles() != rectangles(tau=0.5)
    assert rectangles() == rectangles()
    assert patches() != PatchPlan(torch.zeros(3, 2, 2, dtype=torch.int16))


def test_a_plan_keeps_narrow_integers():
    plan = patches()
    assert plan.index.dtype == torch.int32 and plan.weight.dtype == torch.float32
    assert rectangles().weight[0].tolist() == pytest.approx([1 - 24 / 72, 24 / 72])


def test_values_are_checked_again_after_a_write():
    plan = rectangles()
    x = torch.rand(3, 1, 8, 9)
    fm.mix_rectangles(x, plan)
    plan.source[1] = 7
    with pytest.raises(IndexError, match="got 7"):
        fm.mix_rectangles(x, plan)
    moved = patches()
    moved.index[0, 0, 0] = 4
    with pytest.raises(IndexError, match=r"\[0, 4\), got 4"):
        fm.mix_patches(torch.rand(3, 1, 8, 8), moved)


BOX = [[[0, 0, 2, 3]]]
REFUSED = {
    "five rectangles": (([[0] * 5], [BOX[0] * 5], [BOX[0] * 5]), {}, "at most 4"),
    "a reversed box": (([[0]], BOX, [[[2, 0, 0, 3]]]), {}, "box: expected 0 <= top <= bottom"),
    "a negative start": (([[0]], [[[-1, 0, 1, 3]]], BOX), {}, "source_box: expected 0 <= top"),
    "sizes that differ": (([[0]], BOX, [[[0, 0, 2, 2]]]), {}, "resample='nearest'"),
    "an empty part": (
        ([[0]], [[[1, 1, 1, 4]]], BOX),
        {"resample": "nearest"},
        "source_box: expected a part",
    ),
    "outside the size": (([[0]], BOX, BOX), {"size": (2, 2)}, "box: expected rectangles inside"),
    "no weight": (([[0]], BOX, BOX), {"size": None}, "weight: expected label weights"),
    "a weight too few": (([[0]], BOX, BOX, [[1.0]]), {}, r"weight: expected shape \[1, 2\]"),
    "a shape": (([[0]], BOX[0], BOX), {}, r"source_box: expected shape \[1, 1, 4\]"),
    "a weight that is NaN": (([[0]], BOX, BOX, [[1.0, float("nan")]]), {}, "weight: expected fin"),
    "steps of zero": (
        ([[0]], BOX, BOX),
        {"scale": [[[0.0, 1.0]]], "resample": "nearest"},
        "scale: expected finite steps",
    ),
    "a way": (([[0]], BOX, BOX), {"resample": "cubic"}, "resample: expected one of"),
    "steps without a use": (
        ([[0]], BOX, BOX),
        {"scale": [[[1.0, 1.0]]]},
        "scale: expected None for resample='none'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_rectangles_are_refused(name):
    arguments, options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        RectanglePlan(*arguments, **{"size": (9, 9), **options})


def test_a_source_below_zero_is_refused():
    with pytest.raises(IndexError, match="source: expected indices of at least 0, got -1"):
        RectanglePlan([[-1]], BOX, BOX, size=(9, 9))


LAYOUTS = {
    "rows of another batch": (lambda: fm.resize_into(3, (8, 9), [[0, 0, 1, 1]] * 2), "box"),
    "a size": (lambda: fm.resize_into(3, (8,), (0, 0, 1, 1)), "size"),
    "a pairing": (lambda: fm.resize_into(3, (8, 9), (0, 0, 1, 1), "shuffle"), "partner"),
    "a factor of zero": (lambda: fm.resize_into(3, (8, 9), (0, 0, 1, 1), tau=0.0), "tau"),
    "factors": (lambda: fm.resize_into(3, (8, 9), (0, 0, 1, 1), tau=torch.ones(2)), "tau"),
    "three tiles": (lambda: fm.mosaic_plan((8, 9), (4, 4), [[0, 1, 2]]), "source"),
    "starts": (lambda: fm.ricap_plan((8, 9), (4, 4), [[0] * 4], [[0, 0]] * 3), "start"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_bad_layouts_are_refused(name):
    call, argument = LAYOUTS[name]
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        call()


def test_drawn_boxes_for_each_sample():
    """ResizeMix of the paper: a place for each sample, shifted inside, and one size."""
    place = torch.tensor([[6, 0], [9, 0], [15, 20]])  # golden values of the paper's code
    box = torch.cat((place, place + 12), 1)
    plan = fm.resize_into(3, (32, 32), box, [1, 2, 0], tau=0.4)
    torch.testing.assert_close(plan.weight[:, 1], torch.full((3,), 144 / 1024))
    assert plan.scale.unique().tolist() == [2.5]
