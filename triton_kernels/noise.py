"""Normal noise of pixels, bit for bit as in reference/noise.py; docs/drawing.md specifies it.

Launch kernels that call these with ``enable_fp_fusion=False``: arithmetic is float32, each
operation rounded on its own.
"""

import triton
import triton.language as tl

from ..codes import NOISE_TAG
from ..reference import noise as spec
from .random import horner

# Kernels can name a global only if it is a constexpr.
_TAG = tl.constexpr(NOISE_TAG)
_LOG, _CENTRE, _TAIL = map(tl.constexpr, (spec.LOG, spec.CENTRE, spec.TAIL))
_LN2_HIGH, _LN2_LOW = tl.constexpr(spec.LN2_HIGH), tl.constexpr(spec.LN2_LOW)
_SQRT_HALF_BITS, _SQRT_2 = tl.constexpr(spec.SQRT_HALF_BITS), tl.constexpr(spec.SQRT_2)


@triton.jit
def noise_words(key, pixel, block):
    """Four words for each pixel, uint32: channel c takes word c mod 4 of block c div 4."""
    low = pixel.to(tl.int32)
    high = (pixel.to(tl.int64) >> 32).to(tl.int32)
    return tl.philox(key, low, high, low * 0 + block, low * 0 + _TAG)


@triton.jit
def log(x):
    """Natural logarithm of positive normal floats."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - _SQRT_HALF_BITS) >> 23
    z = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    k = exponent.to(tl.float32)
    squared = z * z
    tail = (z * squared) * horner(z, _LOG, 9) + k * _LN2_LOW
    return (z + (tail - squared * 0.5)) + k * _LN2_HIGH


@triton.jit
def normal(word):
    """A normal deviate, float32, of the upper 23 bits of a word."""
    odd = ((word >> 9) << 1).to(tl.int32) + (1 - (1 << 23))
    x = odd.to(tl.float32) * 1.1920928955078125e-07  # 2^-23
    w = 0.0 - log((1.0 - x) * (1.0 + x))
    root = tl.sqrt_rn(tl.where(w < 5.0, 5.0, w))
    p = tl.where(w < 5.0, horner(w - 2.5, _CENTRE, 9), horner(root - 3.0, _TAIL, 9))
    return (p * x) * _SQRT_2
