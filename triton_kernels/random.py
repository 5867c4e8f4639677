"""The random numbers and real functions of docs/drawing.md, bit for bit as in reference/random.py.

Launch kernels that call these with ``enable_fp_fusion=False``: every product and sum is rounded on
its own. Quotients and square roots of float64 are rounded to nearest on every device.
"""

import triton
import triton.language as tl

from ..reference import random as spec

# Kernels can name a global only if it is a constexpr. Combined with a float64 tensor, a constant
# becomes float64.
_LOG, _EXP = tl.constexpr(spec.LOG), tl.constexpr(spec.EXP)
_CENTRE, _CENTRE_UNDER = map(tl.constexpr, spec.CENTRE)
_TAIL, _TAIL_UNDER = map(tl.constexpr, spec.TAIL)
_FAR_TAIL, _FAR_TAIL_UNDER = map(tl.constexpr, spec.FAR_TAIL)
_LN2_HIGH, _LN2_LOW = tl.constexpr(spec.LN2_HIGH), tl.constexpr(spec.LN2_LOW)
_INVERSE_LN2 = tl.constexpr(spec.INVERSE_LN2)
_SQRT_HALF_BITS = tl.constexpr(spec.SQRT_HALF_BITS)
_EXP_LIMIT = tl.constexpr(spec.EXP_LIMIT)


@triton.jit
def words(state, sample, draw):
    """The four words of ``draw``, int32 like ``sample``; uint32. ``state``: seed, stream, step."""
    seed, stream, step = state
    high = (step >> 32 << 16).to(tl.int32)
    # The tensor stands first: constexpr + tensor is a constexpr to the interpreter, which philox
    # of Triton 3.8 and later refuses.
    counter = sample, high + draw + sample * 0, step.to(tl.int32) + sample * 0
    return tl.philox(seed, *counter, stream.to(tl.int32) + sample * 0)


@triton.jit
def below(word, n):
    """An integer in [0, n) for n up to 2^31; 0 for n = 0. int64."""
    return (word.to(tl.int64) * n) >> 32


@triton.jit
def happens(word, probability):
    return word.to(tl.float64) < probability * 4294967296.0


@triton.jit
def uniform(low, high):
    k = low.to(tl.int64) | (high & 0xFFFFF).to(tl.int64) << 32
    return (k.to(tl.float64) + 0.5) * 2.220446049250313e-16


@triton.jit
def short_uniform(word):
    return (word.to(tl.float64) + 0.5) * 2.3283064365386963e-10


@triton.jit
def horner(x, COEFFICIENTS: tl.constexpr, COUNT: tl.constexpr):
    value = x * COEFFICIENTS[COUNT - 1] + COEFFICIENTS[COUNT - 2]
    for k in tl.static_range(3, COUNT + 1):
        value = value * x + COEFFICIENTS[COUNT - k]
    return value


@triton.jit
def log(x):
    """Natural logarithm of positive normal numbers."""
    bits = x.to(tl.int64, bitcast=True)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    f = (bits - (exponent << 52)).to(tl.float64, bitcast=True) - 1.0
    k = exponent.to(tl.float64)
    s = f / (f + 2.0)
    z = s * s
    r = z * horner(z, _LOG, 7)
    half = f * f * 0.5
    return k * _LN2_HIGH - ((half - (s * (half + r) + k * _LN2_LOW)) - f)


@triton.jit
def exp_negative(x):
    """e^-x for x >= 0; 0 for x > 708."""
    y = 0.0 - tl.where(x > _EXP_LIMIT, _EXP_LIMIT, x)
    whole = (y * _INVERSE_LN2 - 0.5).to(tl.int64)
    k = whole.to(tl.float64)
    high = y - k * _LN2_HIGH
    low = k * _LN2_LOW
    r = high - low
    t = r * r
    c = r - t * horner(t, _EXP, 5)
    e = 1.0 - ((low - r * c / (2.0 - c)) - high)
    scale = ((whole + 1023) << 52).to(tl.float64, bitcast=True)
    return tl.where(x > _EXP_LIMIT, 0.0, e * scale)


@triton.jit
def exp(x):
    """e^x; 0 for x < -708, infinite for x > 708."""
    e = exp_negative(tl.where(x > 0.0, x, 0.0 - x))
    return tl.where(x > 0.0, 1.0 / e, e)


@triton.jit
def normal(p):
    """The p-quantile of the normal distribution, for p in (0, 1)."""
    q = p - 0.5
    u = 0.180625 - q * q
    centre = q * (horner(u, _CENTRE, 8) / horner(u, _CENTRE_UNDER, 8))
    r = tl.sqrt(0.0 - log(tl.where(q < 0.0, p, 1.0 - p)))
    u = r - 1.6
    near = horner(u, _TAIL, 8) / horner(u, _TAIL_UNDER, 8)
    u = r - 5.0
    tail = tl.where(r <= 5.0, near, horner(u, _FAR_TAIL, 8) / horner(u, _FAR_TAIL_UNDER, 8))
    tail = tl.where(q < 0.0, 0.0 - tail, tail)
    return tl.where((q < 0.0 - 0.425) | (q > 0.425), tail, centre)
