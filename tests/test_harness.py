"""The host harness finds the faults of wrong kernels, and none in right kernels."""

from __future__ import annotations

import itertools
import json
import re

import pytest
import torch
from host_cuda import build, lib
from host_cuda.batches import ORDERS
from host_cuda.planted import FLOATS, run_planted

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)")

needs_races = pytest.mark.skipif(bool(build.why_not("races")), reason=str(build.why_not("races")))
needs_asan = pytest.mark.skipif(bool(build.why_not("asan")), reason=str(build.why_not("asan")))
BUILT = ("plain", pytest.param("ucontext", marks=pytest.mark.proof))
VARIANTS = (*BUILT, pytest.param("races", marks=[needs_races, pytest.mark.proof]))

# The first floats that two blocks of 64 threads leave in a tensor of zeros, or two clusters of two.
RIGHT = {
    "tree_reduction": [64.0] * 2,
    "shuffle_reduction": [64.0] * 2,
    "atomic_counters": [128.0] + [64.0] * 128,
    "double_buffer": [float((t + 5) % 64) for t in range(64)] * 2,
    "warp_exchange": [t + 1.0 for t in range(64)] * 2,
    "last_block": [0.0, 0.0, 3.0, 3.0, 1.0, 2.0],
    "staged_copy": [63.0 - t for t in range(64)] + [127.0 - t for t in range(64)],
    "exchange": [100.0 * (b ^ 1) + t for b in range(4) for t in range(64)],
    "two_exchanges": [4.0] * 256,
    "static_exchange": [20.0 + (b + 1) % 2 for b in range(4) for _ in range(64)],
    "cluster_in_place": [128.0 * c + 128.0 - t for c in range(2) for t in range(128)],
}
# These start from 0, 1, 2, …
FROM_NUMBERS = {
    "staged_copy": RIGHT["staged_copy"],
    "cluster_in_place": RIGHT["cluster_in_place"],
    "copies_of_each_block": [64.0 * b + 63.0 - t for b in range(4) for t in range(64)],
    "bulk_reversal": RIGHT["staged_copy"],
    "bulk_one_waits_for_all": RIGHT["staged_copy"],
    "bulk_over_fenced": RIGHT["staged_copy"],
    "bulk_ring": [t + 1.0 for t in range(128)],
}
RIGHT |= FROM_NUMBERS
RACE = {
    "missing_barrier": "race|has written",
    "barrier_before_overwriting": r"race \((read after write|write after read)\) in dynamic shared",
    "shuffle_as_barrier": "race .* in dynamic shared",
    "warp_barrier_for_block": "race .* in dynamic shared",
    "neighbour_in_place": "race .* in global",
    "blocks_in_place": r"race .* in global memory .*thread \d+ of block [01], thread \d+ of block",
    "everybody_writes": r"race \(write after write\) in global",
    "neighbouring_bytes": "race .* in global",
    "atomic_and_read": r"race \((atomic after read|read after atomic)\) in global",
    "copy_without_barrier": "race|has written",
    "no_release": r"race \(read after write\) in global memory",
    "no_acquire": r"race \(read after write\) in global",
    "no_barrier_after_ticket": "race|has written",
    "write_after_release": r"race \(read after write\) in global",
    "bulk_one_waits": "reads dynamic .* (before it knows|has written)",
    "bulk_barrier_unseen": "race .* in static shared|has written",
    "bulk_early_refill": "reads dynamic .* before it knows|race .* in dynamic",
    "bulk_over_written": "a bulk copy writes dynamic .* without a fence_proxy_async",
    "bulk_source_written": "a bulk copy reads global .*, which thread .* of its kernel wrote",
    "bulk_source_overwritten": "writes global .* before it knows|race .* in global",
    "unwritten_dynamic": "dynamic shared memory at byte .* has written",
    "unwritten_static": "of block . reads static shared memory at byte .* has written",
    "not_waited_for": r"before copies_done\(\)",
    "read_behind_dynamic": r"out of bounds: 4 bytes of dynamic shared memory at byte \d+ of 512",
    "write_behind_static": r"out of bounds: 4 bytes of static shared memory at byte \d+ of 128",
    "block_barrier_for_cluster": "race|no thread of the block has written",
    "write_after_arrival": "race .* in dynamic shared",
    "overwritten_while_read": "race .* in dynamic shared",
    "never_written_there": "no thread of the block has written",
    "across_clusters": "race .* in global",
}
ALWAYS = {
    "early_exit": "63 of 64 threads at a barrier, 1 gone",
    "two_barriers": "threads at different barriers",
    "missing_lane": "lanes missing",
    "lane_outside_mask": "lane 16, which takes no part",
    "mask_without_itself": "mask leaves it out",
    "one_type_twice": "one type in two places",
    "misaligned_store": "misaligned access of 16 bytes",
    "before_the_barrier": "read before it has started",
    "between_arrival_and_wait": "read before it has started",
    "ends_while_read": "may end while another block still reads",
    "one_block_ends_while_read": "block 1 of the cluster may end while another block still reads",
    "wrong_rank": "a read of block 2 in a cluster of 2",
    "rank_of_the_grid": r"a read of block [23] in a cluster of 2",
    "foreign_address": "at an address that is not this block's",
    "one_block_alone": "64 of 128 threads at a barrier, 64 gone",
    "one_thread_less": "126 of 128 threads at a barrier, 2 gone",
    "wait_alone": "without arriving",
    "arrival_twice": "arrives twice",
    "arrival_at_the_end": "ends at the cluster's barrier",
    "fence_of_another_block": r"initialized without fence_proxy_async\(\)",
    "bulk_no_wait": "before it knows|has written|no thread waits for them",
    "bulk_wrong_parity": "before it knows|has written|no thread waits|never ends",
    "bulk_next_parity": "never ends: 0 of 1 arrivals, 0 of 0 bytes",
    "bulk_expects_too_much": "never ends: 1 of 1 arrivals, 128 of 256 bytes",
    "bulk_expects_too_little": "never ends: 1 of 1 arrivals, 256 of 128 bytes",
    "bulk_too_many_arrivals": "more arrivals at a barrier than its phase counts",
    "bulk_too_few_arrivals": "never ends: 1 of 2 arrivals",
    "bulk_barrier_unfenced": r"initialized without fence_proxy_async\(\)",
    "bulk_barrier_unset": "has not initialized|has written",
    "bulk_misaligned": "an address that is no multiple of 16",
    "bulk_ragged": "a size that is no multiple of 16",
    "bulk_behind_shared": "outside shared memory",
}
SANITIZERS = {
    "read_behind": "heap-buffer-overflow(.|\n)*READ of size 4",
    "write_behind": "heap-buffer-overflow(.|\n)*WRITE of size 4",
    "read_behind_dynamic": "heap-buffer-overflow(.|\n)*READ of size 4",
    "write_behind_static": "heap-buffer-overflow(.|\n)*WRITE of size 4",
    "misaligned_load": "misaligned address",
    "overflow": "signed integer overflow",
    "misaligned_store": "misaligned access of 16 bytes",
    "early_exit": "1 gone",
}


