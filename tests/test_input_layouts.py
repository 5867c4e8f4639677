"""mix_normalize takes every layout of images without a copy; lays out its result as asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comparing import same_bits
from image_layouts import (
    CHANNELS_LAST,
    MEAN,
    SAMPLES,
    STD,
    B,
    H,
    W,
    batches,
    check,
    hwc_view,
    pixels,
    plain_lines,
    plan_of,
    watch,
)

import fused_mixup as fm
from fused_mixup import backends


@pytest.fixture
def handed(monkeypatch):
    return watch(monkeypatch)


# ------------------------------------------------------------------ batches


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_batches_of_every_layout(backend, handed, channels):
    for name, x in batches(channels):
        before = x.clone()
        check(x, x, name)
        assert handed == [(x.data_ptr(), x.stride())], name
        assert torch.equal(x, before), name
        array = x.numpy()
        check(array, x, name)
        assert handed == [(x.data_ptr(), x.stride())], name


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_with_channels_last_in_their_shape(backend, handed, channels):
    """As DALI, FFCV, grain and webdataset give them."""
    for name, x in batches(channels):
        nhwc = x.permute(0, 2, 3, 1)
        for images in (nhwc, nhwc.numpy()):
            options = {} if channels == 3 else {"layout": "NHWC"}
            check(images, x, name, **options)
            assert handed == [(x.data_ptr(), x.stride())], name


def test_floats_of_every_layout(backend, handed):
    for name, x in batches(3):
        floats = torch.empty_strided(x.shape, x.stride()).copy_(x) if 0 not in x.stride() else x / 3
        check(floats, floats, name)
        assert handed == [(floats.data_ptr(), floats.stride())], name


def test_a_batch_that_is_channels_last_by_name_only(backend, handed):
    """is_contiguous(channels_last) holds, yet strides[0] is 3: convolutions take it for NCHW."""
    hwc = pixels(H, W, 3)
    named = hwc.permute(2, 0, 1).unsqueeze(0)
    right = hwc[None].permute(0, 3, 1, 2)
    assert named.is_contiguous(memory_format=CHANNELS_LAST) and named.stride(0) == 3
    for x in (named, right):
        check(x, x, "one image")
        assert handed == [(hwc.data_ptr(), x.stride())]
    y = fm.mix_normalize(named, mean=MEAN, std=STD)
    weight = torch.ones(4, 3, 1, 1, dtype=torch.bfloat16)
    seen = torch.nn.functional.conv2d(y, weight)
    assert seen.stride() == (4 * H * W, 1, 4 * W, 4)  # the model goes on in channels_last


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 1), (1, 1, 1, 1), (2, 1, 1, 7)], ids=str)
def test_sizes_of_one(backend, handed, shape):
    """Strides of such dims say nothing; the result's are set, so that a model sees its format."""
    x = pixels(*shape)
    b, c, h, w = shape
    for strides in (
        x.stride(),
        (h * w * c, 1, w * c, c),
        (h * w * c, 1, 1, 1) if h == w == 1 else x.stride(),
    ):
        named = x.as_strided(shape, strides)
        check(named, x, strides)
        assert handed == [(x.data_ptr(), strides)]


@pytest.mark.parametrize("shape", [(0, 3, H, W), (2, 3, 0, W), (2, 3, H, 0)], ids=str)
def test_nothing(backend, shape):
    got = fm.mix_normalize(pixels(*shape), mean=MEAN, std=STD)
    assert got.shape == shape and got.dtype == torch.bfloat16


# ------------------------------------------------------------------ lists of samples


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_of_every_layout(backend, handed, channels):
    x = pixels(B, channels, H, W)
    lists = {name: [lay(s) for s in x] for name, lay in SAMPLES.items()}
    kinds = [*SAMPLES.values()]
    lists["each its own"] = [kinds[i % len(kinds)](s) for i, s in enumerate(x)]
    lists["rows of a batch"] = [*x]
    for name, samples in lists.items():
        for images in (samples, tuple(samples), [s.numpy() for s in samples]):
            check(images, x, name)
            assert handed == [(s.data_ptr(), s.stride()) for s in samples], name
        options = {} if channels == 3 else {"layout": "NHWC"}
        check([s.permute(1, 2, 0) for s in samples], x, name, **options)
        assert handed == [(s.data_ptr(), s.stride()) for s in samples], name


