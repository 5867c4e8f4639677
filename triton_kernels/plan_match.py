"""Partners by a sort, for plan_kernel: shuffle, derangement and across classes.

Threads exchange keys and partners through memory, with a barrier between the steps.
"""

import triton
import triton.language as tl

from ..codes import (
    CROSS_CLASS,
    DRAW_ORDER,
    DRAW_SHIFT,
    PAIR,
    SHUFFLE,
)
from .random import below, words

# Kernels can name a global only if it is a constexpr.
_ORDER, _SHIFT = tl.constexpr(DRAW_ORDER), tl.constexpr(DRAW_SHIFT)
_SHUFFLE, _CROSS_CLASS = tl.constexpr(SHUFFLE), tl.constexpr(CROSS_CLASS)
_PAIR = tl.constexpr(PAIR)


@triton.jit
def _wait(WAIT: tl.constexpr):
    """After it every thread reads what the others wrote before it."""
    if WAIT != "":
        # AMD's barrier does not wait for accesses in flight: they have to arrive first.
        tl.inline_asm_elementwise(
            WAIT, "=v,v,~{memory}", [tl.arange(0, 64)], dtype=tl.int32, is_pure=False, pack=1
        )
    tl.debug_barrier()


@triton.jit
def _sort(keys, labels, B, PAIRS: tl.constexpr, WAIT: tl.constexpr):
    """Sort keys [B], which are distinct; with ``labels`` keys are samples, by label and index.

    A bitonic sort. The smaller key always goes to the lower place, also in the first step of a
    merge, which pairs the ends of two runs: so the keys need no padding beyond B.
    """
    merged = 2
    while merged < 2 * B:
        span = merged
        while span > 1:
            half = span // 2
            first = 0
            while 2 * first < B + span:
                t = first + tl.arange(0, PAIRS)
                at = t & (half - 1)  # half is a power of two
                run = 2 * (t - at)
                low = run + at
                high = tl.where(span == merged, run + span - 1 - at, low + half)
                inside = high < B
                a = tl.load(keys + low, mask=inside, other=0)
                b = tl.load(keys + high, mask=inside, other=0)
                if labels is None:
                    swap = a > b
                else:
                    label_a = tl.load(labels + a, mask=inside, other=0)
                    label_b = tl.load(labels + b, mask=inside, other=0)
                    swap = (label_a > label_b) | ((label_a == label_b) & (a > b))
                tl.store(keys + low, b, mask=inside & swap)
                tl.store(keys + high, a, mask=inside & swap)
                first += PAIRS
            _wait(WAIT)
            span = half
        merged = merged * 2


@triton.jit
def _class_keys(
    state, labels, samples, keys, B, PAIRS: tl.constexpr, BLOCK: tl.constexpr, WAIT: tl.constexpr
):
    """Write the keys of the pairing across classes, by samples in the order of their labels.

    Returns:
        the size of the largest class.
    """
    start = 0
    while start < B:
        i = start + tl.arange(0, BLOCK)
        tl.store(samples + i, i.to(tl.int64), mask=i < B)
        start += BLOCK
    _wait(WAIT)
    _sort(samples, labels, B, PAIRS, WAIT)
    largest = 0
    start = 0
    while start < B:
        p = start + tl.arange(0, BLOCK)
        inside = p < B
        i = tl.load(samples + p, mask=inside, other=0)
        label = tl.load(labels + i, mask=inside, other=0)
        # Where the class starts: the first place whose label is not smaller.
        low = p * 0
        high = p
        span = B
        while span > 0:
            middle = (low + high) // 2
            other = tl.load(samples + middle, mask=inside, other=0)
            smaller = tl.load(labels + other, mask=inside, other=0) < label
            low = tl.where(smaller, tl.minimum(middle + 1, high), low)
            high = tl.where(smaller, high, middle)
            span = span // 2
        leader = tl.load(samples + low, mask=inside, other=0)
        largest = tl.maximum(largest, tl.max(tl.where(inside, p - low + 1, 0), 0))
        _, _, class_word, _ = words(state, leader.to(tl.int32), _ORDER)
        sample_word, _, _, _ = words(state, i.to(tl.int32), _ORDER)
        key = (class_word >> 17).to(tl.int64) << 48 | leader << 32
        tl.store(keys + p, key | (sample_word >> 16).to(tl.int64) << 16 | i, mask=inside)
        start += BLOCK
    return largest


@triton.jit
def match(
    state,
    labels,
    keys,
    partners,
    B,
    PER: tl.constexpr,
    PAIRING: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WAIT: tl.constexpr,
):
    """Write partners by a sort: shuffle, derangement and across classes."""
    shift = 1
    if PAIRING == _CROSS_CLASS:
        largest = _class_keys(state, labels, keys + B, keys, B, PAIRS, BLOCK, WAIT)
        word, _, _, _ = words(state, tl.arange(0, 1), _SHIFT)
        free = largest + below(tl.max(word, 0), tl.maximum(B - 2 * largest + 1, 0)).to(tl.int32)
        shift = tl.where(2 * largest <= B, free, tl.where(largest < B, largest, 1))
    else:
        start = 0
        while start < B:
            i = start + tl.arange(0, BLOCK)
            low, high, _, _ = words(state, i, _ORDER)
            key = low.to(tl.int64) | (high & 0x7FFF).to(tl.int64) << 32
            tl.store(keys + i, key << 16 | i, mask=i < B)
            start += BLOCK
    _wait(WAIT)
    _sort(keys, None, B, PAIRS, WAIT)
    start = 0
    while start < B:
        p = start + tl.arange(0, BLOCK)
        inside = p < B
        sample = (tl.load(keys + p, mask=inside, other=0) & 0xFFFF).to(tl.int32)
        if PAIRING == _SHUFFLE and PER != _PAIR:
            tl.store(partners + p, sample, mask=inside)
        else:
            if PER == _PAIR:
                half = B // 2
                place = tl.where(p < half, p + half, tl.where(p < 2 * half, p - half, p))
            else:
                place = tl.where(p + shift < B, p + shift, p + shift - B)
            other = tl.load(keys + place, mask=inside, other=0) & 0xFFFF
            tl.store(partners + sample, other.to(tl.int32), mask=inside)
        start += BLOCK
    _wait(WAIT)
