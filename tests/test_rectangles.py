"""mix_rectangles: against PyTorch's interpolate, against slices by hand, layouts and errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from collage_cases import random_results
from comparing import same_bits
from torch.nn.functional import interpolate

import fused_mixup as fm
from fused_mixup import RectanglePlan, backends, ops, reference

SIZE = (19, 23)
MODES = {
    "nearest": {"mode": "nearest"},
    "bilinear": {"mode": "bilinear"},
    "bilinear_aligned": {"mode": "bilinear", "align_corners": True},
}


def images(*shape, dtype=torch.float32):
    x = torch.rand(shape)
    return (255 * x).to(dtype) if dtype == torch.uint8 else x.to(dtype)


def settings(count):
    """(box, part of the source) of random sizes, small and large, down to one pixel."""
    generator = torch.Generator().manual_seed(count)

    def box():
        ends = [torch.randperm(n + 1, generator=generator)[:2].sort().values for n in SIZE]
        (top, bottom), (left, right) = (e.tolist() for e in ends)
        return top, left, bottom, right

    return [(box(), box()) for _ in range(count)]


def crop(x, box):
    top, left, bottom, right = box
    return x[..., top:bottom, left:right]


@pytest.mark.skipif(
    backends.reason_unavailable("native", "CPU") is not None, reason="no CPU extension"
)
def test_random_calls_equal_the_reference_bit_for_bit():
    with fm.backend("native"):
        for name, got, want, args in random_results(160, 7, ops, reference):
            assert same_bits(got, want), (name, args)


# ------------------------------------------------------------------ PyTorch's interpolate


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.float16], ids=str)
def test_nearest_is_pytorchs_bit_for_bit(backend, dtype):
    x = images(3, 2, *SIZE, dtype=dtype)
    for box, part in settings(40):
        plan = fm.resize_into(3, SIZE, box, "roll", source_box=part)
        want = x.clone()
        size = crop(x, box).shape[-2:]
        source = crop(x.roll(1, 0), part)
        small = interpolate(source.float(), size, mode="nearest")
        crop(want, box).copy_(small.to(dtype))
        assert torch.equal(fm.mix_rectangles(x, plan), want)


@pytest.mark.parametrize("way", ["bilinear", "bilinear_aligned"])
def test_bilinear_is_pytorchs_to_two_units(backend, way):
    """PyTorch's kernels may fuse products and sums; indices and weights are the same."""
    x = images(3, 2, *SIZE)
    for box, part in settings(40):
        plan = fm.resize_into(3, SIZE, box, "roll", source_box=part, resample=way)
        got = crop(fm.mix_rectangles(x, plan), box)
        want = interpolate(crop(x.roll(1, 0), part), got.shape[-2:], **MODES[way])
        # Weights differ by 2^-23 of a coordinate below 32 where one of its operations is fused.
        assert (got - want).abs().max() <= 2 * 2**-23 + 32 * 2**-23


@pytest.mark.parametrize("way", MODES)
def test_half_types_and_bytes_are_rounded_once(backend, way):
    for dtype in (torch.float16, torch.bfloat16, torch.uint8):
        x = images(3, 2, *SIZE, dtype=dtype)
        plan = fm.resize_into(3, SIZE, (2, 3, 12, 20), resample=way)
        exact = fm.mix_rectangles(x.float(), plan)
        want = (exact.round() if dtype == torch.uint8 else exact).to(dtype)
        assert torch.equal(fm.mix_rectangles(x, plan), want)
        if dtype == torch.float16 and way != "nearest":
            truth = interpolate(x.flip(0).double(), (10, 17), **MODES[way])
            eager = interpolate(x.flip(0), (10, 17), **MODES[way])
            error, theirs = (
                (t.double() - truth).abs().max()
                for t in (crop(fm.mix_rectangles(x, plan), (2, 3, 12, 20)), eager)
            )
            assert error <= theirs + 1e-6


@pytest.mark.parametrize("way", ["nearest", "bilinear"])
def test_a_scale_factor_is_the_step(backend, way):
    """interpolate(scale_factor=τ) steps by 1/τ, not by the ratio of the sizes."""
    x = images(2, 3, *SIZE)
    for tau in (0.31, 0.5, 0.618, 0.77):
        size = [int(n * tau) for n in SIZE]
        box = (1, 2, 1 + size[0], 2 + size[1])
        plan = fm.resize_into(2, SIZE, box, resample=way, tau=tau)
        got = crop(fm.mix_rectangles(x, plan), box)
        # recompute_scale_factor None: the factor itself is used.
        want = interpolate(x.flip(0), scale_factor=tau, **MODES[way])
        assert torch.equal(got, want) if way == "nearest" else torch.allclose(got, want, atol=1e-5)


# ------------------------------------------------------------------ layouts of rectangles


