"""The mix kernels of csrc/cuda, run on the host (tests/host_cuda), against the reference.

float32, float64 and uint8 must be equal bit for bit; so must the half types, since kernel and
reference both round once, after the same float32 arithmetic.
"""

from __future__ import annotations

import itertools
import random as random_numbers

import edge_cases
import pytest
import torch
from comparing import same_bits
from host_cuda import build, grid, lib
from host_cuda import ops as host
from host_cuda.batches import (
    BOXES,
    FLIP,
    ORDERS,
    PAIRINGS,
    PASTED,
    ROLL,
    TENSOR,
    copy_of,
    make_batch,
    make_blend,
    make_box,
    make_partner,
    random,
)

from fused_mixup import reference

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
def test_mix(dtype, pairing):
    # Each dtype and pairing has every geometry once; each enters the turns of blends and boxes at
    # another place, so that all meet.
    generator = torch.Generator().manual_seed(0)
    for case in grid.cases(grid.mix_seed(dtype, pairing), rounds=1):
        grid.check_mix(dtype, pairing, case, generator)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dtype", PASTED, ids=str)
def test_paste(dtype, pairing):
    generator = torch.Generator().manual_seed(1)
    seed = 7 * list(PAIRINGS).index(pairing) + PASTED.index(dtype)
    for case in grid.cases(seed, rounds=1):
        grid.check_paste(dtype, pairing, case, generator)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dtype", host.DTYPES[:4], ids=str)
def test_mix_targets(dtype, pairing):
    generator = torch.Generator().manual_seed(3)
    for case in grid.target_cases(grid.mix_seed(dtype, pairing)):
        grid.check_targets(dtype, pairing, case, generator)


def test_mix_boxes():
    grid.check_boxes(120, 6)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_out_of_place_changes_layout(layout):
    generator = torch.Generator().manual_seed(2)
    x, _ = make_batch(8, [3, 16, 16], torch.float32, "contiguous", generator)
    for pairing, box_kind in itertools.product(PAIRINGS, BOXES):
        partner = make_partner(pairing, 8, generator)
        args = (
            partner,
            make_blend("rows", 8, generator),
            make_box(box_kind, 8, [3, 16, 16], generator),
            PAIRINGS[pairing],
        )
        out, _ = make_batch(8, [3, 16, 16], torch.float32, layout, generator)
        host.mix_out(x, *args, out)
        assert same_bits(out, reference.mix(x, *args))


def test_a_weight_of_zero_drops_its_term():
    x = torch.full((4, 3, 8, 8), torch.inf)
    x[::2] = 1.0
    for pairing, blend in itertools.product((FLIP, ROLL), ((1.0, 0.0), (0.5, 0.0), (0.0, 0.5))):
        blend = torch.tensor([blend], dtype=torch.float64)
        for rows in (blend.expand(4, 2), blend.repeat(4, 1)):
            args = (None, rows, torch.empty((4, 0), dtype=torch.int32), pairing)
            assert same_bits(host.mix(x, *args), reference.mix(x, *args))
            y = x.clone()
            host.mix_(y, *args)
            assert same_bits(y, reference.mix(x, *args))


@pytest.mark.parametrize("limit", [16 * 300 - 1, 0])
@pytest.mark.parametrize("order", ORDERS)
def test_graphs_beyond_shared_memory(order, limit):
    """Chains, trees and cycles: the order in which rows are overwritten must spare originals."""
    lib.set_order(order)
    batch = 300
    generator = torch.Generator().manual_seed(order)
    i = torch.arange(batch)
    graphs = {
        "chain": (i + 1).clamp(max=batch - 1),
        "one cycle": (i + 1) % batch,
        "pairs": i ^ 1,
        "self": i,
        "star": torch.zeros_like(i),
        "tree": i // 2,
        "random": torch.randint(0, batch, (batch,), generator=generator),
        "permutation": torch.randperm(batch, generator=generator),
    }
    x = random([batch, 5], torch.float32, generator)
    blend = make_blend("rows", batch, generator)
    box = torch.empty((batch, 0), dtype=torch.int32)
    for name, partner in graphs.items():
        y = x.clone()
        host.mix_(y, partner.int(), blend, box, TENSOR, shared_limit=limit)
        assert same_bits(y, reference.mix(x, partner.int(), blend, box, TENSOR)), name


