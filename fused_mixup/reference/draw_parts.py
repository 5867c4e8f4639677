"""What the draws of plans share: partners, λ and boxes, step by step as in docs/drawing.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..codes import (
    CROSS_CLASS,
    DERANGEMENT,
    DRAW_BOOST,
    DRAW_GAMMA,
    DRAW_ORDER,
    DRAW_PLACE,
    DRAW_SHIFT,
    DRAW_SIDE,
    FLIP,
    MAX_ATTEMPTS,
    PAIR,
    ROLL,
    SELF,
    TENSOR,
)
from .random import (
    Stream,
    Words,
    below,
    exp_negative,
    log,
    normal,
    square_root,
    uniform,
)

_USUAL_ATTEMPTS = 2  # made at once for all samples

_SMALLEST_FLOAT32 = 2.0**-126


# ------------------------------------------------------------------ partners


def drawn_partners(
    stream: Stream,
    labels: Tensor | None,
    given: Tensor | None,
    batch_size: int,
    per: int,
    pairing: int,
    samples: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The index of each sample, and its partner's."""
    if samples is not None:
        assert given is not None
        return samples.long(), given.long()
    i = torch.arange(batch_size, device=stream.device)
    return i, _paired(stream, labels, given, i, per, pairing)


def _paired(
    stream: Stream, labels: Tensor | None, given: Tensor | None, i: Tensor, per: int, pairing: int
) -> Tensor:
    n = i.shape[0]
    if pairing == TENSOR:
        assert given is not None
        return given.long().clamp(0, max(n - 1, 0))
    if pairing == FLIP:
        return i.flip(0)
    if pairing == ROLL:
        return i.roll(1)
    if pairing == SELF:
        return i
    words = stream.words(i, DRAW_ORDER)
    if pairing == CROSS_CLASS:
        assert labels is not None
        leader, largest = _classes(labels, i)
        class_key = words[2][leader] >> 17
        key = class_key << 48 | leader << 32 | words[0] >> 16 << 16 | i
    else:
        key = (words[0] | (words[1] & 0x7FFF) << 32) << 16 | i
    order = key.sort().values & 0xFFFF
    if per == PAIR:
        half = n // 2
        matched = torch.cat((order[half : 2 * half], order[:half], order[2 * half :]))
    elif pairing == CROSS_CLASS:
        matched = order[(i + _shift(stream, largest, n)) % max(n, 1)]
    elif pairing == DERANGEMENT:
        matched = order.roll(-1)
    else:
        return order
    return torch.empty_like(i).scatter_(0, order, matched)


