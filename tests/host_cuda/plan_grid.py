"""Compares draw_plan and draw_erasing in the host harness with the reference, to the bit."""

from __future__ import annotations

import random

import torch
from draw_cases import PAIRINGS, assert_same_plan, draw_case, draw_cases
from erasing_cases import assert_same_erasing, erasing_case, erasing_cases

from fused_mixup import reference
from fused_mixup.codes import BATCH, CROSS_CLASS, RAND, SAMPLE, SHUFFLE

from . import lib
from . import ops as host
from .batches import ORDERS

# Sizes around those that shared memory holds: 1024 samples of a batch, and 4096 keys.
NEAR, CHUNK = 1024, 4096
BEYOND = (NEAR + 1, CHUNK, CHUNK + 1, CHUNK + 33, 3 * CHUNK + 2)


def check(args, order=0, settings_on_device=False):
    lib.set_order(order)
    state, *rest = args
    expected_state = state.clone()
    expected = reference.draw_plan(expected_state, *rest)
    assert_same_plan(host.draw_plan(state, *rest, settings_on_device), expected)
    assert torch.equal(state, expected_state)


def check_cases(count, seed, large=0.0) -> int:
    for k, args in enumerate(draw_cases(count, seed, large)):
        check(args, ORDERS[k % len(ORDERS)], settings_on_device=bool(k & 1))
    return count


def beyond_cases(batches=BEYOND, seed=0):
    """Batches whose keys, hash table and counts lie in the plan's memory."""
    rng = random.Random(seed)
    for batch_size in batches:
        for pairing in PAIRINGS:
            if pairing >= SHUFFLE:
                yield draw_case(rng, batch_size, pairing, rng.randrange(SAMPLE + 1))


def barrier_cases():
    """Cases that need each barrier of the kernel: several warps, classes, merges of four chunks."""
    rng = random.Random(3)
    yield draw_case(rng, 200, CROSS_CLASS, SAMPLE)
    yield draw_case(rng, 3 * CHUNK + 200, SHUFFLE, BATCH)


def check_erasing(args, order=0, settings_on_device=False):
    lib.set_order(order)
    state, *rest = args
    expected_state = state.clone()
    expected = reference.draw_erasing(expected_state, *rest)
    assert_same_erasing(host.draw_erasing(state, *rest, settings_on_device), expected)
    assert torch.equal(state, expected_state)


def check_erasing_cases(count, seed) -> int:
    for k, args in enumerate(erasing_cases(count, seed)):
        check_erasing(args, ORDERS[k % len(ORDERS)], settings_on_device=bool(k & 1))
    return count


def erasing_barrier_case():
    """Several warps, which all need the state that one thread reads."""
    return erasing_case(random.Random(3), 70, RAND, 1)


def run(count) -> int:
    """Check ``count`` small cases of each op, and each pairing beyond shared memory, for
    grid.run()."""
    done = check_cases(count, seed=5) + check_erasing_cases(count, seed=6)
    for args in beyond_cases((NEAR + 1, CHUNK + 33)):
        check(args)
        done += 1
    return done
