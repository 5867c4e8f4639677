"""mix_rectangles and mix_patches, in plain PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..codes import RAW, RESIZE_ALIGNED, RESIZE_BILINEAR
from ..collage.op_checks import check_patches, check_rectangles
from ..dtypes import arithmetic
from .blending import round_to, term


class Taps(NamedTuple):
    """Along one axis, for each row of the plan and each coordinate of the result, [B, N]."""

    inside: Tensor  # bool: whether the rectangle covers it
    low: Tensor  # int64: the two coordinates of the source
    high: Tensor
    own: Tensor  # float32: their weights
    other: Tensor


def taps(
    count: int,
    extent: int,
    box: Tensor,  # [B, 2]: start and stop of the rectangle in the result
    source_box: Tensor,  # [B, 2]: and in the source, of ``extent``
    step: Tensor | None,  # [B]
    resample: int,
) -> Taps:
    """Where the values of a rectangle lie in its source: PyTorch's rules, in float32."""
    place = torch.arange(count, device=box.device)
    start, stop, first, last = (t[:, None].long() for b in (box, source_box) for t in b.unbind(1))
    size, source_size = stop - start, last - first
    inside = (place >= start) & (place < stop) & (source_size > 0)
    at = (place - start).clamp(min=0)
    most = (source_size - 1).clamp(min=0)
    d = at.float()
    if resample == RESIZE_ALIGNED:
        ratio = torch.where(size > 1, most.float() / (size - 1).float(), 0.0)
    else:
        ratio = source_size.float() / size.float()
        ratio = ratio if step is None else step.float()[:, None]
    position = (d + 0.5) * ratio - 0.5 if resample == RESIZE_BILINEAR else d * ratio
    position = torch.where(position > 0, position, 0.0)  # not a NaN
    low = at if resample == RAW else torch.minimum(position, most.float()).long()
    low = torch.minimum(low, most)
    share = torch.zeros_like(d)
    if resample >= RESIZE_BILINEAR:
        share = (position - low.float()).clamp(0, 1)
    high = torch.minimum(low + 1, most)
    low, high = ((first + k).clamp(0, max(extent - 1, 0)) for k in (low, high))
    return Taps(inside, low, high, 1 - share, share)


def _resampled(rows: Tensor, down: Taps, across: Taps, resample: int) -> Tensor:
    """The values of ``rows`` [B, …, H, W] at the taps of both axes, shaped to fit them."""
    low = rows.take_along_dim(down.low, -2)
    if resample < RESIZE_BILINEAR:
        return low.take_along_dim(across.low, -1)
    acc = arithmetic(rows.dtype)

    def along(lines: Tensor) -> Tensor:
        left, right = (lines.take_along_dim(at, -1).to(acc) for at in (across.low, across.high))
        return term(across.own.to(acc), left) + term(across.other.to(acc), right)

    high = rows.take_along_dim(down.high, -2)
    value = term(down.own.to(acc), along(low)) + term(down.other.to(acc), along(high))
    return round_to(value, rows.dtype)


def mix_rectangles(
    x: Tensor,  # [B, …, H, W]
    other: Tensor | None,  # [M, …, H, W]
    source: Tensor,  # [B, R]
    source_box: Tensor,  # [B, R, 4]
    box: Tensor,  # [B, R, 4]
    scale: Tensor | None,  # [B, R, 2]
    resample: int,
    fill: float | None,
    out: Tensor,  # [B, …, H', W']
) -> None:
    check_rectangles(x, other, source, source_box, box, scale, resample, fill, out)
    images = x if other is None else other
    source, source_box, box = (t.to(x.device) for t in (source, source_box, box))
    scale = None if scale is None else scale.to(x.device)
    result = x if fill is None else torch.full_like(out, fill)
    count = source.shape[1] if images.numel() and out.numel() else 0
    middle = [1] * (x.ndim - 3)
    for r in range(count):
        rows = images[source[:, r].long().clamp(0, len(images) - 1)]
        steps = (None, None) if scale is None else scale[:, r].unbind(1)
        sizes = zip(out.shape[-2:], x.shape[-2:], strict=True)
        down, across = (
            taps(*size, box[:, r, axis::2], source_box[:, r, axis::2], steps[axis], resample)
            for axis, size in enumerate(sizes)
        )
        down = Taps(*(t.view(len(t), *middle, -1, 1) for t in down))
        across = Taps(*(t.view(len(t), *middle, 1, -1) for t in across))
        result = torch.where(
            down.inside & across.inside, _resampled(rows, down, across, resample), result
        )
    out.copy_(result)


def _gather(x: Tensor, sample: Tensor | None, index: Tensor | None) -> Tensor:
    """x with its patches taken from elsewhere; zeros where an index is below 0."""
    batch = len(x)
    per_patch = sample is not None and sample.ndim == 3
    grid = index if index is not None else sample if per_patch else None
    if grid is None:
        return x if sample is None else x[sample.to(x.device).long().clamp(0, batch - 1)]
    gh, gw = grid.shape[1:]
    here = torch.arange(batch, device=x.device)[:, None]
    if sample is not None:
        here = sample.to(x.device).long().clamp(0, batch - 1).view(batch, -1)
    own = torch.arange(gh * gw, device=x.device)
    which = own if index is None else index.to(x.device).long().view(batch, -1)
    height, width = x.shape[-2:]
    cells = x.unflatten(-1, (gw, width // gw)).unflatten(-3, (gh, height // gh))
    patches = cells.movedim((-4, -2), (1, 2)).flatten(1, 2)  # [B, G, …, ph, pw]
    taken = patches[here, which.clamp(0, gh * gw - 1)]
    none = (which < 0).expand(batch, -1).view(batch, -1, *[1] * (taken.ndim - 2))
    taken = torch.where(none, torch.zeros_like(taken), taken)
    return taken.unflatten(1, (gh, gw)).movedim((1, 2), (-4, -2)).reshape(x.shape)


def mix_patches(
    x: Tensor,  # [B, …, H, W]
    sample: Tensor | None,  # [B] or [B, gh, gw]
    index: Tensor | None,  # [B, gh, gw]
    partner: Tensor | None,  # [B] or [B, gh, gw]
    partner_index: Tensor | None,  # [B, gh, gw]
    mask: Tensor | None,  # [B, mh, mw]
    out: Tensor,  # [B, …, H, W]
) -> None:
    check_patches(x, sample, index, partner, partner_index, mask, out)
    if x.numel() == 0:
        return
    own = _gather(x, sample, index)
    if mask is not None:
        acc = arithmetic(x.dtype)
        height, width = x.shape[-2:]
        m = mask.to(x.device).float()
        m = m.repeat_interleave(height // m.shape[1], 1).repeat_interleave(width // m.shape[2], 2)
        m = m.view(len(x), *[1] * (x.ndim - 3), height, width)
        other = _gather(x, partner, partner_index)
        m0, m1 = m.to(acc), (1 - m).to(acc)
        blended = round_to(term(m0, own.to(acc)) + term(m1, other.to(acc)), x.dtype)
        own = torch.where(m == 1, own, torch.where(m == 0, other, blended))
    out.copy_(own)