def test_equal_rectangles_without_resampling_are_cutmix(backend):
    x = images(4, 3, *SIZE)
    box = (3, 4, 17, 15)
    plan = fm.MixPlan.uniform(4, "flip", 0.5, box)
    got = fm.mix_rectangles(x, fm.shifted_cutmix(4, SIZE, box, box[:2]))
    assert torch.equal(got, fm.mix(x, plan))


def test_ricap_is_the_papers_code(backend):
    x = images(5, 3, *SIZE)
    source = torch.stack([torch.randperm(5) for _ in range(4)], 1)
    for y, x_ in ((7, 9), (0, 23), (19, 1)):
        sizes = (y, x_), (19 - y, x_), (y, 23 - x_), (19 - y, 23 - x_)
        start = [(torch.randint(0, 20 - h, ()), torch.randint(0, 24 - w, ())) for h, w in sizes]
        start = [(int(a), int(b)) for a, b in start]
        tiles = [
            x[source[:, k]][..., a : a + h, b : b + w]
            for k, ((a, b), (h, w)) in enumerate(zip(start, sizes, strict=True))
        ]
        want = torch.cat((torch.cat(tiles[:2], 2), torch.cat(tiles[2:], 2)), 3)
        plan = fm.ricap_plan(SIZE, (y, x_), source, start)
        assert torch.equal(fm.mix_rectangles(x, plan), want)
        shares = torch.tensor([0] + [h * w / (19 * 23) for h, w in sizes])
        torch.testing.assert_close(plan.weight, shares.expand(5, 5))
        assert torch.equal(plan.label_sources[:, 1:], source.int())


@pytest.mark.parametrize("canvas", [None, SIZE, (50, 17)])
def test_mosaic_lies_around_its_centre(backend, canvas):
    x = images(3, 2, *SIZE, dtype=torch.uint8)
    h, w = SIZE
    height, width = canvas or (2 * h, 2 * w)
    source = torch.randint(0, 3, (3, 4))
    for y, x_ in ((h, 12), (5, 14), (height, 0), (h - 4, width)):
        plan = fm.mosaic_plan(SIZE, (y, x_), source, canvas=canvas)
        room = torch.full((3, 2, height + 2 * h, width + 2 * w), 114, dtype=torch.uint8)
        for k, (dy, dx) in enumerate(itertools.product((0, h), (0, w))):
            room[..., y + dy : y + dy + h, x_ + dx : x_ + dx + w] = x[source[:, k]]
        want = room[..., h : h + height, w : w + width]
        assert torch.equal(fm.mix_rectangles(x, plan), want)
        torch.testing.assert_close(plan.weight.sum(1), torch.ones(3))
        assert not plan.weight[:, 0].any()


def test_visible_shares_are_those_of_the_pixels():
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(0, 12, (40, 4, 2, 2), generator=generator).sort(2).values
    box = ends.flatten(2)  # starts, then stops
    source = torch.zeros(40, 4, dtype=torch.int32)
    plan = RectanglePlan(source, box, box, size=(12, 11))
    marks = torch.arange(1, 5).view(4, 1, 1, 1).expand(4, 1, 12, 11).float()
    each = RectanglePlan(torch.arange(4).expand(40, 4), box, box, size=(12, 11))
    shown = fm.mix_rectangles(torch.zeros(40, 1, 12, 11), each, other=marks)
    counts = torch.stack([(shown == k).sum((1, 2, 3)) for k in range(5)], 1)
    torch.testing.assert_close(plan.weight, counts / 132)
    covered = counts[:, 1:] / counts[:, 1:].sum(1, keepdim=True).clamp(min=1)
    filled = RectanglePlan(source, box, box, fill=0.0, size=(12, 11))
    torch.testing.assert_close(filled.weight[:, 1:], covered)


def test_sources_of_another_tensor(backend):
    """RecursiveMix: the last mixed batch, of another size, resized into the new one."""
    x, bank = images(3, 2, *SIZE), images(7, 2, *SIZE)
    plan = fm.resize_into(3, SIZE, (0, 0, 9, 11), [6, 0, 2], resample="bilinear_aligned")
    want = x.clone()
    small = interpolate(bank[[6, 0, 2]], (9, 11), **MODES["bilinear_aligned"])
    want[..., :9, :11] = small
    torch.testing.assert_close(fm.mix_rectangles(x, plan, other=bank), want)


def test_what_is_not_shown_stays_out(backend):
    x = images(2, 1, 4, 4)
    x[1] = torch.nan
    x[1, :, 1, 1] = 5.0
    plan = RectanglePlan([[1], [0]], [[[1, 1, 2, 2]]] * 2, [[[0, 0, 2, 3]], [[0, 0, 4, 4]]],
                         resample="bilinear", size=(4, 4), weight=[[1.0, 1.0]] * 2)  # fmt: skip
    got = fm.mix_rectangles(x, plan)
    assert got.isfinite().all()
    assert (got[0, 0, :2, :3] == 5).all()