def test_partner_out_of_range_is_clamped():
    x = torch.randn(4, 3, 8, 8)
    partner = torch.tensor([-5, 2**31 - 1, -(2**31), 7], dtype=torch.int32)
    blend = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(4, 2)
    box = torch.empty((4, 0), dtype=torch.int32)
    expected = reference.mix(x, partner, blend, box, TENSOR)
    assert same_bits(host.mix(x, partner, blend, box, TENSOR), expected)
    for limit in (host.SHARED_LIMIT, 0):
        y = x.clone()
        host.mix_(y, partner, blend, box, TENSOR, shared_limit=limit)
        assert same_bits(y, expected)


@pytest.mark.parametrize("layout", ["contiguous", "misaligned", "strided"])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_samples_beyond_32_bits_are_cut(pairing, layout):
    """No machine holds samples of 2^31 vectors: a lower limit makes small samples exceed it."""
    generator = torch.Generator().manual_seed(6)
    rule, shape = PAIRINGS[pairing], [3, 18, 8, 8]
    for count, box_kind, blend_kind in itertools.product(
        (65, 257), ("none", "uniform", "rows"), ("rows", (1.0, 0.0))
    ):
        partner = make_partner(pairing, 5, generator)
        blend = make_blend(blend_kind, 5, generator)
        # The box takes two axes: a sample can be split along the other two dims.
        box = make_box(box_kind, 5, [1, 8, 8], generator)
        x, base = make_batch(5, shape, torch.float32, layout, generator)
        args = (partner, blend, box, rule)
        want, want_base = copy_of(x, base)
        want.copy_(reference.mix(x, *args))
        with lib.max_count(count):
            assert same_bits(host.mix(x, *args), want)
            for limit in (host.SHARED_LIMIT, 0):
                y, y_base = copy_of(x, base)
                host.mix_(y, *args, shared_limit=limit)
                assert same_bits(y_base, want_base), (count, box_kind, blend_kind, limit)


def test_a_box_along_every_dim_leaves_nothing_to_cut():
    generator = torch.Generator().manual_seed(7)
    x, _ = make_batch(4, [3, 50], torch.float32, "contiguous", generator)
    box = make_box("rows", 4, [1, 3, 50], generator)
    blend = make_blend("rows", 4, generator)
    before = x.clone()
    with lib.max_count(20), pytest.raises(lib.LaunchError, match="failed with 1"):
        host.mix_(x, None, blend, box, FLIP)
    assert same_bits(x, before)
    with lib.max_count(200):
        host.mix_(x, None, blend, box, FLIP)
    assert same_bits(x, reference.mix(before, None, blend, box, FLIP))


def test_a_box_of_nothing_leaves_every_dim_to_cut():
    generator = torch.Generator().manual_seed(7)
    x, _ = make_batch(4, [3, 50], torch.float32, "contiguous", generator)
    box = torch.tensor([[1, 9, 1, 9]], dtype=torch.int32).expand(4, 4)
    args = (None, make_blend("rows", 4, generator), box, FLIP)
    want = reference.mix(x, *args)
    with lib.max_count(20):
        assert same_bits(host.mix(x, *args), want)
        host.mix_(x, *args)
    assert same_bits(x, want)


def test_a_walk_refuses_rows_beyond_its_flags():
    x = torch.empty(2**30 + 1, 1, dtype=torch.uint8)  # no page of it is touched
    blend = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(len(x), 2)
    box = torch.empty((1, 0), dtype=torch.int32).expand(len(x), 0)
    with pytest.raises(lib.LaunchError, match="failed with 1"):
        host.mix_(x, None, blend, box, ROLL)


def test_quotients_by_multiplication():
    """Blocks and elements are told apart by them; up to 2^31 without a division."""
    rng = random_numbers.Random(0)
    edges = [1, 2, 3, 65535, 65536, 65537, 2**30, 2**31 - 2, 2**31 - 1]
    divisors = [*edges, 2**31, 2**33 + 1, *(rng.randrange(1, 2**31) for _ in range(60))]
    numbers = [0, *edges, 2**31, 2**40 + 5, *(rng.randrange(2**31) for _ in range(60))]
    for divisor in divisors:
        for n in (*numbers, divisor - 1, 3 * divisor - 1, 3 * divisor):
            assert lib.long_div(n, divisor) == n // divisor, (n, divisor)


