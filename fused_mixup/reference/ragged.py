"""The op that mixes images of different sizes, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import expect, expect_shape
from ..dtypes import BLENDABLE, arithmetic
from .blending import round_to


def mix_ragged(
    images: Sequence[Tensor],  # B of [C, Hi, Wi]
    partner: Tensor,  # [B]
    blend: Tensor,  # [B, 2]
    region: Tensor,  # [B, 6]
    channels_last: bool,
    out: Tensor,  # [N]
) -> None:
    _check(images, partner, blend, region, out)
    partners = partner.clamp(0, max(len(images) - 1, 0)).tolist()
    weights = blend.to(arithmetic(out.dtype)).tolist()
    parts = out.split([image.numel() for image in images])
    for i, part in enumerate(parts):
        own, other = images[i], images[partners[i]]
        c, h, w = own.shape
        target = part.view(h, w, c).permute(2, 0, 1) if channels_last else part.view(c, h, w)
        target.copy_(mixed_image(own, other, weights[i], region[i].tolist()))


def mixed_image(
    own: Tensor,  # [C, H, W]
    other: Tensor,  # [C, H', W']
    weights: Sequence[float],
    region: Sequence[int],
) -> Tensor:
    """One image mixed with its partner in a region; differentiable."""
    mixed = own.clone()
    top, left, other_top, other_left, height, width = region
    rows, other_rows = _both(top, other_top, height, own.shape[1], other.shape[1])
    columns, other_columns = _both(left, other_left, width, own.shape[2], other.shape[2])
    if tuple(weights) != (1, 0):
        there = other[:, other_rows, other_columns]
        mixed[:, rows, columns] = _blended(own[:, rows, columns], there, *weights)
    return mixed


def _both(start: int, other_start: int, length: int, size: int, other_size: int) -> list[slice]:
    """Where a stretch lies in the image and in its partner, as far as it lies in both."""
    skipped = max(0, -start, -other_start)
    stop = max(skipped, min(length, size - start, other_size - other_start))
    return [slice(at + skipped, at + stop) for at in (start, other_start)]


def _blended(own: Tensor, other: Tensor, w0: float, w1: float) -> Tensor:
    """A weight of 0 drops its term. Floats: as timm's lines, whose add() may fuse its product."""
    a, b = (t.to(arithmetic(t.dtype)) for t in (own, other))
    if w1 == 0:
        mixed = a * w0 if w0 != 0 else torch.zeros_like(a)
    elif w0 == 0:
        mixed = b * w1
    elif a.dtype == own.dtype:
        mixed = a.mul(w0).add(b, alpha=w1)
    else:
        mixed = a * w0 + b * w1
    return round_to(mixed, own.dtype)


def _check(
    images: Sequence[Tensor], partner: Tensor, blend: Tensor, region: Tensor, out: Tensor
) -> None:
    expect(out.dtype in BLENDABLE, "out", "floats or uint8", out.dtype)
    for image in images:
        expect(image.dtype == out.dtype, "images", str(out.dtype), image.dtype)
        fits = image.ndim == 3 and image.shape[0] == images[0].shape[0]
        expect(fits, "images", "[C, H, W], of one C", list(image.shape))
    expect_shape("out", out, sum(image.numel() for image in images))
    expect_shape("partner", partner, len(images))
    expect_shape("blend", blend, len(images), 2)
    expect_shape("region", region, len(images), 6)
