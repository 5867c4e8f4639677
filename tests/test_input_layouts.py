"""mix_normalize: every layout in which decoders, loaders and arrays hand over images, uncopied."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from cases import mix_by_hand
from comparing import same_bits

import fused_mixup as fm
from benchmarks import installed_peers
from fused_mixup import MixPlan, backends
from fused_mixup.loading import normalizing

B, H, W = 5, 6, 11
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS_LAST = torch.channels_last


@pytest.fixture(params=["native", "reference"])
def backend(request):
    why = backends.reason_unavailable(request.param, "CPU")
    if why:
        pytest.skip(why)
    with fm.backend(request.param):
        yield request.param


@pytest.fixture
def handed(monkeypatch):
    """A list of what reaches the op: (address, strides) of each image of the last call."""
    found: list[tuple[int, tuple[int, ...]]] = []
    real = normalizing.implementation()

    class Watched:
        @staticmethod
        def mix_normalize(images, *others):
            found[:] = [(x.data_ptr(), x.stride()) for x in images]
            return real.mix_normalize(images, *others)

    monkeypatch.setattr(normalizing, "implementation", lambda: Watched)
    return found


def pixels(*shape, high=256):
    return torch.randint(high, shape, dtype=torch.uint8)


def constants(channels):
    return (MEAN, STD) if channels == 3 else (0.45, 0.22)


def plan_of(batch, height, width):
    """Blends and boxes; every sample has a partner of its own."""
    lam = torch.linspace(0.2, 0.8, batch, dtype=torch.float64)
    box = torch.tensor([[height // 3, width // 4, height, max(width // 2, 1)]]).repeat(batch, 1)
    return MixPlan.per_sample(lam, "roll", box, torch.arange(batch) % 2 == 0)


def plain_lines(x, plan):
    """The lines that mix_normalize replaces, on a packed copy [B, C, H, W]; float32."""
    x = x.clone(memory_format=torch.contiguous_format)
    scale = 255 if x.dtype == torch.uint8 else 1
    mean, std = (
        torch.tensor(v, dtype=torch.float64).mul(scale).float().view(-1, 1, 1)
        for v in constants(x.shape[1])
    )
    return mix_by_hand(x.float().sub_(mean).div_(std), plan)


def packed_strides(x):
    _, c, h, w = x.shape
    return {
        CHANNELS_LAST: (h * w * c, 1, w * c, c),
        torch.contiguous_format: (c * h * w, h * w, w, 1),
    }


def check(images, x, name, **options):
    """Compare the result for ``images`` with the plain lines for x, the same pixels as NCHW."""
    batch, channels, height, width = x.shape
    plan = plan_of(batch, height, width)
    mean, std = constants(channels)
    expected = plain_lines(x, plan)
    for memory_format, strides in packed_strides(x).items():
        got = fm.mix_normalize(
            images,
            plan,
            mean=mean,
            std=std,
            dtype=torch.float32,
            memory_format=memory_format,
            **options,
        )
        assert same_bits(got, expected), (name, memory_format)
        assert got.stride() == strides, (name, memory_format)
    half = fm.mix_normalize(images, plan, mean=mean, std=std, **options)
    assert same_bits(half, expected.bfloat16()), name


def address(image):
    return image.data_ptr() if isinstance(image, torch.Tensor) else image.ctypes.data


def strides_of(image):
    if isinstance(image, torch.Tensor):
        return image.stride()
    return tuple(s // image.itemsize for s in image.strides)


def channels_first(images, nhwc):
    """Strides of the images as the op must see them: of dims ([B,] C, H, W), none changed."""
    found = [strides_of(image) for image in images]
    return [(*s[:-3], s[-1], *s[-3:-1]) for s in found] if nhwc else found


# ------------------------------------------------------------------ batches


def gapped(x, *places):
    """A view of a larger tensor that holds x at ``places``, so that gaps lie between its rows."""
    room = torch.zeros([2 * n + 3 for n in x.shape], dtype=x.dtype)
    view = room[places]
    return view.copy_(x)


def batches(c):
    """(name, [B, C, H, W]) of one batch in the layouts of loaders, decoders and careless views."""
    x = pixels(B, c, H, W)
    yield "collated", x
    yield "decoded HWC", x.contiguous(memory_format=CHANNELS_LAST)
    yield "NHWC, permuted", x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    yield "turned by EXIF", x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    yield "CHWN", x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    yield "centre crop", gapped(x, slice(B), slice(c), slice(2, 2 + H), slice(3, 3 + W))
    nhwc = torch.zeros(B, H + 4, W + 5, c, dtype=torch.uint8)
    crop = nhwc[:, 1 : H + 1, 2 : W + 2].permute(0, 3, 1, 2).copy_(x)
    yield "crop of NHWC", crop
    yield "every second sample", gapped(x, slice(0, 2 * B, 2), slice(c), slice(H), slice(W))
    every = (slice(B), slice(c), slice(0, 2 * H, 2), slice(1, 2 * W + 1, 2))
    yield "every second pixel", gapped(x, *every)
    yield "video frames", torch.stack([x, x], 1).contiguous()[:, 1]
    yield "one picture for all", x[:1].expand(B, -1, -1, -1)
    flat = torch.zeros(x.numel() + 7, dtype=torch.uint8)
    yield "odd address", flat[7:].view(x.shape).copy_(x)
    named = x.as_strided(x.shape, (c * H * W, 1, W, 1)) if c == 1 else x
    yield "C = 1 by the other name", named
    if c > 1:
        yield "grey, expanded", x[:, :1].expand(-1, c, -1, -1)
        wide = torch.zeros(B, H, W, c + 1, dtype=torch.uint8)
        yield "RGB of RGBA", wide.permute(0, 3, 1, 2)[:, :c].copy_(x)


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


def turned(image):
    """[C, H, W] of strides (1, C, C·H): an HWC image that EXIF has turned by 90 degrees."""
    return image.permute(2, 1, 0).contiguous().permute(2, 1, 0)


def hwc_view(image):
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def cropped(image):
    c, h, w = image.shape
    room = torch.zeros(h + 3, w + 5, c, dtype=image.dtype)
    return room[2 : h + 2, 1 : w + 1].permute(2, 0, 1).copy_(image)


SAMPLES = {
    "contiguous": torch.clone,
    "decoded HWC": hwc_view,
    "turned by EXIF": turned,
    "cropped HWC": cropped,
    "every second column": lambda s: torch.stack((s, 255 - s), -1)[..., 0],
}


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


# ------------------------------------------------------------------ arrays


def read_only(array):
    """The same pixels in an array that a bytes object owns, as NumPy and webdataset give them."""
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


def test_read_only_arrays(backend, handed):
    """No copy, no warning, nothing written: bytes are immutable for all of Python."""
    x = pixels(B, 3, H, W)
    samples = [read_only(s.permute(1, 2, 0).numpy()) for s in x]
    before = [s.base.base if isinstance(s.base, np.ndarray) else s.base for s in samples]
    copies = [bytes(bytearray(b)) for b in before]
    batch = read_only(x.permute(0, 2, 3, 1).numpy())
    mixed = [samples[0].copy(), *samples[1:]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (samples, mixed, [s.transpose(2, 0, 1) for s in samples]):
            check(images, x, "samples")
            assert [p for p, _ in handed] == [address(s) for s in images]
        check(batch, x, "batch")
        assert [p for p, _ in handed] == [address(batch)]
    assert all(isinstance(b, bytes) for b in before) and before == copies
    assert not any(s.flags.writeable for s in samples) and not batch.flags.writeable


def test_arrays_of_negative_strides(backend):
    """Tensors cannot have them, so that these alone are copied."""
    x = pixels(B, 3, H, W)
    array = x.permute(0, 2, 3, 1).contiguous().numpy()
    flips = {
        "mirrored": (array[:, :, ::-1], x.flip(3)),
        "upside down": (array[:, ::-1], x.flip(2)),
        "BGR to RGB": (array[..., ::-1], x.flip(1)),
    }
    for name, (images, expected) in flips.items():
        check(images, expected, name)
        check([*images], expected, name)
        image = [np.flip(read_only(s.copy()), 0) for s in images]
        check(image, expected.flip(2), name)


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


# ------------------------------------------------------------------ the real packages


def pictures():
    """[PIL image] and its pixels [B, C, H, W]."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    x = pixels(B, 3, H, W)
    return [image.fromarray(s.permute(1, 2, 0).numpy()) for s in x], x


