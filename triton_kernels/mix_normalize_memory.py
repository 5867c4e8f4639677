"""How mix_normalize's kernel reads and writes images in memory.

Channels that lie side by side (channels_last) are read and written as one run of whole vectors.
Between a run and planes, a block for each channel, values pass through shared memory.
"""

import triton
import triton.language as tl

# How an image lies in memory: in rows and columns of any strides; one row continues the other;
# all channels of a pixel, then of the next. SAME: as WOVEN, for so many channels that a block is a
# run of memory, not of pixels.
ROWS, RUN, WOVEN, SAME = range(4)
# Kernels can name a global only if it is a constexpr.
_RUN, _WOVEN, _SAME = tl.constexpr(RUN), tl.constexpr(WOVEN), tl.constexpr(SAME)


@triton.jit
def quotient(a, b):
    """a // b of numbers that are not negative: unsigned division takes fewer instructions."""
    unsigned: tl.constexpr = tl.uint64 if a.dtype == tl.int64 else tl.uint32
    return (a.to(unsigned) // tl.cast(b, unsigned)).to(a.dtype)


@triton.jit
def _offset(e, pixel, c, y, x, strides, ORDER: tl.constexpr):
    """Where channel ``c`` of pixels lies in its sample. ``strides``: of channels, rows, columns."""
    if ORDER == _SAME:
        offset = e
    elif ORDER == _RUN:
        offset = pixel * strides[2] + c * strides[0]
    else:
        offset = y * strides[1] + x * strides[2] + c * strides[0]
    return offset


@triton.jit
def _woven(results, C: tl.constexpr, BLOCK: tl.constexpr):
    """Blocks of up to four channels as one run, [4 · BLOCK]; what lies behind C · BLOCK is junk."""
    even = tl.join(results[0], results[min(2, C - 1)])
    odd = tl.join(results[1], results[C - 1])
    four = tl.reshape(tl.join(even, odd), [4 * BLOCK])  # channel c of a pixel at 4 · pixel + c
    k = tl.arange(0, 4 * BLOCK)
    pixel = tl.minimum(quotient(k, C), BLOCK - 1)
    return tl.gather(four, pixel * 4 + k % C, 0)


@triton.jit
def _planes(run, C: tl.constexpr, BLOCK: tl.constexpr):
    """The four channels of a run [4 · BLOCK]; those from C on are junk."""
    k = tl.arange(0, 4 * BLOCK)
    four = tl.gather(run, (k >> 2) * C + (k & 3), 0)
    even, odd = tl.split(tl.reshape(four, [BLOCK, 2, 2]))
    c0, c2 = tl.split(even)
    c1, c3 = tl.split(odd)
    return c0, c1, c2, c3


@triton.jit
def read(
    at,
    bound,  # of pixels, or of elements
    turned,  # whether columns run from right to left
    place,
    W,
    strides,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    ORDER: tl.constexpr,
    TURNS: tl.constexpr,
    ELEMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A block of each channel of the program, of the sample at ``at``."""
    block, e, pixel, plane, y, x = place
    if ORDER == _WOVEN:
        k = tl.arange(0, 4 * BLOCK)
        first = block * (BLOCK * C)
        run = tl.load(at + first + k, mask=(k < BLOCK * C) & (first + k < bound * C), other=0)
        values = _planes(run, C, BLOCK)
    else:
        if TURNS:
            x = tl.where(turned, W - 1 - x, x)
        values = ()
        for k in tl.static_range(GROUP):
            c = e - pixel * C if ELEMENTS else plane + k
            offset = _offset(e, pixel, c, y, x, strides, ORDER)
            values = values + (tl.load(at + offset, mask=e < bound, other=0),)
    return values


@triton.jit
def write(
    at,
    results,
    bound,
    place,
    strides,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    ORDER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block, e, pixel, plane, y, x = place
    if ORDER == _WOVEN:
        k = tl.arange(0, 4 * BLOCK)
        first = block * (BLOCK * C)
        there = (k < BLOCK * C) & (first + k < bound * C)
        tl.store(at + first + k, _woven(results, C, BLOCK), mask=there)
    else:
        for k in tl.static_range(GROUP):
            offset = _offset(e, pixel, plane + k, y, x, strides, ORDER)
            tl.store(at + offset, results[k], mask=e < bound)
