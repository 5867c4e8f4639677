"""The kernel of draw_neighbors in csrc/cuda, run on the host (tests/host_cuda), to the bit."""

from __future__ import annotations

import random

import pytest
import torch
from host_cuda import build, neighbor_ops
from host_cuda.batches import ORDERS
from neighbor_cases import neighbor_case

from fused_mixup.codes import GAUSSIAN, STREAM_WORD, TOPHAT, VERSION_WORD

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


def test_every_bit_of_the_reference():
    neighbor_ops.check_neighbor_cases(60, seed=2)


@pytest.mark.parametrize("order", ORDERS)
def test_the_last_of_many_blocks_steps_the_state(order):
    for blocks in (1, 2, 3, 5, 4096):
        args = neighbor_case(random.Random(blocks), 40, 3, TOPHAT)
        neighbor_ops.check_neighbors(args, order, most_blocks=blocks)


def test_labels_that_are_not_finite_keep_their_sample():
    state, settings, labels, _, _ = neighbor_case(random.Random(1), 40, None, GAUSSIAN)
    labels[3], labels[5] = float("nan"), float("inf")
    settings[0] = 0.5
    partner = neighbor_ops.draw_neighbors(state.clone(), settings, labels, None, GAUSSIAN)
    assert partner[3] == 3 and partner[5] == 5
    neighbor_ops.check_neighbors((state, settings, labels, None, GAUSSIAN))
    pool = torch.full_like(labels[:7], float("nan"))
    for kernel in (GAUSSIAN, TOPHAT):
        neighbor_ops.check_neighbors((state, settings, labels, pool, kernel))


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_state_of_another_version_keeps_every_sample(blocks):
    state, *rest = neighbor_case(random.Random(2), 40, None, GAUSSIAN)
    state[VERSION_WORD] += 2**32
    before = state.clone()
    partner = neighbor_ops.draw_neighbors(state, *rest, most_blocks=blocks)
    assert partner.tolist() == list(range(40)) and torch.equal(state, before)
    assert int(state[STREAM_WORD]) < 2**32  # the count of blocks is cleared
