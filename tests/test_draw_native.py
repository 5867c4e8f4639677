"""The C++ of draw_plan against the reference, to the bit.

FUSED_MIXUP_DRAW_CASES=10000 asks for more cases than the few hundred of ``make test``.
"""

from __future__ import annotations

import itertools
import os

import pytest
import torch
from draw_cases import assert_same_plan, draw_cases, largest_cases

import fused_mixup as fm
from fused_mixup import backends, ops, reference
from fused_mixup.codes import (
    CROSS_CLASS,
    FLIP,
    PAIR,
    ROLL,
    SAMPLE,
    SELF,
    SHUFFLE,
    STEP_WORD,
    TENSOR,
)

CASES = int(os.environ.get("FUSED_MIXUP_DRAW_CASES", "240"))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _native():
    why = backends.reason_unavailable("native", "CPU")
    if why is not None:
        pytest.skip(why)
    with fm.backend("native"):
        yield


def assert_same_draw(state, *options):
    stepped = state.clone()
    expected = reference.draw_plan(stepped, *options)
    assert_same_plan(ops.draw_plan(state, *options), expected)
    assert torch.equal(state, stepped)


def test_random_settings():
    for args in draw_cases(CASES, seed=CASES):
        assert_same_draw(*args)


def test_the_largest_batches():
    # Each size runs with one pairing, or with all of them in a long run.
    for args in itertools.islice(largest_cases(), 0, None, 1 if CASES > 1000 else 5):
        assert_same_draw(*args)


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1 / 3, 0.999, 1.001, 1e6])
@pytest.mark.parametrize("spatial", [[224, 224], [7, 100, 2**31 - 1]], ids=["2-d", "3-d"])
def test_alphas_of_every_size(alpha, spatial):
    settings = fm.plan_settings(mixup_alpha=alpha, cutmix_alpha=alpha, switch_prob=0.5)
    options = settings, None, None, 2000, spatial, SAMPLE, FLIP, True, False
    assert_same_draw(fm.plan_state(2), *options)


def test_threads_draw_what_one_thread_draws():
    settings = fm.plan_settings(cutmix_alpha=0.3)
    labels = torch.arange(3000) % 7
    for per, pairing in ((PAIR, CROSS_CLASS), (SAMPLE, SHUFFLE), (PAIR, FLIP)):
        options = settings, labels, None, 3000, [32, 32], per, pairing, True, False
        alone = ops.draw_plan(fm.plan_state(6), *options)
        torch.set_num_threads(4)
        try:
            assert_same_plan(ops.draw_plan(fm.plan_state(6), *options), alone)
        finally:
            torch.set_num_threads(1)


def test_the_step_wraps_where_its_64_bits_end():
    state = fm.plan_state(1)
    state[STEP_WORD] = 2**63 - 1
    assert_same_draw(state, fm.plan_settings(), None, None, 3, [], SAMPLE, FLIP, True, False)
    assert state[STEP_WORD] == -(2**63)


def test_settings_that_no_check_has_seen_give_boxes_inside():
    nan, inf = float("nan"), float("inf")
    for low, high in ((inf, inf), (-5.0, 9.0), (nan, 2.0), (0.9, 0.1), (1e300, 1e308), (0.5, inf)):
        for alpha in (nan, inf, -1.0, 1e-320, 1.0):
            row = (1.0, alpha, 0.9, nan if low == -5.0 else 2.0, low, high)
            settings = torch.tensor(row, dtype=torch.float64)
            options = settings, None, None, 50, [30, 20], SAMPLE, FLIP, True, False
            box = ops.draw_plan(fm.plan_state(3), *options)[3]
            assert (box[:, :2] >= 0).all() and (box[:, :2] <= box[:, 2:]).all()
            assert (box[:, 2:] <= torch.tensor([30, 20])).all()


def test_arguments_of_any_stride_and_none_that_would_crash():
    every = torch.arange(12) % 5
    for pairing in (CROSS_CLASS, TENSOR):

        def drawn(labels, partner, pairing=pairing):
            options = 6, [], SAMPLE, pairing, True, False
            return ops.draw_plan(fm.plan_state(1), fm.plan_settings(), labels, partner, *options)

        labels, partner = every[::2], every.int()[::2]
        assert_same_plan(drawn(labels, partner), drawn(labels + 0, partner + 0))
        for refused in ((None, None), (every, every.int())):
            with pytest.raises(RuntimeError):
                drawn(*refused)


@pytest.mark.parametrize(
    ("rule", "partner"), [(FLIP, [2, 1, 0]), (ROLL, [2, 0, 1]), (SELF, [0, 1, 2])]
)
def test_partners_by_a_rule(rule, partner):
    given = fm.plan_settings(), None, None, 3, [], SAMPLE, rule, True, False
    for drawing in (ops.draw_plan, reference.draw_plan):
        assert drawing(fm.plan_state(1), *given)[0].tolist() == partner
