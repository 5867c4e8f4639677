"""draw_resizemix: the whole partner, resized by F.interpolate, in the box that was drawn."""

from __future__ import annotations

import pytest
import torch
from variant_cases import one_variant

import fused_mixup as fm
from fused_mixup import ops


def test_resizemix_shows_the_whole_partner():
    x = torch.rand(6, 3, 40, 30)
    plan = fm.draw_resizemix(6, (40, 30), state=fm.plan_state(7), per="sample", prob=0.8)
    parts = ops.draw_variants(*one_variant("resizemix", 6, (40, 30), alpha=0.0))
    mixed = fm.mix_rectangles(x, plan)
    for i in range(6):
        expected = x[i].clone()
        top, left, bottom, right = plan.box[i, 0].tolist()
        if bottom > top:
            assert plan.box[i, 0].tolist() == parts[-1][i].tolist()
            size = bottom - top, right - left
            small = torch.nn.functional.interpolate(x[5 - i][None], size)[0]
            expected[:, top:bottom, left:right] = small
        share = (bottom - top) * (right - left) / 1200
        assert plan.weight[i, 1].item() == pytest.approx(share, abs=1e-6)
        assert torch.equal(mixed[i], expected)
    assert plan.box.any() and not plan.box.flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scale": (0.8, 0.1)}, "scale: expected numbers in .*the lower one first"),
        ({"scale": (0.1, 1.2)}, "scale: expected numbers in"),
        ({"alpha": -1.0}, "alpha: expected a number in"),
        ({"prob": 2.0}, "prob: expected a probability"),
        ({"resample": "cubic"}, "resample: expected one of"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        fm.draw_resizemix(4, (8, 8), state=fm.plan_state(1), **options)
