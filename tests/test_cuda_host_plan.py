"""The kernels of draw_plan and draw_erasing in csrc/cuda, run on the host (tests/host_cuda).

Every bit must be the reference's, and the state must step. FUSED_MIXUP_DRAW_CASES=10000 runs more
cases than ``make test``.
"""

from __future__ import annotations

import os
import random

import pytest
import torch
from draw_cases import PAIRINGS, draw_case
from erasing_cases import BATCHES, MODES, erasing_case
from host_cuda import build, plan_grid
from host_cuda import ops as host
from host_cuda.batches import ORDERS

import fused_mixup as fm
from fused_mixup.codes import (
    BATCH,
    CROSS_CLASS,
    PAIR,
    RAND,
    SAMPLE,
    SHUFFLE,
    STEP_WORD,
    TENSOR,
    VERSION_WORD,
)

CASES = int(os.environ.get("FUSED_MIXUP_DRAW_CASES", "200"))

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


def test_every_bit_of_the_reference():
    plan_grid.check_cases(CASES, seed=2, large=0.1)


@pytest.mark.parametrize("per", [BATCH, PAIR, SAMPLE])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_first_and_the_last_of_a_block(pairing, per):
    """Batch sizes around a warp, a block, and two samples for each thread of a block."""
    rng = random.Random(per)
    for batch in (0, 1, 2, 32, 33, 512, 513, 1024):
        plan_grid.check(draw_case(rng, batch, pairing, per), rng.choice(ORDERS))


def test_batches_that_sort_in_the_memory_of_the_plan():
    for k, args in enumerate(plan_grid.beyond_cases()):
        plan_grid.check(args, ORDERS[k % len(ORDERS)])


def test_the_largest_batch():
    plan_grid.check(draw_case(random.Random(1), 65536, CROSS_CLASS, BATCH))


@pytest.mark.parametrize("batch", [300, 1500])
def test_classes_that_meet_in_one_slot_of_the_hash_table(batch):
    """Labels that the kernel's hash sends to one slot, and to the slots where the table wraps."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    rng = random.Random(4)
    for place in (0, 2**63, 2**64 - 2**32):
        products = [place + rng.randrange(2**32) for _ in range(40)]
        labels = [(p * inverse + 2**63) % 2**64 - 2**63 for p in products]
        for order in ORDERS[:2]:
            state, settings, _, *rest = draw_case(rng, batch, CROSS_CLASS, SAMPLE)
            chosen = torch.tensor([rng.choice(labels) for _ in range(batch)])
            plan_grid.check((state, settings, chosen, *rest), order)


def test_partners_of_the_caller_are_clamped():
    partner = torch.tensor([-5, 2**31 - 1, -(2**31), 7, 1], dtype=torch.int32)
    for per in (BATCH, PAIR, SAMPLE):
        state, settings, labels, _, *rest, _ = draw_case(random.Random(per), 5, TENSOR, per)
        plan_grid.check((state, settings, labels, partner, *rest, None))


@pytest.mark.parametrize("version", [0, fm.plan_state(1)[VERSION_WORD].item() + 2**32])
@pytest.mark.parametrize("per", [BATCH, SAMPLE])
def test_a_state_of_another_version_poisons(per, version):
    state, *rest = draw_case(random.Random(2), 40, SHUFFLE, per)
    state[VERSION_WORD] = version
    step = int(state[STEP_WORD])
    _, weight, blend, _ = host.draw_plan(state, *rest)
    assert weight.isnan().all() and blend.isnan().all()
    assert state[STEP_WORD] == step


# ------------------------------------------------------------------ draw_erasing


def test_every_bit_of_erased_boxes():
    plan_grid.check_erasing_cases(CASES // 2, seed=3)


@pytest.mark.parametrize("mode", MODES)
def test_erased_boxes_around_a_warp_and_a_block(mode):
    rng = random.Random(mode)
    for batch in (*BATCHES, 511, 512, 513):
        plan_grid.check_erasing(erasing_case(rng, batch, mode, 1 + batch % 2), rng.choice(ORDERS))


def test_a_state_of_another_version_erases_nothing():
    state, *rest = erasing_case(random.Random(2), 40, RAND, 3)
    state[VERSION_WORD] += 2**32
    before, rest[0] = state.clone(), fm.erasing_settings(prob=1.0)
    box, value, _ = host.draw_erasing(state, *rest)
    assert not box.any() and not value.any() and torch.equal(state, before)
