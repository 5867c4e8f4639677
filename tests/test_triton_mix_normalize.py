"""The Triton kernel of mix_normalize against the reference, to the bit.

A case takes a fifth of a second in the interpreter, so axes that meet in no line of the kernel come
in pairs, not as a product. There bfloat16 is cut off and not rounded, and compared with that.
"""

from __future__ import annotations

import pytest
import torch
from triton_mixes import PAIRINGS, arguments, plan_of
from triton_place import DEVICE, HALF, INTERPRETED, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import reference
from fused_mixup.plan import MixPlan
from fused_mixup.triton_kernels import common, configs

pytestmark = [pytest.mark.gpu, quiet, pytest.mark.usefixtures("one_thread")]

MEAN = [123.675, 116.28, 103.53, 0.0, -1e-3, 250.1, 3.0]
STD = [58.395, 57.12, 57.375, 1.0, 1e-3, -4.0, 0.3]
LAYOUTS = ("contiguous", "channels_last", "crop", "turned", "grey", "offset")


def pixels(shape, dtype=torch.uint8, layout="contiguous", seed=0) -> torch.Tensor:
    """Random pixels of a layout that loaders deliver (grey: one channel, expanded)."""
    torch.manual_seed(seed + sum(shape))
    b, c, h, w = shape
    if layout == "crop":
        x = pixels((b, h + 2, w + 3, c), dtype).permute(0, 3, 1, 2)[:, :, 1 : h + 1, 2 : w + 2]
    elif layout == "turned":
        x = pixels((b, w, h, c), dtype).permute(0, 3, 2, 1)
    elif layout == "grey":
        x = pixels((b, 1, h, w), dtype).expand(shape)
    elif layout == "offset":
        x = pixels((b + 1, c, h, w), dtype)[1:]
    else:
        x = torch.randint(0, 256, shape, device=DEVICE).to(dtype)
        if dtype.is_floating_point:
            x = x + torch.rand(shape, device=DEVICE).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    return x


def result(shape, dtype=torch.float32, layout="channels_last") -> torch.Tensor:
    """Memory for a result, full of NaN."""
    return pixels(shape, dtype, layout).fill_(torch.nan)


def flips(batch: int) -> torch.Tensor:
    return torch.arange(batch, device=DEVICE) % 2 == 0


def erasing(batch: int, boxes: int, value: tuple[int, int, int] | None):
    """Boxes that overlap, are empty, touch borders; noise where there is no shape of values."""
    choice = [[0, 0, 3, 4], [1, 2, 5, 7], [2, 2, 2, 6], [2, 0, 4, 3]]
    rows = [[choice[(i + k) % 4] for k in range(boxes)] for i in range(batch)]
    box = torch.tensor(rows, dtype=torch.int32, device=DEVICE).view(batch, boxes, 4)
    if value is not None:
        return box, torch.randn(value, device=DEVICE), None
    return box, None, torch.arange(-1, batch - 1, device=DEVICE) * (2**40 + 3)


