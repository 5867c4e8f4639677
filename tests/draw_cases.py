"""Random arguments of ``ops.draw_plan``, on which every backend must agree to the bit."""

from __future__ import annotations

import random

import torch

import fused_mixup as fm
from fused_mixup.codes import (
    CROSS_CLASS,
    DERANGEMENT,
    FLIP,
    PAIR,
    ROLL,
    SAMPLE,
    SHUFFLE,
    STEP_WORD,
    TENSOR,
)

ALPHAS = (0.0, 0.01, 0.2, 0.8, 1.0, 2.5, 100.0)
PAIRINGS = (TENSOR, FLIP, ROLL, SHUFFLE, DERANGEMENT, CROSS_CLASS)
PAIRING_NAMES = ("flip", "roll", "shuffle", "derangement", "cross_class")
# Sizes around warps, blocks and powers of two; most batches are small, as there are many cases.
BATCHES = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65)
LARGE = (127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 2049)
LARGEST = (4096, 32769, 65535, 65536)
SIZES = (0, 1, 2, 3, 5, 8, 17, 32, 224, 1000, 2**31 - 1)


def draw(batch_size, spatial=(), *, state=None, device="cpu", **options):
    state = fm.plan_state(7, device=device) if state is None else state
    return fm.draw_plan(batch_size, spatial, state=state, **options)


def draw_cases(count, seed=0, large=0.05):
    """``count`` tuples of arguments, the state first; ``large`` is the share of large batches."""
    rng = random.Random(seed)
    for _ in range(count):
        yield draw_case(rng, rng.choice(LARGE if rng.random() < large else BATCHES))


def largest_cases(seed=0):
    """One case for each pairing and each of the largest batches."""
    rng = random.Random(seed)
    for batch_size in LARGEST:
        for pairing in PAIRINGS:
            yield draw_case(rng, batch_size, pairing, SAMPLE)


def draw_case(rng, batch_size, pairing=None, per=None):
    pairing = rng.choice(PAIRINGS) if pairing is None else pairing
    state = fm.plan_state(rng.getrandbits(64), rng.randrange(1 << 20), rng.choice((None, 0, 4094)))
    state[STEP_WORD] = rng.choice((0, 1, 2**32 - 1, 2**32, rng.getrandbits(48)))
    mixup_alpha, cutmix_alpha = rng.choice(ALPHAS), rng.choice(ALPHAS)
    bounds = rng.choice((None, None, (0.2, 0.8), (0.0, 1.0), (0.5, 0.51)))
    settings = fm.plan_settings(
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
        switch_prob=rng.choice((0.0, 0.3, 0.5, 1.0)),
        prob=rng.choice((0.7, 1.0)) if mixup_alpha or cutmix_alpha else 0.0,
        cutmix_minmax=bounds if cutmix_alpha else None,
    )
    labels = _labels(rng, batch_size) if pairing == CROSS_CLASS else None
    partner = samples = None
    if pairing == TENSOR:
        generator = torch.Generator().manual_seed(rng.getrandbits(32))
        size = (batch_size,)
        count = rng.choice((batch_size, 2 * batch_size, 2**31))  # of a larger batch but the first
        partner = torch.randint(0, max(count, 1), size, generator=generator).int()
        if count > batch_size:
            samples = torch.randint(0, count, size, generator=generator).int()
            samples[::3] = partner[::3]
    spatial = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
    per = rng.randrange(SAMPLE + 1) if per is None else per
    if per == PAIR and pairing == ROLL:
        pairing = FLIP
    correct_lam, symmetric = rng.random() < 0.5, rng.random() < 0.5
    options = batch_size, spatial, per, pairing, correct_lam, symmetric
    return state, settings, labels, partner, *options, samples


def _labels(rng, batch_size):
    """Labels of few or many classes, or any 64 bits; one class may hold more than half of them."""
    names = [rng.getrandbits(64) - 2**63 for _ in range(rng.choice((1, 2, 3, 10, 1000)))]
    names[: len(names) // 2] = range(-1, len(names) // 2 - 1)
    crowd = rng.choice((0.0, 0.0, 0.5, 0.9))
    chosen = (names[0] if rng.random() < crowd else rng.choice(names) for _ in range(batch_size))
    return torch.tensor(list(chosen), dtype=torch.int64)


def assert_same_plan(got, expected):
    """Compare every bit of partner, weight, blend and box; these cases hold no NaN."""
    for name, a, b in zip(("partner", "weight", "blend", "box"), got, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, (name, a.shape, b.shape)
        assert torch.equal(a.cpu(), b.cpu()), (name, (a.cpu() != b.cpu()).nonzero()[:4].tolist())
