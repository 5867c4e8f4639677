"""The kernels of mix_normalize (csrc/cuda), run on the host, against the reference bit for bit."""

from __future__ import annotations

import random
import re

import pytest
import torch
from comparing import same_bits
from host_cuda import build, lib, normalize_grid
from host_cuda.batches import ORDERS
from host_cuda.normalize_ops import mix_normalize

from fused_mixup import MixPlan, reference

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no host C++ compiler (g++)"),
    pytest.mark.usefixtures("one_thread"),
]

IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def call(x, out, plan, mean, std, flip=None, erase=(None, None, None), first=False):
    rows = (plan.partner_or_none, plan.blend, plan.box, plan.rule)
    args = ([x], *rows, mean, std, flip, *erase, first)
    mix_normalize(*args, out)
    want = torch.empty_like(out)
    reference.mix_normalize(*args, want)
    return want


def images_of(shape, dtype, memory_format=torch.contiguous_format):
    return torch.randint(0, 256, shape).to(dtype).contiguous(memory_format=memory_format)


def launches():
    return {re.search(r"normalize_(\w+)_kernel", name).group(1) for name in lib.kernels()[1]}


def launched_for(x, out, mean=IMAGENET[0], std=IMAGENET[1], **options):
    """The kernels that a call launches, by name; its result is right."""
    lib.forget_launches()
    plan = MixPlan.uniform(len(x), "flip", 0.3)
    assert same_bits(out, call(x, out, plan, mean, std, **options))
    return launches()


@pytest.mark.parametrize("part", range(3))
def test_random_calls(part):
    """168 calls have each kernel, size and dtype once; plans, flips and boxes in turn."""
    assert normalize_grid.run(168, seed=part) == 168


def test_images_of_models_go_by_groups():
    """Both memory formats on both sides, lines with gaps between them, one channel or four."""
    for channels in (3, 1, 4):
        mean, std = IMAGENET[0][:1] * channels, IMAGENET[1][:1] * channels
        for given in (torch.contiguous_format, torch.channels_last):
            for made in (torch.contiguous_format, torch.channels_last):
                x = images_of((3, channels, 4, 48), torch.uint8, given)
                out = torch.empty(x.shape, dtype=torch.bfloat16).contiguous(memory_format=made)
                assert launched_for(x, out, mean, std) == {"groups"}
                crop = x[..., 16:]
                assert launched_for(crop, out[..., 16:], mean, std) == {"groups"}
    for dtype in (torch.float16, torch.float32):
        x = images_of((2, 3, 4, 24), dtype)
        assert launched_for(x, torch.empty(x.shape)) == {"groups"}


def test_what_no_vectors_fit_goes_one_by_one():
    shifted = images_of((2 * 3 * 4 * 32 + 1,), torch.uint8)[1:].view(2, 3, 4, 32)
    for x in (
        shifted,
        images_of((2, 3, 4, 40), torch.uint8),
        images_of((2, 3, 32, 32), torch.uint8).transpose(2, 3),
        images_of((2, 3, 4, 64), torch.uint8)[..., ::2],
    ):
        assert launched_for(x, torch.empty(x.shape, dtype=torch.half)) == {"single"}
    x = images_of((2, 3, 4, 32), torch.uint8)
    turned = torch.empty((2, 3, 32, 4)).transpose(2, 3)
    assert launched_for(x, turned) == {"single"}
    with lib.max_count(7):  # as for more groups than 32 bits number
        assert launched_for(x, torch.empty(x.shape)) == {"single"}


def test_grey_images_that_are_expanded():
    grey = images_of((3, 1, 4, 32), torch.uint8).expand(3, 3, 4, 32)
    assert launched_for(grey, torch.empty(grey.shape)) == {"groups"}


def test_every_byte_is_divided_as_a_division_does():
    """Two products serve constants that the host has found right, a division the others."""
    rng = random.Random(0)
    lib.forget_launches()
    plan = MixPlan.uniform(2, "flip", 0.3)
    x = torch.arange(256, dtype=torch.uint8).expand(2, 3, 1, 256).contiguous()
    for k in range(80):
        size = rng.choice((1.0, 255.0, 2.0 ** rng.uniform(-30, 30)))
        mean = [size * rng.choice((0.0, rng.random(), -rng.random())) for _ in range(3)]
        std = [size * rng.choice((1.0, -1.0, 0.01 + rng.random())) for _ in range(3)]
        if k % 15 == 0:
            std[1] = rng.choice((1e-38, 1e-37, 3e38, 0.0))
        out = torch.empty(x.shape)
        assert same_bits(out, call(x, out, plan, mean, std, first=bool(k & 1))), (mean, std)
    assert launches() == {"groups", "single"}


@pytest.mark.parametrize("order", ORDERS)
def test_erased_boxes(order):
    """Boxes over borders of groups, lines and warps; later over earlier; values or noise."""
    lib.set_order(order)
    torch.manual_seed(order)
    box = torch.tensor(
        [
            [[0, 0, 9, 80], [2, 15, 5, 33], [3, 17, 4, 18]],
            [[8, 79, 9, 80], [-4, -9, 1, 7], [5, 60, 99, 999]],
            [[4, 4, 4, 9], [6, 9, 2, 50], [0, 0, 0, 0]],
        ],
        dtype=torch.int32,
    )
    values = (torch.randn(3, 3, 3), torch.randn(1, 3, 1), torch.randn(1, 1, 3))
    keys = torch.tensor([2**63 - 1, -(2**63), 7])
    plan = MixPlan.uniform(3, "flip", 0.4)
    for dtype in normalize_grid.OUTPUTS:
        for made in (torch.contiguous_format, torch.channels_last):
            x = images_of((3, 3, 9, 80), torch.uint8)
            out = torch.empty(x.shape, dtype=dtype).contiguous(memory_format=made)
            for erase in (*((box, v, None) for v in values), (box, None, keys)):
                assert same_bits(out, call(x, out, plan, *IMAGENET, erase=erase)), erase


def test_weights_of_zero_drop_what_is_infinite():
    x = torch.full((4, 3, 2, 16), torch.inf)
    x[::2] = 1.0
    for blend in ((1.0, 0.0), (0.5, 0.0), (0.0, 0.5)):
        rows = torch.tensor([blend], dtype=torch.float64).expand(4, 2)
        for pairing in ("flip", "roll"):
            rule = MixPlan.uniform(4, pairing)
            box = torch.empty((4, 0), dtype=torch.int32)
            for first in (False, True):
                args = ([x], None, rows, box, rule.rule, [0.5] * 3, [0.25] * 3, *4 * (None,), first)
                out, want = torch.empty_like(x), torch.empty_like(x)
                mix_normalize(*args, out)
                reference.mix_normalize(*args, want)
                assert same_bits(out, want)
