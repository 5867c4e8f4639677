"""Normal noise of pixels, the same to the bit on every backend; docs/drawing.md specifies it.

Arithmetic is float32, each operation rounded on its own, in the order written here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..codes import NOISE_TAG
from .random import MASK, horner, key_schedule, philox

# log(1 + z) = z - z²/2 + z³·P(z) for 1 + z in [sqrt(1/2), sqrt(2)) (after Cephes' logf)
LOG = (
    3.3333331174e-1,
    -2.4999993993e-1,
    2.0000714765e-1,
    -1.6668057665e-1,
    1.4249322787e-1,
    -1.2420140846e-1,
    1.1676998740e-1,
    -1.1514610310e-1,
    7.0376836292e-2,
)
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
SQRT_HALF_BITS = 0x3F3504F3
# erfinv(x) / x as polynomials of w - 2.5 below w = 5, and of sqrt(w) - 3 beyond (Giles, 2010)
CENTRE = (
    1.50140941,
    0.246640727,
    -0.00417768164,
    -0.00125372503,
    0.00021858087,
    -4.39150654e-06,
    -3.5233877e-06,
    3.43273939e-07,
    2.81022636e-08,
)
TAIL = (
    2.83297682,
    1.00167406,
    0.00943887047,
    -0.0076224613,
    0.00573950773,
    -0.00367342844,
    0.00134934322,
    0.000100950558,
    -0.000200214257,
)
SQRT_2 = 1.41421356


def log(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal floats, within two ulp."""
    bits = x.view(torch.int32)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    z = (bits - (exponent << 23)).view(torch.float32) - 1.0
    k = exponent.float()
    squared = z * z
    tail = (z * squared) * horner(z, LOG) + k * LN2_LOW
    return (z + (tail - squared * 0.5)) + k * LN2_HIGH


def normal(word: Tensor) -> Tensor:
    """A normal deviate, float32, of the upper 23 bits of a word; |deviate| < 5.3."""
    odd = ((word >> 9) << 1) + (1 - (1 << 23))  # of 24 bits: x below is exact
    x = odd.float() * 2.0**-23
    w = -log((1.0 - x) * (1.0 + x))
    # The root is taken in double and rounded, which gives the nearest float.
    root = w.clamp(min=5.0).double().sqrt().float()
    p = torch.where(w < 5.0, horner(w - 2.5, CENTRE), horner(root - 3.0, TAIL))
    return (p * x) * SQRT_2


def noise(keys: Tensor, channels: int, height: int, width: int) -> Tensor:
    """float32 [B, C, H, W] of keys [B]: each value depends on key, pixel and channel alone."""
    k0, k1 = ((keys >> shift & MASK).view(-1, 1, 1, 1) for shift in (0, 32))
    pixel = torch.arange(height * width, device=keys.device).view(1, 1, height, width)
    block = torch.arange((channels + 3) // 4, device=keys.device).view(1, -1, 1, 1)
    tag = torch.full_like(pixel, NOISE_TAG)
    words = philox(pixel & MASK, pixel >> 32, block, tag, key_schedule(k0, k1))
    # Channel c takes word c mod 4 of block c div 4.
    values = torch.stack(torch.broadcast_tensors(*words), 2).flatten(1, 2)
    return normal(values[:, :channels])
