"""The noise of pixels that mix_normalize fills erased boxes with: docs/drawing.md, bit for bit.

Every backend is held to the reference's bits where it fills boxes; here the reference is held to
float64, to the normal distribution, and to numbers that never change.
"""

from __future__ import annotations

import math

import pytest
import torch

from fused_mixup.codes import NOISE_TAG
from fused_mixup.reference import noise
from fused_mixup.reference.random import key_schedule, philox

pytestmark = pytest.mark.usefixtures("one_thread")

DEVIATES = 1 << 23  # as many different ones: the low nine bits of a word do not count


@pytest.fixture(scope="module", params=[64, pytest.param(1, marks=pytest.mark.proof)])
def words(request):
    """Words of all deviates, or of two of 64, in order and symmetric about the middle."""
    number = torch.arange(DEVIATES)
    if request.param > 1:
        number = number.view(-1, 64)[:, 31:33].flatten()
    return number << 9


def test_each_deviate_is_the_quantile_of_its_word(words):
    every = noise.normal(words)
    x = (2.0 * (words >> 9).double() + 1 - DEVIATES) / DEVIATES
    truth = torch.special.erfinv(x) * math.sqrt(2)
    assert ((every.double() - truth) / truth).abs().max() < 3e-7  # 2.5 ulp
    assert torch.equal(every, -every.flip(0)) and every[-1] < 5.3
    assert (every[1:] > every[:-1]).all()
    assert torch.equal(noise.normal(words[:9] + 511), every[:9])
    exact = len(every) == DEVIATES
    assert every.double().square().mean() == pytest.approx(1.0, abs=1e-6 if exact else 1e-4)
    assert every.double().pow(4).mean() == pytest.approx(3.0, abs=1e-4 if exact else 1e-2)


def test_the_logarithm_is_within_two_ulp():
    near = torch.linspace(0.5, 2.0, 20_001)
    x = torch.cat((torch.logspace(-37, 38, 20_001, dtype=torch.float64).float(), near))
    truth = x.double().log()
    x, truth = x[truth != 0], truth[truth != 0]
    ulp = 2.0 ** (truth.abs().log2().floor() - 23)
    assert ((noise.log(x).double() - truth).abs() <= 2 * ulp).all()
    assert noise.log(torch.ones(1)) == 0


def test_the_counter_is_laid_out_as_documented():
    keys = torch.tensor([5, -2, 2**62 + 3])
    values = noise.noise(keys, 6, 3, 7)
    assert values.shape == (3, 6, 3, 7) and values.dtype == torch.float32
    for i, c, y, x in ((0, 0, 0, 0), (1, 5, 2, 6), (2, 3, 1, 4)):
        counter = (torch.tensor(n) for n in (7 * y + x, 0, c // 4, NOISE_TAG))
        key = int(keys[i]) % 2**64
        words = philox(*counter, key_schedule(torch.tensor(key % 2**32), torch.tensor(key >> 32)))
        assert values[i, c, y, x] == noise.normal(words[c % 4])
    # It depends on neither the batch nor the number of channels.
    assert torch.equal(noise.noise(keys[1:2], 2, 3, 7)[0], values[1, :2])


def test_the_numbers_never_change():
    keys = torch.tensor([0, 1, -1])
    values = noise.noise(keys, 3, 1, 2).flatten(1).tolist()
    assert [[v.hex() for v in row[:4]] for row in values] == GOLDEN


def test_pixels_channels_and_keys_are_independent():
    values = noise.noise(torch.arange(8), 5, 96, 96).double()
    count = values.numel()
    assert values.mean().abs() < 4 / math.sqrt(count)
    assert (values.square().mean() - 1).abs() < 4 * math.sqrt(2 / count)
    shares = torch.special.ndtr(values.flatten()).mul(64).long().bincount(minlength=64)
    chi_square = ((shares - count / 64) ** 2 / (count / 64)).sum()
    assert abs(chi_square - 63) < 4 * math.sqrt(2 * 63)

    def correlate(a, b):
        return (a * b).mean().abs() < 4 / math.sqrt(a.numel())

    assert correlate(values[..., 1:], values[..., :-1])
    assert correlate(values[..., 1:, :], values[..., :-1, :])
    assert all(correlate(values[:, c], values[:, c - 1]) for c in range(1, 5))
    assert correlate(values[1:], values[:-1])
    squares = (values.square() - 1) / math.sqrt(2)
    assert correlate(squares[..., 1:], squares[..., :-1]) and correlate(squares[1:], squares[:-1])


GOLDEN = [
    [
        "0x1.d4af940000000p-3",
        "-0x1.711a2c0000000p-1",
        "-0x1.bf1a560000000p-2",
        "0x1.2a52080000000p+0",
    ],
    [
        "0x1.1ed0a00000000p-3",
        "0x1.5d37e60000000p-2",
        "-0x1.e68a080000000p-1",
        "0x1.3dc03a0000000p+1",
    ],
    [
        "0x1.0c3af60000000p-1",
        "-0x1.7ac95a0000000p+0",
        "0x1.2c6f2c0000000p-1",
        "0x1.9129860000000p+0",
    ],
]
