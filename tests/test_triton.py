"""The Triton kernels that mix, paste and make targets, against the reference.

float32, float64 and uint8 must agree bit for bit. So must float16; bfloat16 rounds to nearest on a
GPU, but the interpreter truncates, and is compared with truncated results.
"""

from __future__ import annotations

import importlib
import itertools

import pytest
import torch
from triton_mixes import PAIRINGS, arguments, batch, check_all, pairing, plan_of, truncate
from triton_place import DEVICE, HALF, INTERPRETED, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.plan import MixPlan
from fused_mixup.reference.pairing import transpose_pairing
from fused_mixup.triton_kernels import common

mix_module = importlib.import_module("fused_mixup.triton_kernels.mix")  # not the function mix
pytestmark = [pytest.mark.gpu, quiet]
DTYPES = (torch.float32, torch.float64, torch.uint8, *HALF)
SHAPES = {"image": (3, 5, 7), "aligned": (3, 16, 16), "flat": (17,), "video": (2, 4, 6, 8)}


# ---------------------------------------------------------------- mixing


# The interpreter is slow, so axes that meet in no line of a kernel come in pairs, not as a product.


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype, name):
    """A dtype decides how values are read and rounded: each has plans with boxes and without."""
    box = ("none", "boxes")[(DTYPES.index(dtype) + PAIRINGS.index(name)) % 2]
    check_all(batch(3, (3, 5, 7), dtype), plan_of(3, name, box, (5, 7)))


SIZES, KINDS = (0, 1, 2, 3, 8), ("none", "uniform", "boxes")


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("size", SIZES)
def test_batch_sizes(size, name):
    """A size decides how many rows there are and who is whose partner. The largest has every kind
    of box; each other one has them in turn."""
    turn = (SIZES.index(size) + PAIRINGS.index(name)) % len(KINDS)
    for box in KINDS if size == SIZES[-1] else KINDS[turn : turn + 1]:
        check_all(batch(size), plan_of(size, name, box, (5, 7)))


LAYOUTS = ("contiguous", "channels_last", "offset", "strided", "transposed")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_layouts(shape, layout):
    """A layout gives the addresses, and a pairing the kernel: images have two pairings with the
    hardest kind of plan, and other kinds in turn; other shapes have one pairing in turn."""
    turn = list(SHAPES).index(shape) + LAYOUTS.index(layout)
    shape = SHAPES[shape]
    if layout == "channels_last" and len(shape) not in (3, 4):
        pytest.skip("has no channels_last")
    spatial = shape[-1:] if len(shape) == 1 else shape[1:]
    names = ("flip", "permutation")
    pairs = [(names[turn % 2], "boxes")]
    if shape == SHAPES["image"]:
        pairs = [*itertools.product(names, ("boxes",)), (names[turn % 2], "rows")]
        pairs += [(names[(turn + 1) % 2], "uniform")]
    for name, box in pairs:
        check_all(batch(3, shape, torch.float32, layout), plan_of(3, name, box, spatial))


def test_out_in_another_layout():
    plan = plan_of(3, "permutation", "boxes", (5, 7))
    x, args = batch(3), arguments(plan)
    out = batch(3, layout="strided")
    assert tk.mix_out(x, *args, out) is None
    assert torch.equal(out, reference.mix(x, *args))
    expanded = torch.ones((), device=DEVICE).expand_as(x)  # sum() gives a gradient of stride 0
    back = args[0], *transpose_pairing(args[0]), *args[1:]
    assert torch.equal(tk.mix_backward(expanded, *back), reference.mix_backward(expanded, *back))


def test_zero_sized_dims():
    for shape in ((0, 5, 7), (3, 0, 7)):
        x = torch.empty(4, *shape, device=DEVICE)
        plan = plan_of(4, "roll", "none", (5, 7))
        tk.mix_(x, *arguments(plan))
        assert tk.mix(x, *arguments(plan)).shape == x.shape


