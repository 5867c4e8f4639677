"""Random calls of mix_ragged, and the result by hand."""

from __future__ import annotations

import torch

from fused_mixup import backends
from fused_mixup.codes import MAX_BATCH

LAYOUTS = ("planes", "pixels", "rows apart", "turned", "every second", "any")


def kernels_fuse():
    """Whether float32 and float64 take a product and the sum in one rounding.

    The reference does as PyTorch's add(alpha=), which fuses from AVX2 on.
    """
    if backends.chosen("CPU") != "native":
        return True
    from fused_mixup import _C

    return _C.cpu_capability() != "baseline"


def laid_out(rng, x, layout):
    """Copy of an image [C, H, W] in another memory order."""
    if layout == "any":
        layout = rng.choice(LAYOUTS[:-1])
    if layout == "pixels":
        return x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    if layout == "turned":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "every second":
        return torch.stack((x, x + 1), -1)[..., 0]
    c, h, w = x.shape
    room = torch.zeros(c, h + 3, w + 5, dtype=x.dtype)
    return x.clone() if layout == "planes" else room[:, 1 : h + 1, 2 : w + 2].copy_(x)


def random_image(rng, dtype, c, h, w):
    if dtype == torch.uint8:
        return torch.randint(0, 256, (c, h, w), dtype=dtype)
    return torch.randn(c, h, w, dtype=torch.float64).to(dtype)


def centred(own, other):
    (h, w), (other_h, other_w) = own.shape[1:], other.shape[1:]
    height, width = min(h, other_h), min(w, other_w)
    starts = [(a - b) // 2 for a, b in ((h, height), (w, width), (other_h, height))]
    return [*starts, (other_w - width) // 2, height, width]


def random_call(rng, dtype):
    """images, partner, blend, region, channels_last."""
    count, c = rng.randint(1, 6), rng.choice((1, 2, 3, 3, 4, 7))
    most = rng.choice(((8, 9), (40, 150), (40, 150), (150, 300)))
    layout, least = rng.choice(LAYOUTS), rng.choice((0, 1, 1, 1))
    images = []
    for _ in range(count):
        x = random_image(rng, dtype, c, *(rng.randint(least, n) for n in most))
        images.append(laid_out(rng, x, layout))
    partner = list(range(count))
    order = rng.sample(partner, count)
    for a, b in zip(order[::2], order[1::2], strict=False):
        partner[a], partner[b] = b, a
    if rng.random() < 0.3:
        partner = [rng.randint(-1, count) for _ in range(count)]
    lam = rng.choice((0.0, 1.0, *(rng.random() for _ in range(5))))
    pair = (0.0, 1.0) if rng.random() < 0.3 else (lam, 1.0 - lam)
    blend = torch.tensor([pair], dtype=torch.float64).expand(count, 2)
    if rng.random() < 0.2:
        blend = (torch.rand(count, 2, dtype=torch.float64) - 0.2) * rng.choice((1, 3, 1e7))
    regions = []
    for i, j in enumerate(partner):
        region = centred(images[i], images[min(max(j, 0), count - 1)])
        if rng.random() < 0.2:
            region = [n + rng.randint(-9, 9) for n in region]
        if rng.random() < 0.03:
            region = [rng.choice((-(2**31), 2**31 - 1, MAX_BATCH)) for _ in region]
        regions.append(region)
    tensors = (torch.tensor(t, dtype=torch.int32) for t in (partner, regions))
    partner, region = tensors
    return images, partner, blend, region, rng.random() < 0.5


def room_for(images, rng=None):
    """An output of these images; with ``rng`` one in five is every second element of another."""
    total = sum(x.numel() for x in images)
    if rng is not None and rng.random() < 0.2:
        return torch.full((2 * total,), 7, dtype=images[0].dtype)[::2]
    return torch.full((total,), 7, dtype=images[0].dtype)


def by_hand(images, partner, blend, region, channels_last):
    """What mix_ragged writes, a line of pixels at a time."""
    acc = torch.float64 if images[0].dtype == torch.float64 else torch.float32
    exact = images[0].dtype == acc and kernels_fuse()
    flat = []
    for i, own in enumerate(images):
        other = images[min(max(int(partner[i]), 0), len(images) - 1)]
        w0, w1 = blend[i].to(acc).tolist()
        top, left, other_top, other_left, height, width = region[i].tolist()
        out = own.clone(memory_format=torch.contiguous_format)
        first = max(0, -left, -other_left)
        last = min(width, own.shape[2] - left, other.shape[2] - other_left)
        for y in range(own.shape[1]):
            there = y - top + other_top
            inside = 0 <= y - top < height and 0 <= there < other.shape[1]
            if not inside or last <= first or (w0, w1) == (1, 0):
                continue
            a = own[:, y, left + first : left + last].to(acc)
            b = other[:, there, other_left + first : other_left + last].to(acc)
            if w0 == 0 or w1 == 0:
                mixed = a * w0 if w0 else b * w1 if w1 else torch.zeros_like(a)
            else:
                mixed = a.mul(w0).add(b, alpha=w1) if exact else a * w0 + b * w1
            if own.dtype == torch.uint8:
                mixed = mixed.round().clamp(0, 255)
            out[:, y, left + first : left + last] = mixed.to(own.dtype)
        flat.append(out.permute(1, 2, 0).reshape(-1) if channels_last else out.reshape(-1))
    return torch.cat(flat)
