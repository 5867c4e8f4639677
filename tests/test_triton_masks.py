"""The Triton kernels that mix by masks, against the reference: bit for bit, but for the sigmoid."""

from __future__ import annotations

import importlib
import random

import pytest
import torch
from mask_cases import ROUGH, pool_calls, random_calls
from triton_masks import CODES, SIGMOID, mask_of
from triton_mixes import PAIRINGS, arguments, batch, expect, plan_of
from triton_place import DEVICE, HALF, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.codes import BILINEAR, FLIP, MASK_SEPARABLE, NEAREST, SELF
from fused_mixup.reference.masks import dense_mask
from fused_mixup.reference.pairing import transpose_pairing
from fused_mixup.schemas import MaskArguments
from fused_mixup.triton_kernels import common, configs

masks_module = importlib.import_module("fused_mixup.triton_kernels.masks")
pytestmark = [pytest.mark.gpu, quiet]
DTYPES = (torch.float32, torch.uint8, torch.float64, *HALF)
proof = pytest.mark.proof  # the interpreter is slow
NONE = MaskArguments(None, None, None, None, None, 0)


def check_masked(x: torch.Tensor, plan, mask: MaskArguments) -> None:
    """Check mix_masked, its backward and, where the pairing allows, mix_masked_."""
    args = arguments(plan)
    want = expect(reference.mix_masked, x, *args, *mask)
    got = tk.mix_masked(x, *args, *mask)
    assert torch.equal(got, want) and got.stride() == torch.empty_like(x).stride()
    if x.is_floating_point():
        transposed = transpose_pairing(plan.partner.to(DEVICE)) if plan.rule == 0 else (None,) * 2
        back = args[0], *transposed, *args[1:], *mask
        # The reference runs on the CPU: on a GPU its index_add_ sums in any order.
        host = [a.cpu() if isinstance(a, torch.Tensor) else a for a in back]
        want_grad = expect(reference.mix_masked_backward, x.cpu(), *host).to(DEVICE)
        assert torch.equal(tk.mix_masked_backward(x, *back), want_grad)
    if plan.pairing in ("flip", "self"):
        y = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=DEVICE).copy_(x)
        assert tk.mix_masked_(y, *args, *mask) is None
        assert torch.equal(y, want)


def test_every_code():
    """Pairs of an odd batch, in place too, with boxes."""
    check_masked(batch(7), plan_of(7, "flip", "boxes", (5, 7)), mask_of(7, 5, 7))


@pytest.mark.parametrize("dtype", [DTYPES[1], *(pytest.param(d, marks=proof) for d in DTYPES)])
def test_dtypes(dtype):
    name = PAIRINGS[DTYPES.index(dtype)]
    check_masked(batch(6, (3, 5, 7), dtype), plan_of(6, name, "boxes", (5, 7)), mask_of(6, 5, 7))


@proof
@pytest.mark.parametrize("name", PAIRINGS)
def test_pairings_and_batch_sizes(name):
    sizes = {"flip": (0, 1, 8), "roll": (2,), "self": (3,), "permutation": (1, 7), "many": (6,)}
    for size in sizes[name]:
        box = "none" if size % 2 else "boxes"
        check_masked(batch(size), plan_of(size, name, box, (5, 7)), mask_of(size, 5, 7))


@proof
@pytest.mark.parametrize("layout", ["channels_last", "offset", "strided", "transposed", "video"])
def test_layouts(layout):
    """More planes than one program takes, planes that are vectors, frames that share a mask."""
    shape = {"video": (2, 3, 4, 6), "offset": (5, 4, 8)}.get(layout, (3, 5, 7))
    layout = {"video": "channels_last"}.get(layout, layout)
    name = "permutation" if layout == "strided" else "flip"
    x = batch(6, shape, layout=layout)
    check_masked(x, plan_of(6, name, "boxes", shape[-2:]), mask_of(6, *shape[-2:]))


@proof
def test_boxes_of_other_dims_and_one_host_row():
    mask = mask_of(6, 5, 7)
    check_masked(batch(6, (2, 5, 7)), plan_of(6, "flip", "boxes", (2, 5, 7)), mask)
    check_masked(batch(6, (2, 5, 7)), plan_of(6, "roll", "boxes", (7,)), mask)
    check_masked(batch(6), plan_of(6, "flip", "uniform", (5, 7)), mask)
    check_masked(batch(6, (5, 7)), plan_of(6, "self", "none", ()), mask)