@pytest.mark.parametrize(
    ("own", "other"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (-0.5, 1.75), (1.0, 1.0)]
)
@pytest.mark.parametrize("name", ["flip", "roll", "permutation"])
def test_blends(name, own, other):
    """A weight of 0 drops its term, (1, 0) keeps every bit, and weights need not sum to one."""
    x = batch(4)
    if own == 0 or other == 0:
        x[0, 0, 0, 1] = torch.inf
        x[2, 1] = torch.nan
    base = MixPlan.uniform(4, pairing(name, 4))
    row = torch.tensor([[own, other]], dtype=torch.float64)
    for blend in (row.expand(4, 2), row.repeat(4, 1).to(DEVICE)):
        args = base.partner_or_none, blend, base.box, base.rule
        args = (None if args[0] is None else args[0].to(DEVICE), *args[1:])
        want = reference.mix(x, *args)
        for got in (tk.mix(x, *args), x.clone()):
            if got.data_ptr() != x.data_ptr() and not torch.equal(
                got.nan_to_num(), want.nan_to_num()
            ):
                tk.mix_(got, *args)
            assert torch.equal(got.isnan(), want.isnan())
            assert torch.equal(got.nan_to_num(), want.nan_to_num())
            if (own, other) == (1, 0):
                assert torch.equal(got.view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("lam", [0.1, 1 / 3, 0.7])
def test_float64_weights_keep_every_bit(lam):
    x = batch(4, (9,), torch.float64)
    plan = MixPlan.uniform(4, "flip", lam)
    assert torch.equal(tk.mix(x, *arguments(plan)), lam * x + (1.0 - lam) * x.flip(0))


def test_uint8_rounds_half_to_even():
    x = torch.arange(256, dtype=torch.uint8, device=DEVICE).view(1, 256)
    x = torch.cat((x, torch.ones_like(x)))
    plan = MixPlan.uniform(2, "flip", 0.5)
    got = tk.mix(x, *arguments(plan))
    assert torch.equal(got, (x.double() + x.flip(0).double()).div(2).round().to(torch.uint8))
    blend = torch.tensor([[2.0, -3.0]], dtype=torch.float64).expand(2, 2)  # past both ends
    args = None, blend, plan.box, plan.rule
    assert torch.equal(tk.mix(x, *args), reference.mix(x, *args))


def test_box_and_blend_of_one_host_row():
    """A box on rows that are blended outside it."""
    x = batch(4)
    row = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(4, 2)
    box = torch.tensor([[1, 2, 4, 9]], dtype=torch.int32).expand(4, 4)  # ends past the border
    for rule in (1, 2, 3):
        want = reference.mix(x, None, row, box, rule)
        got = x.clone()
        tk.mix_(got, None, row, box, rule)
        assert torch.equal(got, want) and torch.equal(tk.mix(x, None, row, box, rule), want)


@pytest.mark.parametrize("size", [70_000, 300])
def test_a_host_box_that_starts_far_from_the_origin(size):
    """Start and stop of a box of the host travel in one number."""
    x = batch(2, (size,))
    blend = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(2, 2)
    box = torch.tensor([[size - 9, size - 2]], dtype=torch.int32).expand(2, 2)
    assert torch.equal(tk.mix(x, None, blend, box, 1), reference.mix(x, None, blend, box, 1))


def test_indices_and_boxes_out_of_range_are_clamped():
    x = batch(4)
    partner = torch.tensor([-5, 99, 2, 0], dtype=torch.int32, device=DEVICE)
    blend = torch.full((4, 2), 0.5, dtype=torch.float64, device=DEVICE)
    box = torch.tensor([[-3, -2, 99, 4]], dtype=torch.int32, device=DEVICE).repeat(4, 1)
    want = reference.mix(x, partner, blend, box, 0)
    assert torch.equal(tk.mix(x, partner, blend, box, 0), want)
    tk.mix_(x, partner, blend, box, 0)
    assert torch.equal(x, want)


@pytest.mark.parametrize("name", ["roll", "permutation", "many"])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_batches_too_large_for_a_tile(name, layout, monkeypatch):
    monkeypatch.setattr(mix_module, "MAX_TILE_ROWS", 8)
    monkeypatch.setattr(mix_module, "SCRATCH_BYTES", 9 * 4 * 40)  # 40 columns of 105 at a time
    for box in ("none", "boxes"):
        plan = plan_of(9, name, box, (5, 7))
        x = batch(9, layout=layout)
        want = reference.mix(x, *arguments(plan))
        y = torch.empty_strided(x.shape, x.stride(), device=DEVICE).copy_(x)
        tk.mix_(y, *arguments(plan))
        assert torch.equal(y, want)


@pytest.mark.parametrize("name", PAIRINGS)
def test_positions_in_64_bits(name, monkeypatch):
    """Run the code for samples of 2^30 elements on small samples."""
    monkeypatch.setattr(common, "WIDE_FROM", 0)
    for layout in ("contiguous", "strided"):
        check_all(batch(3, layout=layout), plan_of(3, name, "boxes", (5, 7)))
    labels = torch.tensor([0, 4, 2], device=DEVICE)
    args = None, plan_of(3, "flip", "none", ()).weight, 1, 5, 0.1, torch.float32
    assert torch.equal(tk.mix_targets(labels, *args), reference.mix_targets(labels, *args))


def test_cutmix_touches_the_box_alone():
    """NaN outside the box must not spread, and a view's surroundings must not change."""
    host = batch(4, (3, 9, 9))
    x = host[:, :, 1:6, 1:8]
    want, before = x.clone(), host.clone()
    plan = MixPlan.uniform(4, "flip", 0.5, (1, 2, 5, 7))
    want[:, :, 1:5, 2:7] = x.flip(0)[:, :, 1:5, 2:7]
    tk.mix_(x, *arguments(plan))
    assert torch.equal(x, want)
    before[:, :, 1:6, 1:8] = want
    assert torch.equal(host, before)


# ---------------------------------------------------------------- pasting


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.int8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float64]
    + [torch.complex64, torch.complex128, torch.float8_e4m3fn],
    ids=str,
)
def test_paste_any_dtype(dtype):
    for name, box in (("flip", "uniform"), ("permutation", "boxes"), ("roll", "boxes")):
        plan = plan_of(3, name, box, (5, 7))
        x = torch.randint(0, 2, (3, 5, 7), device=DEVICE).to(dtype)
        partner = plan.partner.to(DEVICE).long()
        inside = reference.blending.inside_box(plan.box, x)
        want = torch.where(inside, x.float()[partner], x.float()) if not dtype.is_complex else None
        if want is None:
            want = torch.where(inside, x[partner], x)
        tk.paste_(x, plan.partner_or_none, plan.box, plan.rule)
        assert torch.equal(x if dtype.is_complex else x.float(), want)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF], ids=str)