@pytest.mark.parametrize("width", [4, 3])  # a vector, single elements
@pytest.mark.parametrize("boxed", [False, True])
def test_more_rows_than_two_dims_of_a_grid_count(width, boxed):
    """Beyond 65,535 rows, pairs, and blocks; every kernel that numbers rows."""
    batch = 2 * 66001 + 1
    generator = torch.Generator().manual_seed(8)
    x = random([batch, width], torch.float32, generator)
    blend = make_blend("rows", batch, generator)
    box = make_box("rows" if boxed else "none", batch, [width], generator)
    for kind in ("flip", "self", "roll", "shared"):
        partner = make_partner(kind, batch, generator)
        args = (partner, blend, box, PAIRINGS[kind])
        assert same_bits(host.mix(x, *args), reference.mix(x, *args)), kind
        if kind in ("flip", "self"):
            y = x.clone()
            host.mix_(y, *args)
            assert same_bits(y, reference.mix(x, *args)), kind
        if kind in ("flip", "roll"):
            backward = (partner, None, None, *args[1:])
            want = reference.mix_backward(x, *backward)
            assert same_bits(host.mix_backward(x, *backward), want), kind


@pytest.mark.parametrize("enough", [1, 5, 8, 4096])  # 4, 3, 2 and 1 rounds of a block
@pytest.mark.parametrize("box_kind", ["rows", "borders", "uniform"])
def test_pairs_of_several_rounds(enough, box_kind):
    """A block keeps its rows for several rounds, of which the last may be cut short."""
    generator = torch.Generator().manual_seed(9)
    for dtype, shape in ((torch.float32, [3, 40, 68]), (torch.float64, [2, 33, 50])):
        x, _ = make_batch(9, shape, dtype, "contiguous", generator)
        blend = make_blend("rows", 9, generator)
        box = make_box(box_kind, 9, shape, generator)
        args = (None, blend, box, FLIP)
        want = reference.mix(x, *args)
        backward = (None, None, None, *args[1:])
        with lib.enough_blocks(enough):
            assert same_bits(host.mix(x, *args), want)
            got = host.mix_backward(x, *backward)
            y = x.clone()
            host.mix_(y, *args)
        assert same_bits(got, reference.mix_backward(x, *backward))
        assert same_bits(y, want)


@pytest.mark.parametrize("box_kind", ["none", "rows"])
def test_samples_of_many_tiles_have_wider_ones(box_kind):
    generator = torch.Generator().manual_seed(10)
    x = random([3, 4 * 65539], torch.float32, generator)  # more than 1024 tiles of 1 KiB
    args = (None, make_blend("rows", 3, generator), make_box(box_kind, 3, [4 * 65539], generator))
    y = x.clone()
    host.mix_(y, *args, ROLL)
    assert same_bits(y, reference.mix(x, *args, ROLL))


def test_a_tile_holds_a_vector_of_each_sample_at_least():
    """16 bytes of a vector and 40 that a row needs: one byte less, and the batch is walked."""
    x = torch.randn(40, 64)
    args = (torch.arange(40).roll(3).int(), torch.tensor([[0.3, 0.7]]).double().expand(40, 2))
    args += (torch.empty((40, 0), dtype=torch.int32), TENSOR)
    for limit, kernel in ((40 * 56, "tile_kernel"), (40 * 56 - 1, "walk_kernel")):
        lib.forget_launches()
        y = x.clone()
        host.mix_(y, *args, shared_limit=limit)
        assert any(kernel in name for name in lib.kernels()[1])
        assert same_bits(y, reference.mix(x, *args))


def test_edges_of_the_clamps():
    lib.set_order(0)
    edge_cases.check_mix(host, in_place=({}, {"shared_limit": 0}))
    edge_cases.check_transpose(host.mix_backward)
    edge_cases.check_targets(host)
    edge_cases.check_boxes(host)


@pytest.mark.parametrize("order", ORDERS)
def test_cycles_of_more_rows_than_a_block_has_threads(order):
    lib.set_order(order)
    edge_cases.check_long_graphs(host, 1500, in_place=({}, {"shared_limit": 0}))
    x, blend = torch.randn(600, 5), torch.tensor([[0.3, 0.7]]).double().expand(600, 2)
    args = (None, blend, torch.empty((600, 0), dtype=torch.int32), ROLL)
    y = x.clone()
    host.mix_(y, *args, shared_limit=0)  # one cycle, which no kernel orders
    assert same_bits(y, reference.mix(x, *args))