@pytest.mark.parametrize("interpolation", [NEAREST, BILINEAR])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (11, 16)])
def test_maps(size, interpolation):
    """A map that is smaller or larger than the image, in every dtype."""
    x, plan = batch(2, (1, 9, 10)), plan_of(2, "flip", "none", ())
    dtypes = (torch.bool, torch.uint8, torch.float32) if size[0] == 7 else HALF
    for dtype in dtypes:
        mask = mask_of(2, 9, 10, CODES[4:], 0, size, dtype, interpolation)
        assert torch.equal(
            tk.mix_masked(x, *arguments(plan), *mask),
            reference.mix_masked(x, *arguments(plan), *mask),
        )
        mean = tk.mask_mean(*mask, 9, 10)
        assert torch.equal(mean, reference.mask_mean(*mask, 9, 10))


def _pooled(size: int, name: str, samples: int, clean: bool, masked: bool) -> None:
    plan = plan_of(size, name, "boxes", (5, 7))
    mask = mask_of(size, 5, 7) if masked else NONE
    x, other = batch(size), batch(samples, layout="strided")
    partner, *rest = arguments(plan)
    if partner is not None:
        numbers = ([8, -4, 99, 7, 0, 5] * 2)[:size]
        partner = torch.tensor(numbers, dtype=torch.int32, device=DEVICE)
    args = x, other, partner, *rest, *mask, clean
    rows = 2 * size if clean else size
    want, got = (torch.zeros(rows, 3, 5, 7, device=DEVICE) for _ in range(2))
    reference.mix_masked_out(*args, want)
    assert tk.mix_masked_out(*args, got) is None
    assert torch.equal(got, want)


@proof
def test_one_mask_for_all_samples():
    code, threshold, rows, columns, *rest = mask_of(1, 5, 7, (MASK_SEPARABLE,), 4, None)
    shared = (code.expand(4), threshold.expand(4), rows.expand(4, 4, 5), columns.expand(4, 4, 7))
    check_masked(batch(4), plan_of(4, "roll", "none", ()), MaskArguments(*shared, *rest))


def test_partners_from_another_tensor_and_the_clean_batch():
    _pooled(4, "many", 9, True, True)


@proof
@pytest.mark.parametrize("masked", [True, False])
def test_pools(masked):
    for size, name, samples, clean in ((6, "flip", 6, False), (6, "roll", 7, True)):
        _pooled(size, name, samples, clean, masked)
    _pooled(7, "many", 3, False, masked)


def test_no_mask():
    x, plan = batch(3), plan_of(3, "flip", "none", ())
    want, got = (torch.zeros(6, 3, 5, 7, device=DEVICE) for _ in range(2))
    for op, out in ((reference.mix_masked_out, want), (tk.mix_masked_out, got)):
        op(x, None, *arguments(plan), *NONE, True, out)
    assert torch.equal(got, want)
    flat, plan = batch(2, (17,)), plan_of(2, "roll", "boxes", (17,))
    assert torch.equal(
        tk.mix_masked(flat, *arguments(plan), *NONE), reference.mix(flat, *arguments(plan))
    )


def test_shares_of_0_and_1_move_bits():
    """NaN and infinity of a sample that a mask leaves out do not spread; zeros keep their sign."""
    x = batch(4, (1, 2, 4))
    x[0], x[1, 0, 0, 0], x[2] = torch.nan, torch.inf, -0.0
    mask = mask_of(4, 2, 4, CODES[4:5], 0, (2, 4))
    mask.map.round_()
    plan = plan_of(4, "roll", "none", ())
    for op in (reference.mix_masked, tk.mix_masked):
        got = op(x, *arguments(plan), *mask)
        want = torch.where(mask.map[:, None] == 1, x, x.roll(1, 0))
        assert torch.equal(got.view(torch.int32), want.view(torch.int32))