def check(
    x: torch.Tensor | list[torch.Tensor],
    plan: MixPlan | tuple,
    out: torch.Tensor,
    first: bool = False,
    flip: torch.Tensor | None = None,
    erase: tuple = (None, None, None),
) -> torch.Tensor:
    channels = out.shape[1]
    before = [t.clone() for t in x]
    args = plan if isinstance(plan, tuple) else arguments(plan)
    rest = MEAN[:channels], STD[:channels], flip, *erase, first
    whole = [x] if isinstance(x, torch.Tensor) else x
    want = torch.empty_like(out, dtype=torch.float32)
    reference.mix_normalize(whole, *args, *rest, want)
    if INTERPRETED and out.dtype == torch.bfloat16:
        want = (want.view(torch.int32) & -65536).view(torch.float32)
    want = want.to(out.dtype)
    assert tk.mix_normalize(whole, *args, *rest, out) is None
    assert torch.equal(out.isnan(), want.isnan())
    assert torch.equal(out.nan_to_num(), want.nan_to_num())
    for a, b in zip(x, before, strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
    return out


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_images(layout):
    """Each with a result of each order; plans and turns of images in turn."""
    turn, shape = LAYOUTS.index(layout), (3, 3, 5, 7)
    for k, to in enumerate(("contiguous", "channels_last")):
        plan = plan_of(3, PAIRINGS[(turn + k) % 5], "boxes", (5, 7))
        flip = flips(3) if (turn + k) % 2 else None
        check(pixels(shape, layout=layout), plan, result(shape, layout=to), bool(turn % 2), flip)


@pytest.mark.parametrize("layout", ["crop", "turned"])
def test_layouts_of_results(layout):
    shape = (2, 3, 5, 7)
    full = torch.full((2, 8, 11, 3), 9.0, device=DEVICE)
    out = full.permute(0, 3, 1, 2)[:, :, 1:6, 2:9]
    out = result(shape, layout="turned") if layout == "turned" else out
    check(pixels(shape), plan_of(2, "roll", "boxes", (5, 7)), out)
    out.fill_(9.0)
    assert bool((full == 9.0).all())  # what surrounds a view stays


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_channels(channels):
    """Up to four have their constants as arguments, more of them in memory."""
    shape = (2, channels, 5, 7)
    for k, (x, out) in enumerate([(1, 1), (0, 1), (1, 0), (0, 0)]):
        erase = erasing(2, 2, ((1, 2, channels), (2, 1, 1))[k % 2] if k in (0, 3) else None)
        x, out = pixels(shape, layout=LAYOUTS[x]), result(shape, layout=LAYOUTS[out])
        if channels in (1, 4) and k % 2:
            continue
        check(x, plan_of(2, ("flip", "roll")[k // 2], "boxes", (5, 7)), out, erase=erase)


@pytest.mark.parametrize("shape", [(2, 3, 1, 9), (2, 3, 9, 1), (2, 5, 1, 1), (2, 1, 1, 1)], ids=str)
def test_sizes_of_one(shape):
    for layout in ("contiguous", "channels_last"):
        erase = torch.tensor([[[0, 0, 1, 1]]] * 2, dtype=torch.int32, device=DEVICE)
        erase = erase, torch.randn(1, 1, 1, device=DEVICE), None
        plan = plan_of(2, "flip", "none", ())
        x, out = pixels(shape, layout=layout), result(shape, layout=layout)
        check(x, plan, out, flip=flips(2), erase=erase)


def test_nothing_to_write():
    for shape in ((0, 3, 5, 7), (2, 0, 5, 7), (2, 3, 0, 7)):
        plan = plan_of(shape[0], "flip", "none", ())
        args = arguments(plan), MEAN[: shape[1]], STD[: shape[1]]
        x = [pixels(shape)] if shape[0] else []
        nothing = (None, None, None, None, False)
        tk.mix_normalize(x, *args[0], *args[1:], *nothing, result(shape))


def test_a_list_of_samples():
    shape = (3, 3, 5, 7)
    samples = [pixels((1, *shape[1:]), layout=LAYOUTS[k], seed=k)[0] for k in range(3)]
    check(samples, plan_of(3, "permutation", "boxes", (5, 7)), result(shape), flip=flips(3))


def test_positions_in_64_bits(monkeypatch):
    """Run the code for samples of 2^30 elements on small samples."""
    monkeypatch.setattr(common, "WIDE_FROM", 0)
    for channels, layout in ((3, "contiguous"), (3, "channels_last"), (5, "channels_last")):
        shape, plan = (2, channels, 5, 7), plan_of(2, "flip", "boxes", (5, 7))
        erase = erasing(2, 1, None if layout == "contiguous" else (1, 1, 1))
        check(pixels(shape, layout=layout), plan, result(shape), erase=erase)


@pytest.mark.parametrize(
    ("channels", "layouts"),
    [(3, ("contiguous", "channels_last")), (3, ("channels_last", "contiguous"))]
    + [(5, ("channels_last",) * 2), (5, ("contiguous",) * 2)],
)
def test_many_blocks(channels, layouts, monkeypatch):
    """Blocks read the partner, and look at what is erased, only where a box is near."""
    monkeypatch.setitem(configs.DEFAULT, "normalize", configs.Config(64))
    shape = (2, channels, 13, 11)
    box = torch.tensor([[2, 3, 5, 9], [11, 0, 13, 4]], dtype=torch.int32, device=DEVICE)
    blend = torch.tensor([[1.0, 0.0], [0.25, 0.75]], dtype=torch.float64, device=DEVICE)
    erase = torch.tensor([[[12, 5, 13, 11]], [[4, 0, 5, 11]]], dtype=torch.int32, device=DEVICE)
    erase = erase, torch.randn(2, 1, channels, device=DEVICE), None
    x, out = pixels(shape, layout=layouts[0]), result(shape, layout=layouts[1])
    check(x, (None, blend, box, 2), out, erase=erase)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("first", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, *HALF], ids=str)
def test_dtypes(dtype, first):
    shape = (3, 3, 5, 7)
    turn = dtype.itemsize + first
    for k, to in enumerate((torch.float32, HALF[turn % 2])):
        name, box = PAIRINGS[(k + turn) % 5], ("uniform", "boxes", "none")[(k + turn) % 3]
        layout = LAYOUTS[(k + first) % 2]
        check(pixels(shape, dtype, layout), plan_of(3, name, box, (5, 7)), result(shape, to), first)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batch_sizes(size):
    for k, name in enumerate(PAIRINGS):
        if k % 3 == size - 1 or name == "flip":
            shape, flip = (size, 3, 2, 5), flips(size) if k % 2 else None
            box = ("boxes", "none", "uniform")[(size + k) % 3]
            check(pixels(shape), plan_of(size, name, box, (2, 5)), result(shape), True, flip)


@pytest.mark.parametrize("d", [0, 1, 2, 3])
def test_boxes(d):
    """Boxes of one host row, of a tensor, past the borders; for three dims of channels too."""
    row = torch.tensor([[1, -2, 3][3 - d :] + [2, 4, 99][3 - d :]], dtype=torch.int32)
    host_row = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(3, 2)
    shape = (3, 3, 5, 7)
    x, box = pixels(shape), row.view(1, 2 * d)
    check(x, (None, host_row, box.expand(3, -1), 1), result(shape))
    rows = host_row.to(DEVICE).contiguous(), box.repeat(3, 1).to(DEVICE)
    check(x, (None, *rows, 2), result(shape), first=True)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (-0.5, 1.75), (0.0, 0.0)])
def test_weights(weights):
    """A weight of 0 drops its term, and (1, 0) keeps the value: no NaN of another image."""
    shape = (3, 3, 5, 7)
    x = pixels(shape, torch.float32)
    x[0, 0, 0, 1], x[2, 1] = torch.inf, torch.nan
    x[1, 2, 0, 0] = MEAN[2]
    blend = torch.tensor([weights], dtype=torch.float64)
    none = torch.empty(3, 0, dtype=torch.int32)
    for first in (False, True):
        check(x, (None, blend.expand(3, 2), none, 1), result(shape), first)
        check(x, (None, blend.repeat(3, 1).to(DEVICE), none, 2), result(shape), first)


def test_bytes_are_rounded_half_to_even_before_they_are_normalised():
    x = torch.arange(256, device=DEVICE).to(torch.uint8).view(1, 1, 16, 16)
    x = torch.cat((x, torch.ones_like(x)))
    box = torch.empty(2, 0, dtype=torch.int32)
    for row in ((0.5, 0.5), (2.0, -3.0)):  # halves; past both ends
        blend = torch.tensor([row], dtype=torch.float64).expand(2, 2)
        got = check(x, (None, blend, box, 1), result(x.shape), first=True)
        exact = row[0] * x.double() + row[1] * x.flip(0).double()
        want = (exact.round().clamp(0, 255).float() - MEAN[0]) / STD[0]
        assert torch.equal(got, want)


# ---------------------------------------------------------------- what is erased


@pytest.mark.parametrize(
    ("boxes", "value"),
    [(0, (1, 0, 1)), (1, (1, 1, 1)), (3, (3, 3, 3)), (3, (1, 3, 1)), (2, (3, 1, 3))],
    ids=str,
)
def test_values_that_erase(boxes, value):
    shape, plan = (3, 3, 5, 7), plan_of(3, "flip", "boxes", (5, 7))
    check(pixels(shape), plan, result(shape), flip=flips(3), erase=erasing(3, boxes, value))


@pytest.mark.parametrize("channels", [3, 5])
def test_noise(channels):
    """Many pixels of one image, so that both tails of the noise are there."""
    shape = (2, channels, 29, 31)
    box = torch.tensor([[[0, 0, 29, 31]]] * 2, dtype=torch.int32, device=DEVICE)
    keys = torch.tensor([2**62 + 11, -9], device=DEVICE)
    plan = MixPlan.identity(2)
    got = check(pixels(shape), plan, result(shape), erase=(box, None, keys))
    assert got.abs().max() > 3.3  # beyond 2.9 the other polynomial holds


def test_noise_of_overlapping_boxes_in_a_pair():
    shape, plan = (3, 3, 5, 7), plan_of(3, "flip", "boxes", (5, 7))
    check(pixels(shape), plan, result(shape, torch.float16), True, erase=erasing(3, 2, None))


def test_arguments_are_checked_before_anything_is_written():
    shape = (2, 3, 5, 7)
    plan, out = plan_of(2, "flip", "none", ()), result(shape)
    good = [
        [pixels(shape)],
        *arguments(plan),
        MEAN[:3],
        STD[:3],
        None,
        None,
        None,
        None,
        False,
        out,
    ]
    for at, bad in ((2, plan.blend[:1]), (3, torch.zeros(2, 3).int()), (4, 7), (5, MEAN[:2])):
        with pytest.raises(ValueError, match=r"fused_mixup, (blend|box|pairing|mean): expected"):
            tk.mix_normalize(*good[:at], bad, *good[at + 1 :])
    assert bool(out.isnan().all())
