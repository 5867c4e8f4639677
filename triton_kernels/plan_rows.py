"""λ, boxes and weights of plan_kernel: docs/drawing.md, step by step, for a block of samples.

``state`` is (seed, stream, step), ``numbers`` the six settings, ``sizes`` those of three dims.
"""

import triton
import triton.language as tl

from ..codes import (
    DRAW_BOOST,
    DRAW_GAMMA,
    DRAW_MODE,
    DRAW_PLACE,
    DRAW_SIDE,
    MAX_ATTEMPTS,
)
from .random import below, exp_negative, happens, log, normal, uniform, words

_MODE, _PLACE = tl.constexpr(DRAW_MODE), tl.constexpr(DRAW_PLACE)
_SIDE, _BOOST = tl.constexpr(DRAW_SIDE), tl.constexpr(DRAW_BOOST)
_GAMMA, _MAX_ATTEMPTS = tl.constexpr(DRAW_GAMMA), tl.constexpr(MAX_ATTEMPTS)
_THIRD = tl.constexpr(1.0 / 3.0)
_SMALLEST_FLOAT32 = tl.constexpr(2.0**-126)


@triton.jit
def _log_root_difference(state, unit, shape):
    """l1 - l0 of two gamma deviates, which are drawn together as [2, units]."""
    deviate = tl.arange(0, 2)[:, None]
    unit, shape = unit[None, :], shape[None, :]
    d = shape - _THIRD
    c = 1.0 / tl.sqrt(d * 9.0)
    log_w = (unit + deviate).to(tl.float64) * 0.0  # the mode, where no attempt is accepted
    done = (unit + deviate) * 0
    attempt = 0
    left = 1
    while (attempt < _MAX_ATTEMPTS) & (left > 0):
        w0, w1, w2, w3 = words(state, unit + deviate * 0, _GAMMA + 2 * attempt + deviate)
        x = normal(uniform(w0, w1))
        w = c * x + 1.0
        positive = w > 0.0
        candidate = log(tl.where(positive, w, 1.0))
        bound = x * x * 0.5 + d * (1.0 - w * w * w + candidate * 3.0)
        accepted = (done == 0) & positive & (log(uniform(w2, w3)) < bound)
        log_w = tl.where(accepted, candidate, log_w)
        done = tl.where(accepted, 1, done)
        left = 1 - tl.min(tl.min(done, 1), 0)
        attempt += 1
    return tl.sum(tl.where(deviate == 1, log_w, 0.0 - log_w), 0)


@triton.jit
def _beta(state, unit, alpha):
    """λ and 1-λ, λ from Beta(α, α)."""
    small = alpha < 1.0
    t = _log_root_difference(state, unit, tl.where(small, alpha + 1.0, alpha)) * 3.0
    w0, w1, w2, w3 = words(state, unit, _BOOST)
    boost = (log(uniform(w2, w3)) - log(uniform(w0, w1))) / alpha
    t = tl.where(small, t + boost, t)
    own = t <= 0.0
    e = exp_negative(tl.where(own, 0.0 - t, t))
    major = 1.0 / (e + 1.0)
    minor = e / (e + 1.0)
    return tl.where(own, major, minor), tl.where(own, minor, major)


@triton.jit
def _side(share, n):
    """trunc(share·n), within [0, n] also for settings that no check has seen."""
    side = share * n.to(tl.float64)
    whole = tl.where(side > 0.0, side, 0.0).to(tl.int64)
    return tl.minimum(whole, n)


@triton.jit
def _extent(n, scale, place, side_word, low, high):
    """Start and stop of a box in a dim of size n."""
    length = _side(scale, n)
    centre = below(place, n)
    start = tl.maximum(centre - length // 2, 0)
    stop = tl.minimum(centre + (length + 1) // 2, n)
    least = _side(low, n)
    length = least + below(side_word, tl.maximum(_side(high, n) - least, 1))
    bounded_start = below(place, n - length + 1)
    start = tl.where(high > 0.0, bounded_start, start)
    stop = tl.where(high > 0.0, bounded_start + length, stop)
    return start, stop


@triton.jit
def draw_rows(
    state,
    numbers,
    sizes,
    unit,
    D: tl.constexpr,
    CORRECT: tl.constexpr,
    SYMMETRIC: tl.constexpr,
):
    """The rows of samples that draw as ``unit`` and have a partner.

    Returns:
        whether they are mixed, the two weights of values and of labels, and three pairs of start
        and stop (zeros beyond D).
    """
    mixup_alpha, cutmix_alpha, switch_prob, prob, low, high = numbers
    # Each sample gets its own copy: Triton's interpreter cannot combine truth values of blocks and
    # scalars.
    zeros = unit.to(tl.float64) * 0.0
    mixup_alpha += zeros
    cutmix_alpha = cutmix_alpha + zeros if D > 0 else zeros
    high += zeros
    can_mix = mixup_alpha > 0.0
    can_cut = cutmix_alpha > 0.0
    w0, w1, _, _ = words(state, unit, _MODE)
    cut = can_cut & (happens(w1, switch_prob) | (mixup_alpha <= 0.0))
    mixed = happens(w0, prob) & (can_mix | can_cut)
    alpha = tl.where(cut, cutmix_alpha, mixup_alpha)
    own, other = _beta(state, unit, tl.where(alpha > 0.0, alpha, 1.0))
    if SYMMETRIC:
        swap = own < other
        own, other = tl.where(swap, other, own), tl.where(swap, own, other)
    zero = unit.to(tl.int64) * 0
    start0, stop0, start1, stop1, start2, stop2 = zero, zero, zero, zero, zero, zero
    own_weight, other_weight = own, other
    if D > 0:
        scale = other
        if D == 2:
            scale = tl.sqrt(other)
        elif D == 3:
            positive = tl.where(other > 0.0, other, 1.0)
            scale = tl.where(other > 0.0, exp_negative((0.0 - log(positive)) / 3.0), 0.0)
        p0, p1, p2, _ = words(state, unit, _PLACE)
        s0, s1, s2, _ = words(state, unit, _SIDE)
        start0, stop0 = _extent(sizes[0], scale, p0, s0, low, high)
        area = (stop0 - start0).to(tl.float64)
        total = sizes[0].to(tl.float64)
        if D > 1:
            start1, stop1 = _extent(sizes[1], scale, p1, s1, low, high)
            area = area * (stop1 - start1).to(tl.float64)
            total = total * sizes[1].to(tl.float64)
        if D > 2:
            start2, stop2 = _extent(sizes[2], scale, p2, s2, low, high)
            area = area * (stop2 - start2).to(tl.float64)
            total = total * sizes[2].to(tl.float64)
        total = tl.where(total < 1.0, 1.0, total)
        corrected = cut
        if not CORRECT:
            corrected = cut & (high > 0.0)
        own_weight = tl.where(corrected, (total - area) / total, own)
        other_weight = tl.where(corrected, area / total, other)
    own_weight = tl.where(own_weight < _SMALLEST_FLOAT32, 0.0, own_weight)
    other_weight = tl.where(other_weight < _SMALLEST_FLOAT32, 0.0, other_weight)
    own = tl.where(cut, 1.0, own)
    other = tl.where(cut, 0.0, other)
    start0, stop0 = tl.where(cut, start0, 0), tl.where(cut, stop0, 0)
    start1, stop1 = tl.where(cut, start1, 0), tl.where(cut, stop1, 0)
    start2, stop2 = tl.where(cut, start2, 0), tl.where(cut, stop2, 0)
    boxes = start0, stop0, start1, stop1, start2, stop2
    return mixed, own, other, own_weight, other_weight, boxes
