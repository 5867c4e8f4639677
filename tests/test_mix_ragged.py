"""The op mix_ragged: values against mixing by hand, memory orders, and what it refuses."""

from __future__ import annotations

import random

import pytest
import torch
from cases import BLENDABLE
from comparing import same_bits
from ragged_cases import by_hand, centred, laid_out, random_call, random_image, room_for

import fused_mixup as fm
from fused_mixup import backends, ops


@pytest.mark.parametrize("dtype", BLENDABLE, ids=str)
def test_random_calls(backend, dtype):
    rng = random.Random(str(dtype))
    for k in range(150):
        args = random_call(rng, dtype)
        before = [x.clone() for x in args[0]]
        out = room_for(args[0], rng)
        ops.mix_ragged(*args, out)
        assert same_bits(out, by_hand(*args)), k
        assert all(map(same_bits, args[0], before)), k


def pair(dtype, size=(3, 40, 70), other=(3, 33, 81), own=0.3):
    images = [random_image(random, dtype, *size), random_image(random, dtype, *other)]
    regions = [centred(images[0], images[1]), centred(images[1], images[0])]
    partner = torch.tensor([1, 0], dtype=torch.int32)
    blend = torch.tensor([[own, 1 - own]] * 2, dtype=torch.float64)
    return images, partner, blend, torch.tensor(regions, dtype=torch.int32)


@pytest.mark.parametrize("dtype", BLENDABLE, ids=str)
@pytest.mark.parametrize("width", [*range(1, 40), 63, 64, 65, 127, 128, 129, 191])
def test_every_rest_of_a_vector(backend, dtype, width):
    """The last vector of a line overlaps the one before, and short lines are padded."""
    for sides in ((2, width + 3), (2, width)):
        args = (*pair(dtype, (2, 3, width), (2, *sides)), False)
        out = room_for(args[0])
        ops.mix_ragged(*args, out)
        assert same_bits(out, by_hand(*args))


def test_images_of_one_size_are_mixed_as_by_mix(backend):
    for dtype in (torch.uint8, torch.float16, torch.bfloat16):
        args = pair(dtype, (3, 24, 37), (3, 24, 37))
        out = room_for(args[0])
        ops.mix_ragged(*args, False, out)
        plan = fm.MixPlan.uniform(2, "flip", 0.3)
        assert same_bits(out.view(2, 3, 24, 37), fm.mix(torch.stack(args[0]), plan))


def test_large_images_are_shared_between_threads(backend):
    for layout, last in (("planes", False), ("pixels", True), ("planes", True)):
        images, *rest = pair(torch.uint8, (3, 700, 512), (3, 650, 613))
        images = [laid_out(random, x, layout) for x in images]
        out = room_for(images)
        ops.mix_ragged(images, *rest, last, out)
        assert same_bits(out, by_hand(images, *rest, last))


def test_a_weight_of_0_brings_in_no_nan(backend):
    for own in (0.0, 1.0):
        images, *rest = pair(torch.float32, own=own)
        images[int(own)][:] = float("nan")
        out = room_for(images)
        ops.mix_ragged(images, *rest, False, out)
        assert same_bits(out, by_hand(images, *rest, False))
        first = out[: images[0].numel()].view_as(images[0])
        top, left, _, _, height, width = rest[2][0].tolist()
        shown = first[:, top : top + height, left : left + width]
        assert not shown.isnan().any()


def test_no_images_and_images_without_pixels(backend):
    nothing = torch.empty(0, dtype=torch.int32)
    empty = torch.empty(0, 2, dtype=torch.float64)
    ops.mix_ragged([], nothing, empty, nothing.view(0, 6), False, torch.empty(0))
    images = [torch.empty(3, 0, 5), torch.ones(3, 4, 0), torch.full((3, 2, 2), 5.0)]
    partner = torch.tensor([2, 0, 1], dtype=torch.int32)
    region = torch.tensor([[0, 0, 0, 0, 2, 2]] * 3, dtype=torch.int32)
    blend = torch.tensor([[0.5, 0.5]] * 3, dtype=torch.float64)
    out = torch.zeros(12)
    ops.mix_ragged(images, partner, blend, region, False, out)
    assert (out == 5).all()


def test_what_would_crash_the_kernel_is_refused(backend):
    images, partner, blend, region = pair(torch.float32)
    out = room_for(images)
    good = {"images": images, "partner": partner, "blend": blend, "region": region, "out": out}
    for name, wrong in (
        ("images", [images[0], images[1].double()]),
        ("images", [images[0], images[1][:2]]),
        ("images", [images[0], images[1][0]]),
        ("images", images[:1]),
        ("images", []),
        ("partner", partner[:1]),
        ("blend", blend[:1]),
        ("blend", blend[:, :1]),
        ("region", region[:, :5]),
        ("region", region[:1]),
        ("out", out[:-1]),
        ("out", out[None]),
        ("out", out.double()),
        ("out", out.long()),
    ):
        args = good | {name: wrong}
        with pytest.raises((RuntimeError, ValueError)):
            ops.mix_ragged(*(args[k] for k in list(good)[:4]), False, args["out"])
    assert (out == 7).all()


def test_memory_of_an_image_is_refused_as_output():
    if backends.reason_unavailable("native", "CPU"):
        pytest.skip("the CPU extension is not built")
    images, *rest = pair(torch.float32)
    whole = torch.cat([x.reshape(-1) for x in images])
    images[0] = whole[: images[0].numel()].view_as(images[0])
    with fm.backend("native"), pytest.raises(RuntimeError):
        ops.mix_ragged(images, *rest, False, whole)
