"""Layouts in which decoders, loaders and careless views hand over images, and the plain lines."""

from __future__ import annotations

import torch
from cases import mix_by_hand
from comparing import same_bits

import fused_mixup as fm
from fused_mixup import MixPlan
from fused_mixup.loading import normalizing

B, H, W = 5, 6, 11
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS_LAST = torch.channels_last


def watch(monkeypatch):
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


def pixels(*shape):
    return torch.randint(256, shape, dtype=torch.uint8)


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


# ------------------------------------------------------------------ samples


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