@pytest.mark.parametrize("shape", [(), (3, 2)], ids=["rows", "pixels"])
def test_mix_targets(shape, dtype):
    for num_classes, smoothing in ((1, 0.0), (5, 0.1), (1000, 0.1)):
        labels = torch.randint(0, num_classes, (4, *shape), device=DEVICE)
        labels[1] = labels[0]
        for name, box in (("flip", "none"), ("permutation", "rows")):
            plan = plan_of(4, name, box, ())
            args = plan.partner_or_none, plan.weight, plan.rule, num_classes, smoothing
            want = reference.mix_targets(labels, *args, dtype)
            got = tk.mix_targets(labels, *args, dtype)
            if INTERPRETED and dtype == torch.bfloat16:
                want = truncate(
                    lambda y, *a: reference.mix_targets(y.long(), *a), labels, *args, torch.float32
                )
            assert torch.equal(got, want) and got.dtype == dtype and got.is_contiguous()


def test_mix_targets_out_of_range_and_empty():
    plan = plan_of(4, "flip", "none", ())
    labels = torch.tensor([0, 7, 2, -1], device=DEVICE)
    args = None, plan.weight, plan.rule, 5, 0.0, torch.float32
    got, want = tk.mix_targets(labels, *args), reference.mix_targets(labels, *args)
    assert torch.equal(got.isnan(), want.isnan()) and bool(want.isnan().any())
    none = MixPlan.uniform(0, "flip", 0.5)
    assert tk.mix_targets(labels[:0], None, none.weight, *args[2:]).shape == (0, 5)


def test_not_importable_under_the_bare_name():
    import importlib.util
    import pathlib

    path = pathlib.Path(tk.__file__)
    spec = importlib.util.spec_from_file_location("triton_kernels", path)
    with pytest.raises(ImportError, match=r"import fused_mixup\.triton_kernels"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
