"""The permutation by a ring of bulk-copied tiles, and pairs by 32 bytes, run on the host."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from comparing import same_bits
from host_cuda import build, lib
from host_cuda import ops as host
from host_cuda.batches import (
    FLIP,
    ORDERS,
    PAIRINGS,
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

sys.path.insert(0, str(build.ROOT / "tools"))
import ring_table

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]


def ring_case(batch, dtype, blocks, box_kind, pairing, generator, shape=(8, 1500), blend="rows"):
    """Mixes in place by the ring, beside the tile and the reference."""
    partner = make_partner(pairing, batch, generator)
    blend = make_blend(blend, batch, generator)
    box = make_box(box_kind, batch, list(shape), generator)
    x = random([batch, *shape], dtype, generator)
    args = (partner, blend, box, PAIRINGS[pairing])
    tiled, ringed = x.clone(), x.clone()
    host.mix_(tiled, *args)
    host.mix_(ringed, *args, ring_blocks=blocks)
    assert same_bits(ringed, tiled), (batch, dtype, blocks, box_kind, pairing)
    assert same_bits(ringed, reference.mix(x, *args))


@pytest.mark.parametrize("dtype", host.DTYPES, ids=str)
def test_the_ring_has_the_bits_of_the_tile(dtype):
    generator = torch.Generator().manual_seed(11)
    turns = itertools.cycle(
        itertools.product(
            ("none", "rows", "borders", "uniform", "empty"), ("roll", "permutation", "shared")
        )
    )
    for order, batch in itertools.product(ORDERS, (1, 2, 5, 64, 129)):
        lib.set_order(order)
        ring_case(batch, dtype, 1 + order, *next(turns), generator)
        ring_case(batch, dtype, 2, *next(turns), generator, blend=(0.3, 0.7))


def test_the_prediction_has_the_shape_of_the_ring():
    grids = ((1, 2, 7, 64, 256, 700, 1024, 1500, 2000), (1, 96, 1000, 18816), (0, 2), (1, 132))
    for case in itertools.product(*grids):
        batch, vectors, spatial, blocks = case
        expected = host.ring_shape(*case)
        assert ring_table.ring_shape(batch, vectors, spatial, 232448, blocks) == expected, case


@pytest.mark.parametrize("arch", ring_table.GPUS)
def test_the_prediction_reaches_the_goals(arch):
    assert ring_table.predict(256, arch).share >= 0.92
    assert ring_table.predict(1024, arch).share >= 0.86


def test_the_ring_at_its_largest_batches():
    generator = torch.Generator().manual_seed(12)
    for batch, width, stages in ((1024, 64, 3), (1500, 64, 2)):
        assert host.ring_shape(batch, 32, 0, 2) == (width, stages)
        ring_case(batch, torch.bfloat16, 2, "none", "permutation", generator, (256,))
        ring_case(batch, torch.bfloat16, 2, "rows", "shared", generator, (256,))
    assert host.ring_shape(2000, 32, 0, 2) == (0, 0)  # no two tiles fit: mix_tile.cuh
    ring_case(2000, torch.bfloat16, 2, "none", "permutation", generator, (256,))
    empty = torch.empty(0, 8, 8)
    host.mix_(empty, None, torch.empty(0, 2), torch.empty(0, 0).int(), ROLL, ring_blocks=2)


def test_the_ring_clamps_partners_and_boxes():
    """Out-of-range partners and boxes, λ that is no number: as the reference has them."""
    generator = torch.Generator().manual_seed(18)
    x = random([6, 8, 96], torch.float32, generator)
    partner = torch.tensor([-1, 6, -(2**31), 2**31 - 1, 3, 2], dtype=torch.int32)
    blend = make_blend((0.3, 0.7), 6, generator).clone()
    blend[4] = float("nan")
    box = torch.tensor([[-5, -9, 3, 99], [7, 95, 8, 96], [0, 96, 9, 97]], dtype=torch.int32)
    for boxes in (torch.empty((6, 0), dtype=torch.int32), box.repeat(2, 1)):
        want = reference.mix(x, partner.clamp(0, 5), blend, boxes.clamp(0), TENSOR)
        y = x.clone()
        assert kernels_of(host.mix_, y, partner, blend, boxes, TENSOR, ring_blocks=2) == {"ring"}
        assert same_bits(y, want)


@pytest.mark.parametrize("box_kind", ["none", "rows"])
def test_they_await_the_kernel_that_draws_their_plan(box_kind):
    generator = torch.Generator().manual_seed(16)
    with lib.dependent_launches():
        ring_case(5, torch.float32, 2, box_kind, "permutation", generator)
        x = random([5, 8, 96], torch.float32, generator)
        box = make_box(box_kind, 5, [8, 96], generator)
        args = (None, make_blend("rows", 5, generator), box, FLIP)
        want = reference.mix(x, *args)
        host.mix_(x, *args, wide=True)
    assert same_bits(x, want)


def kernels_of(call, *args, **options):
    lib.forget_launches()
    call(*args, **options)
    _, launched = lib.kernels()
    return {name.split("fused_mixup::")[1].split("_kernel")[0] for name in launched}


@pytest.mark.parametrize(
    ("layout", "shape", "kernel"),
    [
        ("contiguous", [4, 16, 24], "ring"),
        ("channels_last", [4, 16, 24], "ring"),
        ("offset", [4, 16, 24], "ring"),
        ("misaligned", [4, 16, 24], "tile"),
        ("strided", [4, 16, 24], "tile"),
        ("cropped", [4, 16, 24], "tile"),  # aligned vectors, in several runs of memory
        ("contiguous", [3, 17, 21], "tile"),  # samples of no multiple of 16 bytes
    ],
)
def test_what_bulk_copies_cannot_take_goes_through_the_tile(layout, shape, kernel):
    generator = torch.Generator().manual_seed(13)
    if layout == "cropped":
        base = random([6, 4, 20, 24], torch.float32, generator)
        x = base[:, :, :16]
    else:
        x, base = make_batch(6, shape, torch.float32, layout, generator)
    blend = make_blend("rows", 6, generator)
    for box_kind in ("none", "rows"):
        box = make_box(box_kind, 6, shape, generator)
        y, y_base = copy_of(x, base)
        args = (None, blend, box, ROLL)
        assert kernels_of(host.mix_, y, *args, ring_blocks=2) == {kernel}
        want, want_base = copy_of(x, base)
        want.copy_(reference.mix(x, *args))
        assert same_bits(y_base, want_base)
    assert kernels_of(host.mix_, y, *args) == {"tile"}  # where nothing asks for the ring


def test_the_ring_reads_each_element_once():
    generator = torch.Generator().manual_seed(14)
    none = torch.empty((9, 0), dtype=torch.int32)
    turns = itertools.product(("roll", "permutation", "shared"), (24, 25))
    for pairing, width in turns:  # tiles divide the samples, or the last one is short
        x = random([9, 4, 16, width], torch.float32, generator)
        piece, _ = host.ring_shape(9, x[0].numel() // 4, 0, 2)
        assert (x[0].numel() * 4 % piece == 0) == (width == 24)
        partner = make_partner(pairing, 9, generator)
        lib.bulk_loaded()
        host.mix_(x, partner, make_blend((0.3, 0.7), 9, generator), none, PAIRINGS[pairing],
                  ring_blocks=2)  # fmt: skip
        assert lib.bulk_loaded() == x.numel() * 4


# With 12 blocks the tiles of a block lie alike in their channels, with 5 its marks change; 40 rows
# have two words of marks.
@pytest.mark.parametrize(("batch", "blocks"), [(8, 12), (8, 5), (40, 5)])
def test_the_ring_reads_no_piece_that_no_row_needs(batch, blocks):
    generator = torch.Generator().manual_seed(14)
    x = random([batch, 4, 16, 24], torch.float32, generator)
    blend = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(batch, 1)
    box = torch.tensor([[2, 3, 9, 20]], dtype=torch.int32).repeat(batch, 1)
    box[3:] = 0
    args = (None, blend, box, ROLL)
    want = reference.mix(x, *args)
    width, _ = host.ring_shape(batch, 4 * 16 * 24 // 4, 2, blocks)
    inside = torch.zeros(4, 16, 24)
    inside[:, 2:9, 3:20] = 1
    touched = inside.view(-1, width // 4).any(1)
    # Vectors that the box covers in part need the sample itself too, and each row has some.
    part = inside.view(-1, 4).sum(1).remainder(4).ne(0).view(-1, width // 16).any(1)
    lib.bulk_loaded()
    host.mix_(x, *args, ring_blocks=blocks)
    assert same_bits(x, want)
    # The partners of rows 0, 1, 2 are the last, 0, 1; they need themselves where a vector is cut.
    pieces = 3 * int(touched.sum()) + int(part.sum())
    assert lib.bulk_loaded() == pieces * width
    assert pieces < batch * len(touched)


def test_32_bytes_at_once_where_they_are_aligned():
    generator = torch.Generator().manual_seed(15)
    blend, box = make_blend("rows", 5, generator), torch.empty((5, 0), dtype=torch.int32)
    for dtype, start, width in (
        (torch.float32, 0, 8),
        (torch.float32, 4, 4),
        (torch.bfloat16, 0, 16),
        (torch.float64, 2, 2),
        (torch.uint8, 0, 16),
    ):
        storage = torch.empty(5 * 96 + 40, dtype=dtype)
        offset = -storage.data_ptr() % 32 // storage.element_size() + start
        x = storage[offset : offset + 5 * 96].view(5, 96)
        x.copy_(random([5, 96], dtype, generator))
        want = reference.mix(x, None, blend, box, FLIP)
        lib.forget_launches()
        host.mix_(x, None, blend, box, FLIP, wide=True)
        _, launched = lib.kernels()
        (name,) = launched
        assert f", {width}, false, false>" in name, name
        assert same_bits(x, want)
