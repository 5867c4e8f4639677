"""Random arguments of ``ops.draw_erasing``, on which every backend must agree to the bit."""

from __future__ import annotations

import random

import torch

import fused_mixup as fm
from fused_mixup.codes import CONST, PIXEL, RAND, STEP_WORD

# Sizes around warps, blocks and images too small for a box.
BATCHES = (0, 1, 2, 3, 7, 31, 32, 33, 100)
SIZES = (0, 1, 2, 3, 8, 33, 224, 2**31 - 1)
COUNTS = (1, 1, 2, 3, 64)
CHANNELS = (1, 2, 3, 64)
MODES = (CONST, RAND, PIXEL)


def erasing_cases(count, seed=0, batches=BATCHES, counts=COUNTS, channels=CHANNELS):
    """``count`` tuples of arguments, the state first; each mode in turn."""
    rng = random.Random(seed)
    for k in range(count):
        max_count = rng.choice(counts)
        yield erasing_case(rng, rng.choice(batches), MODES[k % 3], max_count, channels)


def erasing_case(rng, batch_size, mode, max_count, channels=CHANNELS):
    state = fm.plan_state(rng.getrandbits(64), rng.randrange(1 << 20), rng.choice((None, 0, 4094)))
    state[STEP_WORD] = rng.choice((0, 1, 2**32 - 1, 2**32, rng.getrandbits(48)))
    settings = fm.erasing_settings(
        prob=rng.choice((0.0, 0.25, 0.9, 1.0)),
        area=rng.choice(((0.02, 1 / 3), (0.0, 1.0), (0.5, 0.5), (0.9, 1.0), (0.0, 1e-300))),
        aspect=rng.choice(((0.3, 1 / 0.3), (1.0, 1.0), (1e-6, 1e6), (0.1, 0.3), (3.0, 7.0))),
    )
    channels = rng.choice(channels)
    fill = [rng.gauss(0.0, 1.0) for _ in range(rng.choice((1, channels)))] if mode == CONST else []
    sizes = [rng.choice(SIZES if rng.random() < 0.4 else (20, 224)) for _ in range(2)]
    clean = rng.choice((0, 0, batch_size // 3, batch_size))
    return state, settings, fill, batch_size, *sizes, max_count, channels, mode, clean


def assert_same_erasing(got, expected):
    """Compare every bit of boxes, values and keys; these cases hold no NaN."""
    for name, a, b in zip(("box", "value", "noise"), got, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, (name, a.shape, b.shape)
        assert torch.equal(a.cpu(), b.cpu()), (name, (a.cpu() != b.cpu()).nonzero()[:4].tolist())
