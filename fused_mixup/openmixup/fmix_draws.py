"""FMix: its draws, and its mask from three numbers per row instead of a Fourier transform.

The published code makes an image from a random spectrum [1, h, K, 2], and takes its first axis of
frequencies for the axis of real and imaginary parts. So two rows and two columns of the spectrum
reach the image alone. With s the decay of a frequency and n the normals, for c = 0, 1

    Z[k, c] = s_0[k] n[0, k, c] + i s_1[k] n[1, k, c]        S_c(y) = Σ_k Z[k, c] e^(2πi k y / h)

and up to a positive factor and a shift, which the order of values does not see,

    value(y, x) = Re S_0(y) + 2 Re(S_1(y) e^(2πi x / w)):

three numbers per row, times 1, cos and sin of the column.
"""

# ruff: noqa: NPY002  (the legacy generator is the one that FMix draws from)

from __future__ import annotations

import math
import random
from functools import lru_cache

import numpy as np


def draw_fmix_lam(alpha: float, reformulate: bool) -> np.float64:
    return np.float64(np.random.beta(alpha + 1 if reformulate else alpha, alpha))


@lru_cache(maxsize=4)  # a size or two are in use; making it takes longer than the mix
def _waves(h: int, terms: int) -> np.ndarray:
    """complex128 [h, terms]: e^(2πi k y / h)."""
    turns = np.arange(h)[:, None] * np.arange(terms) % h
    return np.exp(2j * np.pi / h * np.arange(h))[turns]


def draw_fmix_rows(decay: float, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 [3, h] and [3, w]: the image is the sum of the products of their rows."""
    kept = w // 2 + 1 if w % 2 == 0 else min(w, w // 2 + 2)
    normals = np.random.randn(1, h, kept, 2)[0]
    terms = min(kept, h)
    along_w, along_h = np.fft.fftfreq(w)[:terms], np.fft.fftfreq(h)[:2]
    frequency = np.sqrt(along_w**2 + along_h[:, None] ** 2)  # [2, terms]
    scale = np.ones(1) / np.maximum(frequency, 1.0 / max(h, w)) ** decay
    spectrum = scale[0, :, None] * normals[0, :terms] + 1j * scale[1, :, None] * normals[1, :terms]
    sums = _waves(h, terms) @ spectrum  # [h, 2]
    angle = 2 * np.pi / w * np.arange(w)
    rows = np.stack((sums[:, 0].real, 2 * sums[:, 1].real, -2 * sums[:, 1].imag))
    return rows, np.stack((np.ones(w), np.cos(angle), np.sin(angle)))


def draw_count(lam: float, size: int) -> int:
    """How many pixels the sample keeps: λ·size, rounded up or down by a coin."""
    return math.ceil(lam * size) if random.random() > 0.5 else math.floor(lam * size)


def sum_of_products(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[h, w], every product and sum rounded by itself, in the order of the kernels."""
    image = rows[0][:, None] * columns[0]
    for row, column in zip(rows[1:], columns[1:], strict=True):
        image = image + row[:, None] * column
    return image


def largest(image: np.ndarray, count: int) -> np.ndarray:
    """bool [h, w]: the ``count`` largest values of ``image``."""
    flat = image.reshape(-1)
    mask = np.zeros(flat.size, bool)
    if count > 0:
        mask[np.argpartition(flat, flat.size - count)[flat.size - count :]] = True
    return mask.reshape(image.shape)


def threshold_below(image: np.ndarray, count: int) -> float | None:
    """t such that ``count`` values are larger; None where equal values stand in the way."""
    if count == 0:
        return float(image.max())
    if count >= image.size:
        return -math.inf
    flat = np.partition(image.reshape(-1), image.size - count - 1)
    t = flat[image.size - count - 1]
    return float(t) if int((flat > t).sum()) == count else None


def soft_ranks(image: np.ndarray, lam: float, count: int, max_soft: float) -> np.ndarray:
    """float64 [h, w]: 1, then a linear fall to 0 over the ranks around ``count``, then 0."""
    soft = min(lam, 1 - lam) if max_soft > min(lam, 1 - lam) else max_soft
    half = int(image.size * soft)
    order = image.reshape(-1).argsort()[::-1]
    low, high = max(count - half, 0), min(count + half, image.size)
    mask = np.zeros(image.size)
    mask[order[:low]] = 1
    mask[order[low:high]] = np.linspace(1, 0, high - low)
    return mask.reshape(image.shape)


def draw_fmix_columns(decay: float, w: int) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`draw_fmix_rows`, of one row: float64 [3, 1] and [3, w]."""
    normals = np.random.randn(1, w, 2)[0]
    scale = np.ones(1) / np.maximum(np.abs(np.fft.fftfreq(w)[:2]), 1.0 / w) ** decay
    real, imaginary = scale[:, None] * normals[:2]
    angle = 2 * np.pi / w * np.arange(w)
    rows = np.array((real[0], 2 * real[1], -2 * imaginary[1]))[:, None]
    return rows, np.stack((np.ones(w), np.cos(angle), np.sin(angle)))