def peers():
    why = installed_peers.reason_missing()
    if why:
        pytest.skip(why)
    return installed_peers.load()


def test_pillow(backend, handed):
    images, x = pictures()
    arrays = [np.asarray(image) for image in images]
    assert not any(a.flags.writeable for a in arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(arrays, x, "asarray")
    assert handed == [(address(a), (1, 3 * W, 3)) for a in arrays]
    assert all(np.array_equal(np.asarray(i), a) for i, a in zip(images, arrays, strict=True))
    with pytest.raises(TypeError, match="PIL image"):
        fm.mix_normalize(images, mean=MEAN, std=STD)


def test_torchvision(backend, handed):
    _, torchvision = peers()
    images, x = pictures()
    v2 = torchvision.transforms.v2
    hwc, chw = (1, 3 * W, 3), (H * W, W, 1)
    arrays = [np.array(image) for image in images]
    for name, samples, strides in (
        ("PILToTensor", [*map(torchvision.transforms.PILToTensor(), images)], hwc),
        ("ToImage", [*map(v2.ToImage(), images)], hwc),
        ("ToImage of arrays", [*map(v2.ToImage(), arrays)], chw),
        ("flip", [v2.functional.horizontal_flip(i) for i in map(v2.ToImage(), images)], hwc),
    ):
        expected = x.flip(3) if name == "flip" else x
        check(samples, expected, name)
        assert handed == [(address(s), strides) for s in samples], name
    grey = [*map(v2.Grayscale(3), map(v2.ToImage(), images))]
    check(grey, torch.stack([g.as_subclass(torch.Tensor) for g in grey]), "Grayscale")
    assert handed == [(address(s), (0, W, 1)) for s in grey]
    floats = [*map(torchvision.transforms.ToTensor(), images)]
    check(floats, torch.stack(floats), "ToTensor")
    wrapped = torchvision.tv_tensors.Image(x)  # a batch that a data set hands over whole
    check(wrapped, x, "tv_tensors.Image")
    assert handed == [(x.data_ptr(), x.stride())]
    assert type(fm.mix_normalize(wrapped, mean=MEAN, std=STD)) is torch.Tensor


def test_timm(backend, handed):
    timm, _ = peers()
    images, x = pictures()
    samples = [timm.data.transforms.ToNumpy()(image) for image in images]
    check(samples, x, "ToNumpy")
    assert handed == [(address(s), (1, 3 * W, 3)) for s in samples]
    collated, _ = timm.data.loader.fast_collate([(s, 0) for s in samples])
    check(collated, x, "fast_collate")
