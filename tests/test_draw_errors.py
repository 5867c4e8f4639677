"""Arguments that draw_plan, plan_state and plan_settings refuse, before a step is taken."""

from __future__ import annotations

import pytest
import torch

import fused_mixup as fm

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"mixup_alpha": -0.1}, ValueError, "mixup_alpha: expected a number in"),
        ({"mixup_alpha": NAN}, ValueError, "mixup_alpha: expected a number in"),
        ({"mixup_alpha": float("inf")}, ValueError, "mixup_alpha: expected a number in"),
        ({"cutmix_alpha": -1}, ValueError, "cutmix_alpha: expected a number in"),
        ({"cutmix_alpha": 1e-9}, ValueError, "or 0 to turn this mode off"),
        ({"mixup_alpha": 0}, ValueError, "expected one of them > 0"),
        ({"mixup_alpha": "1"}, TypeError, "mixup_alpha: expected a number, got str"),
        ({"mixup_alpha": torch.ones(())}, TypeError, "settings=plan_settings"),
        ({"prob": 1.01}, ValueError, r"prob: expected a probability in \[0, 1\]"),
        ({"prob": NAN}, ValueError, "prob: expected a probability"),
        ({"switch_prob": -0.5}, ValueError, "switch_prob: expected a probability"),
        ({"cutmix_minmax": (0.5, 0.5), "cutmix_alpha": 1}, ValueError, "low < high"),
        ({"cutmix_minmax": (0.8, 0.2), "cutmix_alpha": 1}, ValueError, "low < high"),
        ({"cutmix_minmax": (-0.1, 0.2), "cutmix_alpha": 1}, ValueError, "low < high"),
        ({"cutmix_minmax": (0.1, 1.2), "cutmix_alpha": 1}, ValueError, "low < high"),
        ({"cutmix_minmax": (0.1,), "cutmix_alpha": 1}, ValueError, "expected two numbers"),
        ({"cutmix_minmax": 0.5, "cutmix_alpha": 1}, TypeError, "expected two numbers"),
        ({"cutmix_minmax": (0.1, 0.2), "spatial": ()}, ValueError, "expected 1 to 3 sizes"),
        ({"spatial": (), "cutmix_alpha": 1}, ValueError, "spatial: expected 1 to 3 sizes"),
        ({"spatial": (), "cutmix_alpha": -1}, ValueError, "cutmix_alpha: expected a number in"),
        (
            {"spatial": (), "settings": fm.plan_settings(mixup_alpha=0, cutmix_alpha=1)},
            ValueError,
            "spatial: expected 1 to 3 sizes",
        ),
        ({"spatial": (2, 3, 4, 5)}, ValueError, "spatial: expected at most 3"),
        ({"spatial": (-1, 3)}, ValueError, "spatial: expected sizes"),
        ({"spatial": (2**31,)}, ValueError, "spatial: expected sizes"),
        ({"spatial": (2.5, 3)}, TypeError, "spatial: expected a sequence of ints"),
        ({"batch_size": -1}, ValueError, "batch_size: expected 0 to 65,536"),
        ({"batch_size": 65537}, ValueError, "batch_size: expected 0 to 65,536"),
        ({"batch_size": 4.0}, TypeError, "batch_size: expected an int"),
        ({"per": "elem"}, ValueError, "per: expected one of"),
        ({"pairing": "random"}, ValueError, "pairing: expected one of"),
        ({"pairing": "roll", "per": "pair"}, ValueError, "forms a circle and no pairs"),
        ({"pairing": "cross_class"}, ValueError, "labels: expected int64"),
        (
            {"labels": torch.zeros(5, dtype=torch.int64)},
            ValueError,
            r"labels: expected shape \[4\]",
        ),
        ({"labels": torch.zeros(4)}, TypeError, "labels: expected an int64 tensor"),
        ({"labels": [0, 1, 2, 3]}, TypeError, "labels: expected an int64 tensor"),
        ({"labels": torch.zeros(4, dtype=torch.int64, device="meta")}, ValueError, "on meta like"),
        ({"pairing": torch.tensor([0, 1, 2, 4])}, IndexError, r"expected indices in \[0, 4\)"),
        ({"pairing": torch.tensor([0, 1, 2])}, ValueError, r"pairing: expected shape \[4\]"),
        ({"pairing": torch.zeros(4)}, TypeError, "pairing: expected int32 or int64"),
        ({"settings": torch.zeros(6)}, TypeError, "settings: expected float64"),
        ({"settings": torch.zeros(5, dtype=torch.float64)}, ValueError, "expected 6 adjacent"),
        (
            {"settings": torch.zeros(6, dtype=torch.float64, device="meta")},
            ValueError,
            "settings: expected it on cpu like state",
        ),
    ],
)
def test_bad_arguments(options, error, says):
    state = fm.plan_state(0)
    given = {"batch_size": 4, "spatial": (8, 8), "state": state, **options}
    with pytest.raises(error, match=says):
        fm.draw_plan(**given)
    assert torch.equal(state, fm.plan_state(0))


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        (None, TypeError, "state: expected a tensor, got NoneType"),
        (torch.zeros(4), TypeError, "state: expected an int64 tensor"),
        (torch.zeros(3, dtype=torch.int64), ValueError, "state: expected 4 adjacent words"),
        (torch.zeros(8, dtype=torch.int64)[::2], ValueError, "state: expected 4 adjacent words"),
        (torch.zeros(4, dtype=torch.int64), ValueError, "state: expected version 0x464d0001"),
    ],
)
def test_bad_states(state, error, says):
    with pytest.raises(error, match=says):
        fm.draw_plan(4, state=state)


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((2**64,), ValueError, "seed: expected 64 bits"),
        ((-(2**63) - 1,), ValueError, "seed: expected 64 bits"),
        ((0.5,), TypeError, "seed: expected an int"),
        ((0, -1), ValueError, "rank: expected 0 to 1048575"),
        ((0, 1 << 20), ValueError, "rank: expected 0 to 1048575"),
        ((0, 0, -1), ValueError, "worker: expected 0 to 4094 or None"),
        ((0, 0, 4095), ValueError, "worker: expected 0 to 4094 or None"),
    ],
)
def test_bad_seeds(args, error, says):
    with pytest.raises(error, match=says):
        fm.plan_state(*args)


def test_what_is_legal_at_the_edges():
    state = fm.plan_state(0, 2**20 - 1, 4094)
    assert fm.draw_plan(0, (8, 8), state=state, cutmix_alpha=1.0).batch_size == 0
    plan = fm.draw_plan(4, (0, 8), state=state, cutmix_alpha=1.0, mixup_alpha=0.0)
    assert torch.equal(plan.weight, torch.tensor([[1.0, 0.0]] * 4))
    # These settings never mix, so every mode may be off.
    assert fm.draw_plan(4, state=state, mixup_alpha=0.0, prob=0.0) == fm.draw_plan(
        4, state=state, prob=0.0
    )
    with pytest.raises(ValueError, match="expected one that only pastes"):
        fm.paste_(torch.zeros(4, 8), fm.draw_plan(4, state=state))
    with pytest.raises(ValueError, match="draw boxes for this size"):
        fm.mix_(torch.zeros(4, 8), fm.draw_plan(4, (9,), state=state, cutmix_alpha=1.0))


def test_the_default_device_does_not_count():
    expected = fm.draw_plan(4, (8, 8), state=fm.plan_state(0), cutmix_alpha=1.0)
    state = fm.plan_state(0)
    with torch.device("meta"):
        plan = fm.draw_plan(4, (8, 8), state=state, cutmix_alpha=1.0)
    assert plan == expected