def test_sigmoid():
    """As exact as the reference: within 2 units in the last place."""
    logits = torch.linspace(-95, 95, 6000, device=DEVICE).view(1, 60, 100)
    code = torch.tensor([SIGMOID], dtype=torch.int32, device=DEVICE)
    mask = MaskArguments(code, torch.zeros(1, device=DEVICE), None, None, logits, 0)
    # The mask itself: what a batch of ones keeps beside a partner of zeros.
    x = torch.ones(1, 1, 60, 100, device=DEVICE)
    plan = plan_of(1, "self", "none", ())
    got = torch.empty_like(x)
    tk.mix_masked_out(x, torch.zeros_like(x), *arguments(plan), *mask, False, got)
    want = dense_mask(mask, 60, 100)[:, None]
    apart = got.view(torch.int32) - want.view(torch.int32)
    assert int(apart.abs().max()) <= 2
    exact = torch.sigmoid(logits.double())[:, None]
    normal = exact > 2.0**-126
    assert float(((got - exact) / exact)[normal].abs().max()) < 2 * 2.0**-23
    logits[0, 0, 0] = torch.nan
    tk.mix_masked_out(x, torch.zeros_like(x), *arguments(plan), *mask, False, got)
    assert bool(got[0, 0, 0, 0].isnan()) and int(got.isnan().sum()) == 1


def test_means(monkeypatch):
    """Values beyond [0, 1] and NaN, which are not checked on a device; many programs a sample."""
    mask = mask_of(6, 30, 50, stored=(30, 50))
    mask.map[4:] = 3 * mask.map[4:] - 1
    mask.map[4, 2, 3] = torch.nan
    mask.rows[1] /= 2**20  # few units of 2^-24, which are rounded
    want = reference.mask_mean(*mask, 30, 50)
    assert want[0] == 1 and 0 < want[1] < 2**-20
    assert torch.equal(tk.mask_mean(*mask, 30, 50), want)
    monkeypatch.setattr(masks_module, "_MEAN_ALONE", 256)
    monkeypatch.setitem(configs.DEFAULT, "mask_mean", configs.Config(128))
    assert torch.equal(tk.mask_mean(*mask, 30, 50), want)
    assert tk.mask_mean(*mask_of(0, 3, 3), 3, 3).shape == (0,)


@proof
def test_positions_in_64_bits(monkeypatch):
    """Run the code for planes of 2^30 elements on small ones."""
    monkeypatch.setattr(common, "WIDE_FROM", 0)
    check_masked(batch(3, layout="strided"), plan_of(3, "flip", "boxes", (5, 7)), mask_of(3, 5, 7))
    check_masked(batch(3), plan_of(3, "permutation", "none", ()), mask_of(3, 5, 7))


@proof
def test_random_calls():
    rng = random.Random(5)
    for call in random_calls(12, 5, DTYPES[:4]):  # the interpreter rounds bfloat16 otherwise
        x = call.x.to(DEVICE)
        args = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in call.plan + call.mask]
        bound = {"rtol": 0, "atol": 0}
        if call.rough:
            bound = dict.fromkeys(bound, ROUGH[x.dtype])

        def near(got, want, bound=bound):
            torch.testing.assert_close(got, want, equal_nan=True, **bound)

        want = reference.mix_masked(x, *args)
        near(tk.mix_masked(x, *args), want)
        *pool, out = pool_calls(call, rng)
        pool = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in pool]
        got, into = out.to(DEVICE), out.to(DEVICE, copy=True)
        tk.mix_masked_out(*pool, got)
        reference.mix_masked_out(*pool, into)
        near(got, into)
        if x.is_floating_point():
            back = call.backward(call.x)
            moved = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in back]
            near(tk.mix_masked_backward(*moved).cpu(), reference.mix_masked_backward(*back))
        if x.shape[-2]:
            size = x.shape[-2:]
            near(tk.mask_mean(*args[4:], *size), reference.mask_mean(*args[4:], *size))
        if call.plan[3] in (FLIP, SELF):
            tk.mix_masked_(x, *args)
            near(x, want)


def test_refusals():
    x, plan = batch(4), plan_of(4, "roll", "none", ())
    with pytest.raises(ValueError, match="pairing: expected 1 .flip. or 3 .self. in place, got 2"):
        tk.mix_masked_(x, *arguments(plan), *mask_of(4, 5, 7))
    with pytest.raises(ValueError, match="columns: expected shape"):
        tk.mix_masked(x, *arguments(plan), *mask_of(4, 5, 8))
    with pytest.raises(ValueError, match="out: expected shape"):
        tk.mix_masked_out(x, None, *arguments(plan), *NONE, True, torch.empty_like(x))