def run(name, order, start=None):
    lib.set_order(order)
    out = torch.zeros(FLOATS) if start is None else start.clone()
    run_planted(name, out)
    return out


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("variant", VARIANTS)
def test_right_kernels_are_not_accused(variant, name, order):
    expected = torch.tensor(RIGHT[name])
    start = torch.arange(FLOATS, dtype=torch.float32) if name in FROM_NUMBERS else None
    with lib.variant(variant):
        assert torch.equal(run(name, order, start)[: len(expected)], expected)


@needs_races
@pytest.mark.proof
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", RACE)
def test_the_race_detector_finds(name, order):
    """The detector finds races in every order: they do not depend on how threads happen to run."""
    with lib.variant("races"), pytest.raises(lib.LaunchError, match=RACE[name]):
        run(name, order)
    with lib.variant("races"):  # the next launch starts afresh
        run("tree_reduction", order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_finds(variant, name, order):
    with lib.variant(variant), pytest.raises(lib.LaunchError, match=ALWAYS[name]):
        run(name, order)


@pytest.mark.parametrize("variant", BUILT)
@pytest.mark.parametrize(
    "name",
    [
        "missing_barrier",
        "neighbour_in_place",
        "blocks_in_place",
        "copy_without_barrier",
    ],
)
def test_orders_disagree_over_races(variant, name):
    start = torch.arange(FLOATS, dtype=torch.float32) ** 2
    with lib.variant(variant):
        results = [run(name, order, start) for order in ORDERS]
    assert any(not torch.equal(a, b) for a, b in itertools.combinations(results, 2))


@pytest.mark.parametrize("variant", BUILT)
def test_shared_memory_starts_as_nan(variant):
    with lib.variant(variant):
        assert run("unwritten_dynamic", 0)[:128].isnan().all()
        # The second block does not see values of the first.
        assert run("unwritten_static", 0)[:128].isnan().tolist() == [False] * 64 + [True] * 64
        assert run("not_waited_for", 0)[:64:4].isnan().all()


def test_bulk_copies_move_late():
    """They move when a thread waits for them, not before."""
    with lib.variant("plain"), pytest.raises(lib.LaunchError, match="no thread waits"):
        run("bulk_no_wait", 0)


@needs_asan
@pytest.mark.proof
def test_sanitizers_find():
    done = build.run_sanitized("host_cuda.planted", *SANITIZERS, *RIGHT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, expected in SANITIZERS.items():
        status, errors = found[name]
        assert status != 0, name
        assert re.search(expected, errors), (name, errors)
    for name in RIGHT:
        assert found[name] == [0, ""], (name, found[name])


def test_every_planted_kernel_is_tried():
    drivers = ("driver_bugs.cpp", "driver_cluster_bugs.cpp", "driver_bulk_bugs.cpp")
    source = "".join((build.HERE / name).read_text() for name in drivers)
    names = set(re.findall(r"__global__ void (\w+)\(", source))
    assert names == {*RIGHT, *RACE, *ALWAYS, *SANITIZERS}
