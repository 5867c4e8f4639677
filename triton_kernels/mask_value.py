"""The mask m of samples' pixels, as reference/masks.py computes it: in registers, bit for bit.

A program looks at one sample, so its code is one number and every branch on it is uniform. Launch
kernels that call these functions with ``enable_fp_fusion=False``: each product and sum is rounded
on its own.
"""

import triton
import triton.language as tl

from ..codes import (
    MASK_FORM,
    MASK_FUNCTION,
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
    MASK_SIGMOID,
    MASK_STORED,
    MASK_THRESHOLD,
)

# Kernels can name a global only if it is a constexpr.
_FORM, _FUNCTION = tl.constexpr(MASK_FORM), tl.constexpr(MASK_FUNCTION)
_SEPARABLE, _STORED = tl.constexpr(MASK_SEPARABLE), tl.constexpr(MASK_STORED)
_THRESHOLD, _PARITY = tl.constexpr(MASK_THRESHOLD), tl.constexpr(MASK_PARITY)
_SIGMOID, _INVERT = tl.constexpr(MASK_SIGMOID), tl.constexpr(MASK_INVERT)


@triton.jit
def _sigmoid(s):
    """1 / (1 + e^-s) in float32, within about one unit in the last place."""
    x = 0.0 - tl.where(s < -88.722839, -88.722839, s)  # e^x is a finite float32
    x = tl.where(x < -40.0, -40.0, x)  # 1 + e^x is 1
    k = tl.floor(x * 1.4426950408889634 + 0.5)
    # ln 2 in two parts, of which the first has few bits: k times it is exact.
    r = (x - k * 0.693359375) - k * -2.12194440e-4
    p = 1.3981999507e-3 + 1.9875691500e-4 * r
    p = 8.3334519073e-3 + p * r
    p = 4.1665795894e-2 + p * r
    p = 1.6666665459e-1 + p * r
    p = 5.0000001201e-1 + p * r
    t = r + p * (r * r)
    # e^x, and what its rounding leaves, times 2^k: in two factors, as 2^128 is no float32.
    whole = k.to(tl.int32)
    low = (((whole >> 1) + 127) << 23).to(tl.float32, bitcast=True)
    high = ((whole - (whole >> 1) + 127) << 23).to(tl.float32, bitcast=True)
    power = 1.0 + t
    rest = (t - (power - 1.0)) * low * high
    power = power * low * high
    total = 1.0 + power
    large = tl.where(power > 1.0, power, 1.0)
    rest += tl.where(power > 1.0, 1.0, power) - (total - large)
    m = tl.div_rn(t * 0.0 + 1.0, total + rest)
    return tl.where(s < -88.722839, 0.0, m)  # e^-s is infinite


@triton.jit
def _bilinear(n, small, ratio):
    """The two places of a map along a dim, and the share of the second."""
    at = (n.to(tl.float32) + 0.5) * ratio - 0.5
    at = tl.where(at < 0.0, 0.0, at)
    low = tl.minimum(tl.floor(at), tl.cast(small - 1, tl.float32))
    first = low.to(tl.int32)
    return first, tl.minimum(first + 1, small - 1), at - low


@triton.jit
def _nearest(n, small, ratio):
    return tl.minimum(tl.floor(n.to(tl.float32) * ratio).to(tl.int32), small - 1)


@triton.jit
def _pixel(row, x, step):
    """A value of a map: 0 and 1 are bytes there."""
    return tl.load(row + x.to(tl.int64) * step).to(tl.float32)


@triton.jit
def mask_value(
    number,  # the sample's code, not 0
    i,  # the sample, int64
    y,  # blocks of pixels
    x,
    threshold,  # float32 [B]
    rows,  # float32 [B, R, H], or None
    columns,  # float32 [B, R, W]
    map,  # [B, h, w] of bytes or floats, or None
    steps,  # strides of code, threshold, rows (3), columns (3) and map (3), and its h and w
    ratio_y,  # h / H and w / W in float32
    ratio_x,
    R: tl.constexpr,
    BILINEAR: tl.constexpr,
):
    s = (x * 0).to(tl.float32)
    if rows is not None:
        separable = (number & _FORM) == _SEPARABLE
        if separable:
            row = rows + i * steps[2] + y.to(tl.int64) * steps[4]
            column = columns + i * steps[5] + x.to(tl.int64) * steps[7]
            s = tl.load(row) * tl.load(column)
            for k in tl.static_range(1, R):
                s += tl.load(row + k * steps[3]) * tl.load(column + k * steps[6])
    if map is not None:
        stored = (number & _FORM) == _STORED
        if stored:
            base = map + i * steps[8]
            if BILINEAR:
                y0, y1, ly = _bilinear(y, steps[11], ratio_y)
                x0, x1, lx = _bilinear(x, steps[12], ratio_x)
                row = base + y0.to(tl.int64) * steps[9]
                upper = (1.0 - lx) * _pixel(row, x0, steps[10]) + lx * _pixel(row, x1, steps[10])
                row = base + y1.to(tl.int64) * steps[9]
                lower = (1.0 - lx) * _pixel(row, x0, steps[10]) + lx * _pixel(row, x1, steps[10])
                s = (1.0 - ly) * upper + ly * lower
            else:
                row = base + _nearest(y, steps[11], ratio_y).to(tl.int64) * steps[9]
                s = _pixel(row, _nearest(x, steps[12], ratio_x), steps[10])
    m = s
    if (number & _FUNCTION) == _THRESHOLD:
        m = tl.where(s > tl.load(threshold + i * steps[1]), 1.0, 0.0)
    elif (number & _FUNCTION) == _PARITY:
        m = s - tl.floor(s * 0.5) * 2.0
    elif (number & _FUNCTION) == _SIGMOID:
        m = _sigmoid(s)
    if (number & _INVERT) != 0:
        m = 1.0 - m
    return m


@triton.jit
def shares(
    i,  # the sample, int64
    e,  # a block of elements, and where they lie
    y,
    x,
    w0,  # the sample's blend, which holds where it has no mask
    w1,
    code,  # int32 [B], or None
    threshold,
    rows,
    columns,
    map,
    steps,
    ratio_y,
    ratio_x,
    R: tl.constexpr,
    BILINEAR: tl.constexpr,
    ACC: tl.constexpr,
):
    """``own, other, alone``: the weights of a block, and where the partner shows alone."""
    own = (e * 0).to(ACC) + w0
    other = (e * 0).to(ACC) + w1
    alone = e < 0
    if code is not None:
        number = tl.load(code + i * steps[0])
        if (number & _FORM) != 0:
            m = mask_value(
                *(number, i, y, x, threshold, rows, columns, map, steps, ratio_y, ratio_x),
                *(R, BILINEAR),
            )
            own = m.to(ACC)
            other = (1.0 - m).to(ACC)  # rounded to float32, whatever the arithmetic
            alone = m == 0.0
    return own, other, alone
