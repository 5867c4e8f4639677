"""Random numbers and real functions that are the same to the bit on every backend.

docs/drawing.md holds the specification, and this is its plain PyTorch. Unsigned 32-bit words live
in int64 tensors. Real arithmetic is float64 with + - * / and sqrt, each rounded on its own, in the
order written here: another order, a fused multiply-add or a library's log would change bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]

# ------------------------------------------------------------------ Philox4x32-10

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def key_schedule(k0: Tensor, k1: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The two key words of each round, for keys of any shape."""
    rounds = torch.arange(_ROUNDS, device=k0.device)
    keys = zip((k0, k1), _KEY_STEPS, strict=True)
    words = ((k.unsqueeze(-1) + rounds * step) & MASK for k, step in keys)
    return list(zip(*(w.unbind(-1) for w in words), strict=True))


def philox(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, keys: list[tuple[Tensor, Tensor]]
) -> Words:
    """Four words for a counter and a key (Salmon et al., 2011); broadcasts."""
    for k0, k1 in keys:
        # The product may exceed int64: it wraps, and its 64 bits are those of the unsigned one.
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = ((b >> 32) & MASK) ^ c1 ^ k0, ((a >> 32) & MASK) ^ c3 ^ k1
        c1, c3 = b & MASK, a & MASK
    return c0, c1, c2, c3


class Stream:
    """The random words of each sample and draw, in one step of a state."""

    def __init__(self, state: Tensor) -> None:
        self.device = state.device
        _, seed, stream, step = state.unbind()
        self._keys = key_schedule(seed & MASK, (seed >> 32) & MASK)
        self._step = step & MASK, ((step >> 32) & 0xFFFF) << 16
        self._stream = stream & MASK

    def words(self, sample: Tensor, draw: Tensor | int) -> Words:
        low, high = self._step
        return philox(sample, high | draw, low, self._stream, self._keys)


def below(word: Tensor, n: Tensor | int) -> Tensor:
    """An integer in [0, n) for n up to 2^31, by the high half of a product; 0 for n = 0."""
    return (word * n) >> 32


def happens(word: Tensor, probability: Tensor) -> Tensor:
    return word.double() < probability * 2.0**32


def uniform(low: Tensor, high: Tensor) -> Tensor:
    """(k + 1/2) / 2^52 for the 52 bits k of two words: exact, and never 0 or 1."""
    k = low | (high & 0xFFFFF) << 32
    return (k.double() + 0.5) * 2.0**-52


def short_uniform(word: Tensor) -> Tensor:
    """(k + 1/2) / 2^32 for a word k: exact, and never 0 or 1."""
    return (word.double() + 0.5) * 2.0**-32


# ------------------------------------------------------------------ square root

_LOW_HALF = (1 << 27) - 1  # a double has 53 bits: heads of 26 bits have exact products


def square_root(x: Tensor) -> Tensor:
    """The square root, rounded to nearest, of x = 0 or x > 2^-900 (below, within an ulp).

    On the CPU PyTorch takes it from MKL, where it is off by an ulp at times. So the remainder
    x - r² is worked out exactly (Dekker, 1971), and r moved where a neighbour lies nearer: beyond
    (r ± u/2)² = r² ± r·u + u²/4, whose last term no remainder, a multiple of u², can tell.
    """
    r = x.sqrt()
    bits = r.view(torch.int64)
    head = ((bits + (_LOW_HALF + 1) // 2) & ~_LOW_HALF).view(torch.float64)
    tail = r - head
    remainder = ((x - head * head) - 2.0 * head * tail) - tail * tail
    above, under = (bits + 1).view(torch.float64), (bits - 1).view(torch.float64)
    r = torch.where(remainder > r * (above - r), above, r)
    # No double lies under 0: the view gives NaN, which compares as false.
    return torch.where(remainder <= -r * (r - under), under, r)


# ------------------------------------------------------------------ log and exp (after fdlibm)

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
INVERSE_LN2 = 1.44269504088896338700e00
SQRT_HALF_BITS = 0x3FE6A09E00000000  # the double that bounds the mantissa from below
LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
EXP = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
EXP_LIMIT = 708.0  # e^-708 is a normal double; beyond, results are 0


def horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """c[0] + x (c[1] + x (c[2] + …))."""
    value = torch.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def log(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal doubles, within an ulp."""
    bits = x.view(torch.int64)
    exponent = (bits - SQRT_HALF_BITS) >> 52
    f = (bits - (exponent << 52)).view(torch.float64) - 1.0
    k = exponent.double()
    s = f / (f + 2.0)
    z = s * s
    r = z * horner(z, LOG)
    half = f * f * 0.5
    return k * LN2_HIGH - ((half - (s * (half + r) + k * LN2_LOW)) - f)


def exp_negative(x: Tensor) -> Tensor:
    """e^-x for x >= 0, within an ulp; 0 for x > 708, so that no subnormal number arises."""
    y = -x.clamp(max=EXP_LIMIT)
    k = (y * INVERSE_LN2 - 0.5).trunc()
    high, low = y - k * LN2_HIGH, k * LN2_LOW
    r = high - low
    t = r * r
    c = r - t * horner(t, EXP)
    e = 1.0 - ((low - r * c / (2.0 - c)) - high)
    scale = ((k.long() + 1023) << 52).view(torch.float64)
    return torch.where(x > EXP_LIMIT, 0.0, e * scale)


def exp(x: Tensor) -> Tensor:
    """e^x, within two ulp; 0 for x < -708, infinite for x > 708."""
    e = exp_negative(x.abs())
    return torch.where(x > 0.0, 1.0 / e, e)


# ------------------------------------------------------------------ cosine and sine of a turn

EIGHTH = 7.85398163397448278999e-01  # π/4
SIN = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
COS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)


def turn(j: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """cos and sin of 2π·j/n for whole 0 <= j < n, within two ulp; exact where they are 0 or ±1."""
    eighths, rest = torch.div(8 * j, n, rounding_mode="floor"), (8 * j) % n
    odd = (eighths & 1).bool()
    x = torch.where(odd, n - rest, rest).double() * EIGHTH / float(n)  # in [0, π/4]
    z = x * x
    sine = x + x * z * horner(z, SIN)
    half = z * 0.5
    w = 1.0 - half
    cosine = w + ((1.0 - w - half) + z * (z * horner(z, COS)))
    swapped = odd ^ (eighths & 2).bool()
    c, s = torch.where(swapped, sine, cosine), torch.where(swapped, cosine, sine)
    return torch.where((eighths >= 2) & (eighths < 6), -c, c), torch.where(eighths >= 4, -s, s)


# ------------------------------------------------------------------ normal deviates (AS 241)

CENTRE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
TAIL = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
FAR_TAIL = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def _ratio(x: Tensor, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    return horner(x, coefficients[0]) / horner(x, coefficients[1])


def normal(p: Tensor) -> Tensor:
    """The p-quantile of the normal distribution (Wichura, 1988), for p in (0, 1)."""
    q = p - 0.5
    centre = q * _ratio(0.180625 - q * q, CENTRE)
    r = square_root(-log(torch.minimum(p, 1.0 - p)))
    tail = torch.where(r <= 5.0, _ratio(r - 1.6, TAIL), _ratio(r - 5.0, FAR_TAIL))
    return torch.where(q.abs() <= 0.425, centre, torch.where(q < 0, -tail, tail))
