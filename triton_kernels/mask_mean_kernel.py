"""The kernels of mask_mean: values are summed as whole numbers of 2^-24, in any order alike."""

import triton
import triton.language as tl

from ..codes import MASK_FORM, MASK_SCALE
from .mask_value import mask_value

_FORM, _SCALE = tl.constexpr(MASK_FORM), tl.constexpr(float(MASK_SCALE))


@triton.jit
def _write_mean(mean, i, number, total, whole: tl.int64):
    """``whole``: the bits of the float64 that all pixels of m = 1 sum to."""
    value = (total.to(tl.float64) / tl.cast(whole, tl.int64).to(tl.float64, bitcast=True)).to(
        tl.float32
    )
    tl.store(mean + i, tl.where((number & _FORM) == 0, 1.0, value))


@triton.jit(do_not_specialize=["pixels", "whole", "W"])
def mask_sum_kernel(
    mean,  # float32 [B]
    sums,  # int64 [B, PARTS]
    code,  # the mask, see mask_value.py
    threshold,
    rows,
    columns,
    map,
    steps,
    ratio_y,
    ratio_x,
    pixels,
    W,
    whole: tl.int64,
    R: tl.constexpr,
    BILINEAR: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pid = tl.program_id(0)
    i = (pid // PARTS).to(tl.int64)
    part = pid % PARTS
    number = tl.load(code + i * steps[0])
    total = tl.zeros((BLOCK,), tl.int64)
    if (number & _FORM) != 0:
        start = tl.cast(part, tl.int64) * BLOCK
        while start < pixels:
            e = start + tl.arange(0, BLOCK)
            inside = tl.minimum(e, pixels - 1)  # beyond the last pixel lies no row of the mask
            y = inside // W
            x = inside - y * W
            m = mask_value(
                *(number, i, y, x, threshold, rows, columns, map, steps, ratio_y, ratio_x),
                *(R, BILINEAR),
            )
            # NaN, which values on a device may be, counts as 0.
            m = tl.where((m > 0.0) & (e < pixels), tl.where(m > 1.0, 1.0, m), 0.0) * _SCALE
            # From 2^23 on a float32 has no fraction; below, the sum with 2^23 rounds half to even.
            m = tl.where(m < 8388608.0, (m + 8388608.0) - 8388608.0, m)
            total += m.to(tl.int64)
            start += BLOCK * PARTS
    if PARTS == 1:
        _write_mean(mean, i, number, tl.sum(total, 0), whole)
    else:
        tl.store(sums + pid, tl.sum(total, 0))


@triton.jit(do_not_specialize=["whole"])
def mask_mean_kernel(mean, sums, code, code_stride, whole: tl.int64, PARTS: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    total = tl.sum(tl.load(sums + i * PARTS + tl.arange(0, PARTS)), 0)
    _write_mean(mean, i, tl.load(code + i * code_stride), total, whole)