def test_spans_of_token_ids(backend):
    """SSMix: a span of a text replaces one of another; ids are moved as they are."""
    ids = torch.arange(24).view(3, 8)
    plan = fm.shifted_cutmix(3, (1, 8), [[0, 1, 1, 4], [0, 2, 1, 5], [0, 0, 1, 0]], (0, 5), "roll")
    want = ids.clone()
    want[0, 1:4], want[1, 2:5] = ids[2, 5:8], ids[0, 5:8]
    assert torch.equal(fm.mix_rectangles(ids.unsqueeze(1), plan).squeeze(1), want)


def test_results_keep_the_memory_format_and_take_out(backend):
    x = images(3, 4, *SIZE).to(memory_format=torch.channels_last)
    plan = fm.mosaic_plan(SIZE, (9, 9), torch.zeros(3, 4, dtype=torch.int64))
    made = fm.mix_rectangles(x, plan)
    assert made.shape == (3, 4, 38, 46)
    assert made.is_contiguous(memory_format=torch.channels_last)
    out = torch.empty(3, 4, 38, 46)
    assert fm.mix_rectangles(x, plan, out=out) is out and torch.equal(out, made)
    video = images(2, 3, 5, *SIZE)
    plan = fm.resize_into(2, SIZE, (1, 1, 9, 9))
    frames = [fm.mix_rectangles(video[:, :, t], plan) for t in range(5)]
    assert torch.equal(fm.mix_rectangles(video, plan), torch.stack(frames, 2))


@pytest.mark.proof  # the compiler takes seconds; test_ops.py compiles a step of its own
def test_compiled_steps_give_the_same_numbers():
    plan = fm.resize_into(3, SIZE, (1, 2, 9, 12), resample="bilinear")
    canvas = fm.mosaic_plan(SIZE, (9, 9), torch.zeros(3, 4, dtype=torch.int64))

    def step(x):
        return 2 * fm.mix_rectangles(x, plan), fm.mix_rectangles(x + 1, canvas)

    x = images(3, 2, *SIZE)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x), step(x), strict=True):
        assert torch.equal(got, want) and got.stride() == want.stride()


# ------------------------------------------------------------------ errors

FINE = fm.resize_into(3, SIZE, (1, 2, 9, 12))
X = torch.rand(3, 2, *SIZE)
FAR = [[[0, 0, 25, 9]]] * 3
REFUSED = {
    "no plan": (lambda: fm.mix_rectangles(X, fm.MixPlan.identity(3)), TypeError, "RectanglePlan"),
    "no tensor": (lambda: fm.mix_rectangles([1], FINE), TypeError, "x: expected a tensor"),
    "ids": (
        lambda: fm.mix_rectangles(
            X.long(), fm.resize_into(3, SIZE, (1, 2, 9, 12), resample="bilinear")
        ),
        TypeError,
        "int64",
    ),
    "another batch": (lambda: fm.mix_rectangles(X[:2], FINE), ValueError, r"\[3, …\]"),
    "too few dims": (lambda: fm.mix_rectangles(X[:, 0, 0], FINE), ValueError, "unsqueeze"),
    "a gradient": (
        lambda: fm.mix_rectangles(X.clone().requires_grad_(), FINE),
        ValueError,
        r"detach\(\)",
    ),
    "outside the samples": (
        lambda: fm.mix_rectangles(X[..., :20], FINE),
        ValueError,
        "without a fill",
    ),
    "a part outside": (
        lambda: fm.mix_rectangles(X, RectanglePlan([[0]] * 3, FAR, FAR, torch.ones(3, 2))),
        ValueError,
        "source_box: expected rectangles inside x",
    ),
    "a source that is none": (
        lambda: fm.mix_rectangles(X, fm.resize_into(3, SIZE, (0, 0, 2, 2), [0, 3, 1])),
        IndexError,
        r"\[0, 3\), the samples of x, got 3",
    ),
    "another dtype": (
        lambda: fm.mix_rectangles(X, FINE, other=X.double()),
        ValueError,
        "other: expected torch.float32",
    ),
    "another shape": (
        lambda: fm.mix_rectangles(X, FINE, other=X[..., :9]),
        ValueError,
        "other: expected samples of shape",
    ),
    "out that is x": (lambda: fm.mix_rectangles(X, FINE, out=X), ValueError, "memory of its own"),
    "out of another shape": (
        lambda: fm.mix_rectangles(X, FINE, out=torch.empty(1)),
        ValueError,
        "out: expected",
    ),
    "a centre outside": (
        lambda: fm.mosaic_plan(SIZE, (39, 9), [[0] * 4] * 3),
        ValueError,
        r"centre: expected places on the canvas, \[38, 46\]",
    ),
    "a fill that bytes do not hold": (
        lambda: fm.mix_rectangles(
            X.byte(), fm.mosaic_plan(SIZE, (9, 9), [[0] * 4] * 3, fill=300.0)
        ),
        ValueError,
        "fill: expected a whole number from 0 to 255",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(name):
    call, error, message = REFUSED[name]
    before = X.clone()
    with pytest.raises(error, match=message):
        call()
    assert torch.equal(X, before)