def _classes(labels: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """The first sample of each sample's class [B], and the size of the largest class [1] or [0]."""
    ordered, sources = labels.sort(stable=True)
    starts = torch.ones_like(labels, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    start = torch.where(starts, i, 0).cummax(0).values
    leader = torch.empty_like(i).scatter_(0, sources, sources[start])
    largest = (i - start + 1).amax(0, keepdim=True) if len(i) else i
    return leader, largest


def _shift(stream: Stream, largest: Tensor, n: int) -> Tensor:
    """A shift along the order: any from ``largest`` to n - ``largest`` leads to another class."""
    word = stream.words(torch.zeros_like(largest), DRAW_SHIFT)[0]
    free = largest + below(word, n - 2 * largest + 1)
    crowded = torch.where(largest < n, largest, 1)
    return torch.where(2 * largest <= n, free, crowded)


# ------------------------------------------------------------------ λ


def drawn_beta(stream: Stream, unit: Tensor, alpha: Tensor, words: Words) -> Tensor:
    """λ and 1-λ [B, 2], λ from Beta(α, α), by two gamma deviates in log space."""
    small = alpha < 1.0
    shape = torch.where(small, alpha + 1.0, alpha)
    first, second = _log_roots(stream, unit, shape)
    a, b, c, d = (w[DRAW_BOOST] for w in words)
    boost = (log(uniform(c, d)) - log(uniform(a, b))) / alpha
    t = (second - first) * 3.0
    t = torch.where(small, t + boost, t)
    e = exp_negative(t.abs())  # the smaller gamma deviate over the larger one
    major, minor = 1.0 / (e + 1.0), e / (e + 1.0)
    own = t <= 0.0
    return torch.stack((torch.where(own, major, minor), torch.where(own, minor, major)), 1)


def _log_roots(stream: Stream, unit: Tensor, shape: Tensor) -> Tensor:
    """log w [2, B], where d·w³ are gamma deviates of ``shape`` and d = shape - 1/3."""
    log_w, done = _attempts(stream, unit, shape, 0, _USUAL_ATTEMPTS)
    # Only the CPU knows which samples are left; on a device all make every attempt.
    on_host = unit.device.type == "cpu"
    rows = (~done.all(0)).nonzero()[:, 0] if on_host else slice(None)
    late, done_late = _attempts(stream, unit[rows], shape[rows], _USUAL_ATTEMPTS, MAX_ATTEMPTS)
    late = torch.where(done_late, late, 0.0)  # the mode, where no attempt was accepted
    log_w[:, rows] = torch.where(done[:, rows], log_w[:, rows], late)
    return log_w


def _attempts(
    stream: Stream, unit: Tensor, shape: Tensor, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    """log w of the first attempt in [start, stop) that was accepted, and whether one was [2, B]."""
    draws = torch.arange(DRAW_GAMMA + 2 * start, DRAW_GAMMA + 2 * stop, device=unit.device)
    words = stream.words(unit, draws.view(-1, 2, 1))  # each [attempts, 2, B]
    d = shape - 1.0 / 3.0
    c = 1.0 / square_root(d * 9.0)
    x = normal(uniform(words[0], words[1]))
    w = c * x + 1.0
    positive = w > 0.0
    log_w = log(torch.where(positive, w, 1.0))
    bound = x * x * 0.5 + d * (1.0 - w * w * w + log_w * 3.0)
    accepted = positive & (log(uniform(words[2], words[3])) < bound)
    first = accepted.int().argmax(0, keepdim=True)
    return log_w.gather(0, first)[0], accepted.any(0)


# ------------------------------------------------------------------ boxes


def drawn_boxes(
    words: Words, scale: Tensor, spatial: Sequence[int], least: Tensor, most: Tensor
) -> tuple[Tensor, Tensor]:
    """Starts and stops [B, D] of boxes whose sides are ``scale`` of the sizes, or within bounds."""
    bounded = most > 0
    starts, stops = [], []
    for k, n in enumerate(spatial):
        length = (scale * float(n)).long()
        centre = below(words[k][DRAW_PLACE], n)
        around = (centre - length // 2).clamp(min=0), (centre + (length + 1) // 2).clamp(max=n)
        low = (least * float(n)).long()
        high = (most * float(n)).long()
        length = low + below(words[k][DRAW_SIDE], (high - low).clamp(min=1))
        start = below(words[k][DRAW_PLACE], n - length + 1)
        starts.append(torch.where(bounded, start, around[0]))
        stops.append(torch.where(bounded, start + length, around[1]))
    if not starts:
        none = scale.new_empty((scale.shape[0], 0))
        return none, none
    return torch.stack(starts, 1), torch.stack(stops, 1)


def root(share: Tensor, dims: int) -> Tensor:
    """share^(1/dims)."""
    if dims == 2:
        return square_root(share)
    if dims == 3:
        positive = torch.where(share > 0.0, share, 1.0)
        return torch.where(share > 0.0, exp_negative(-log(positive) / 3.0), 0.0)
    return share


def area_weights(starts: Tensor, stops: Tensor, spatial: Sequence[int]) -> Tensor:
    """The shares of the sample outside and inside its box [B, 2]; an empty sample is outside."""
    area = torch.ones(starts.shape[0], dtype=torch.float64, device=starts.device)
    total = 1.0
    for k, n in enumerate(spatial):
        area = area * (stops[:, k] - starts[:, k]).double()
        total = total * float(n)
    total = max(total, 1.0)
    return torch.stack(((total - area) / total, area / total), 1)


def label_weight(w: Tensor) -> Tensor:
    """w as float32; what would be subnormal is 0, as some devices flush it and others do not."""
    return torch.where(w < _SMALLEST_FLOAT32, 0.0, w).float()