def test_one_sample_twice_and_grey_samples(backend, handed):
    """A sampler may repeat a sample; Grayscale(3) gives views whose channels share memory."""
    image = hwc_view(pixels(3, H, W))
    check([image, image], torch.stack([image, image]), "twice")
    grey = [pixels(1, H, W).expand(3, -1, -1) for _ in range(3)]
    check(grey, torch.stack(grey), "grey")
    assert handed == [(s.data_ptr(), (0, W, 1)) for s in grey]


# ------------------------------------------------------------------ out


def test_an_expanded_view_is_read_and_never_written(backend):
    grey = pixels(B, 1, H, W)
    x = grey.expand(-1, 3, -1, -1)
    check(x, x, "grey")
    room = torch.zeros(B, 1, H, W)
    with pytest.raises(ValueError, match="out: expected each element in memory of its own"):
        fm.mix_normalize(x, mean=MEAN, std=STD, out=room.expand(-1, 3, -1, -1))
    assert not room.any()


def test_layouts_of_out(backend):
    x = pixels(B, 3, H, W).contiguous(memory_format=CHANNELS_LAST)
    plan = plan_of(B, H, W)
    expected = plain_lines(x, plan)
    room = torch.zeros(B + 2, H + 1, W + 3, 5)
    outs = {
        "contiguous": torch.empty(B, 3, H, W),
        "channels_last": torch.empty(B, H, W, 3).permute(0, 3, 1, 2),
        "crop of channels_last": room[1:-1, 1:, 2:-1, 1:4].permute(0, 3, 1, 2),
        "turned": torch.empty(B, W, H, 3).permute(0, 3, 2, 1),
    }
    for name, out in outs.items():
        strides = out.stride()
        got = fm.mix_normalize(x, plan, mean=MEAN, std=STD, out=out)
        assert got is out and out.stride() == strides and same_bits(out, expected), name
    room[1:-1, 1:, 2:-1, 1:4] = 0
    assert not room.any()  # nothing beside the crop is written
    one = pixels(B, 1, H, W)
    for strides in ((H * W, H * W, W, 1), (H * W, 1, W, 1)):
        out = torch.empty_strided(one.shape, strides)
        fm.mix_normalize(one, plan, mean=0.45, std=0.22, out=out)
        assert out.stride() == strides and same_bits(out, plain_lines(one, plan))


# ------------------------------------------------------------------ what channels are


def test_the_layout_is_told_by_the_channels(backend):
    """By mean's length; a single number leaves 3, 4 or 1 values a pixel to tell them."""
    square = pixels(2, 3, 3, 3)  # says nothing: NCHW, unless told
    check(square, square, "square")
    check(square, square.permute(0, 3, 1, 2), "square", layout="NHWC")
    for c in (1, 3, 4):
        x = pixels(2, c, H, W)
        expected = plain_lines_of_one(x)
        for images in (x, x.permute(0, 2, 3, 1), [*x], [*x.permute(0, 2, 3, 1).numpy()]):
            got = fm.mix_normalize(images, mean=0.45, std=[0.22], dtype=torch.float32)
            assert same_bits(got, expected), (c, type(images))
    x = pixels(2, H, W, 3)
    expected = plain_lines_of_one(x).permute(0, 3, 1, 2)
    for mean, std in (
        (torch.tensor(0.45), np.array(0.22)),
        (torch.full((1, 3, 1, 1), 0.45), np.full((3, 1, 1), 0.22)),  # as modules keep them
    ):
        got = fm.mix_normalize(x, mean=mean, std=std, dtype=torch.float32)
        assert torch.allclose(got, expected, atol=1e-6), mean.shape
    for shape in ((2, 5, 1, 1), (2, 3, H, 3), (2, 1, H, 4), (2, 5, H, W)):  # of NCHW
        x = pixels(*shape)
        got = fm.mix_normalize(x, mean=0.45, std=0.22, dtype=torch.float32)
        assert same_bits(got, plain_lines_of_one(x)), shape


def plain_lines_of_one(x):
    mean, std = (np.float32(255 * v).item() for v in (0.45, 0.22))
    return x.float().sub_(mean).div_(std)


def test_kernels_make_no_copy_of_their_own(extra_memory):
    if (why := backends.reason_unavailable("native", "CPU")) is not None:
        pytest.skip(why)
    plan = plan_of(B, H, W)
    out = torch.empty(B, H, W, 3).permute(0, 3, 1, 2)
    lists = {name: [lay(s) for s in pixels(B, 3, H, W)] for name, lay in SAMPLES.items()}
    for name, images in [*batches(3), *lists.items()]:

        def run(images=images):
            fm.mix_normalize(images, plan, mean=MEAN, std=STD, out=out)

        assert extra_memory(run) < B * 3 * H * W, name  # bytes of the images
