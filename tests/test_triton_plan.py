"""The Triton kernels of draw_plan and draw_erasing against the reference, to the bit.

A case takes a third of a second in the interpreter; FUSED_MIXUP_DRAW_CASES=1000 runs more cases.
"""

from __future__ import annotations

import importlib
import os
import random

import pytest
import torch
import triton.language as tl
from draw_cases import BATCHES, PAIRINGS, assert_same_plan, draw_case, draw_cases, largest_cases
from erasing_cases import assert_same_erasing, erasing_case, erasing_cases
from triton_place import DEVICE, INTERPRETED, quiet

import fused_mixup as fm
import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.codes import (
    BATCH,
    CROSS_CLASS,
    PAIR,
    RAND,
    SAMPLE,
    SHUFFLE,
    STEP_WORD,
    VERSION_WORD,
)
from fused_mixup.triton_kernels import plan as plan_module

pytestmark = [pytest.mark.gpu, quiet, pytest.mark.usefixtures("one_thread")]

CASES = int(os.environ.get("FUSED_MIXUP_DRAW_CASES", "5" if INTERPRETED else "300"))


def check(args):
    state, *rest = args
    there = [a.to(DEVICE, copy=True) if isinstance(a, torch.Tensor) else a for a in args]
    got = tk.draw_plan(*there)
    assert_same_plan(got, reference.draw_plan(state, *rest))
    assert torch.equal(there[0].cpu(), state)


@pytest.mark.parametrize(("settings_go", "seed"), [("by value", 8), ("by pointer", 10)])
def test_every_bit_of_the_reference(settings_go, seed, monkeypatch):
    if settings_go == "by pointer":
        monkeypatch.setattr(plan_module, "travels_by_value", lambda settings: False)
    for args in draw_cases(CASES, seed=seed, large=0.0 if INTERPRETED else 0.1):
        check(args)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_pairings(pairing):
    rng = random.Random(pairing)
    for batch, per in ((17, SAMPLE), (3, PAIR)) if INTERPRETED else ((n, PAIR) for n in BATCHES):
        check(draw_case(rng, batch, pairing, per))


def test_more_samples_than_one_turn_takes():
    check(draw_case(random.Random(5), 260, CROSS_CLASS, BATCH))


@pytest.mark.skipif(INTERPRETED, reason="minutes in Triton's interpreter; runs on a GPU")
def test_the_largest_batches():
    for args in largest_cases():
        check(args)


@pytest.mark.skipif(not INTERPRETED, reason="compiled code has no constexpr that holds a tensor")
def test_counters_are_tensors(monkeypatch):
    """Interpreted, philox of Triton 3.8 and later refuses a constexpr in place of one."""
    philox, seen = tl.philox, []

    def watched(*arguments):
        seen.append({type(a) for a in arguments})
        return philox(*arguments)

    monkeypatch.setattr(tl, "philox", watched)
    check(draw_case(random.Random(5), 3, SHUFFLE, SAMPLE))
    check_erasing(erasing_case(random.Random(5), 3, RAND, 2, channels=(3,)))
    assert seen and all(types == {tl.tensor} for types in seen)


def test_a_state_of_another_version_poisons():
    state, *rest = draw_case(random.Random(2), 5, SHUFFLE, SAMPLE)
    state[VERSION_WORD] += 2**32
    step = int(state[STEP_WORD])
    there = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in (state, *rest)]
    _, weight, blend, _ = tk.draw_plan(*there)
    assert weight.isnan().all() and blend.isnan().all()
    assert there[0][STEP_WORD] == step


# ------------------------------------------------------------------ draw_erasing


def check_erasing(args):
    state, *rest = args
    there = [a.to(DEVICE, copy=True) if isinstance(a, torch.Tensor) else a for a in args]
    got = tk.draw_erasing(*there)
    assert_same_erasing(got, reference.draw_erasing(state, *rest))
    assert torch.equal(there[0].cpu(), state)


@pytest.mark.parametrize(("settings_go", "seed"), [("by value", 6), ("by pointer", 7)])
def test_every_bit_of_erased_boxes(settings_go, seed, monkeypatch):
    if settings_go == "by pointer":
        module = importlib.import_module(tk.draw_erasing.__module__)
        monkeypatch.setattr(module, "travels_by_value", lambda settings: False)
    sizes = {"batches": (0, 1, 7, 33), "counts": (1, 2), "channels": (2, 3)} if INTERPRETED else {}
    for args in erasing_cases(6 if INTERPRETED else 300, seed=seed, **sizes):
        check_erasing(args)


def test_more_erased_boxes_than_one_turn_takes():
    check_erasing(erasing_case(random.Random(5), 130, RAND, 2, channels=(1,)))


def test_a_state_of_another_version_erases_nothing():
    state, *rest = erasing_case(random.Random(2), 9, RAND, 2, channels=(2,))
    state[VERSION_WORD] += 2**32
    rest[0] = fm.erasing_settings(prob=1.0)
    before = state.clone()
    there = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in (state, *rest)]
    box, value, _ = tk.draw_erasing(*there)
    assert not box.any() and not value.any() and torch.equal(there[0].cpu(), before)
