"""Random arguments of ``ops.draw_variants``, on which every backend must agree to the bit."""

from __future__ import annotations

import random

import torch
from draw_cases import draw_case

import fused_mixup as fm
from fused_mixup.codes import (
    MASK_RANK,
    RESIZEMIX,
    SAMPLE,
    VARIANT_NUMBERS,
    VARIANT_RANKS,
    VARIANTS,
)

NAMES = ("partner", "weight", "blend", "box", "code", "threshold", "rows", "columns", "resize_box")
BATCHES = (0, 1, 2, 3, 7, 8, 33)
SIZES = (1, 2, 3, 5, 8, 17, 32, 45)
ALPHAS = (0.01, 0.2, 1.0, 2.5, 100.0)

# The numbers of each variant: a few choices each.
NUMBERS = {
    "mixup": ((),),
    "cutmix": ((), (0.2, 0.8), (0.0, 1.0)),
    "hmix": ((1.0,), (0.5,), (0.0,)),
    "gridmix": (
        (2, 6, 1, 1, 0.5, 1, 0.5, 2),
        (1, 1, 0.3, 3, 1, 1, 1, 1),
        (20, 20, 1, 1, 1, 1, 0.001, 1000),
        (3, 9, 0.001, 0.001, 1e-6, 0.1, 0.2, 5),
    ),
    "smoothmix": ((0.25, 0.5), (0.001, 0.001), (1, 1000)),
    "gmix": ((),),
    "fmix": ((3.0,), (0.0,), (10.0,), (1.5,)),
    "specmix": ((0.3, 2, 2), (0.7, 1, 2), (1.0, 2, 0), (0.0, 0, 0)),
    "cutmix_seg": ((0.5, 0.5, 1), (0.1, 0.9, 3), (1.0, 1.0, 2), (1e-6, 1e-6, 4)),
    "resizemix": ((0.1, 0.8), (0.5, 0.5), (0.0, 1.0)),
}
KINDS = dict(VARIANTS)
assert NUMBERS.keys() == KINDS.keys()


def record(total, alpha, numbers):
    return [total, alpha, *numbers, *[0.0] * (VARIANT_NUMBERS - 2 - len(numbers))]


def variant_cases(count, seed=0, batches=BATCHES, sizes=SIZES):
    """``count`` tuples of arguments, the state first; each variant in turn, alone or with more."""
    rng = random.Random(seed)
    for k in range(count):
        first = list(KINDS)[k % len(KINDS)]
        others = rng.sample(list(KINDS), rng.choice((0, 0, 1, 4)))
        yield variant_case(rng, [first, *others], rng.choice(batches), sizes)


def variant_case(rng, names, batch_size, sizes=SIZES, per=None):
    state, _, labels, partner, _, _, drawn_per, pairing, *rest = draw_case(rng, batch_size)
    settings = [rng.choice((0.7, 1.0, 1.0))]
    for k, name in enumerate(names):
        alpha = rng.choice((0.0, *ALPHAS) if name == "resizemix" else ALPHAS)
        total = (k + 1) / len(names) * rng.choice((1.0, 1.0, 0.9))
        settings += record(total, alpha, rng.choice(NUMBERS[name]))
    kinds = [KINDS[name] for name in names]
    rank = rng.randint(max(VARIANT_RANKS.get(kind, 0) for kind in kinds), MASK_RANK)
    height, width = rng.choice(sizes), rng.choice(sizes)
    settings = torch.tensor(settings, dtype=torch.float64)
    per = drawn_per if per is None else per
    shape = batch_size, height, width, rank
    return state, settings, labels, partner, kinds, *shape, per, pairing, *rest


def one_variant(name, batch_size, size, numbers=None, alpha=1.0, per=SAMPLE, seed=7, rank=None):
    """The arguments that draw one variant for each sample."""
    numbers = NUMBERS[name][0] if numbers is None else numbers
    kind = KINDS[name]
    rank = VARIANT_RANKS.get(kind, 0) if rank is None else rank
    settings = torch.tensor([1.0, *record(1.0, alpha, numbers)], dtype=torch.float64)
    state = fm.plan_state(seed)
    sizes = batch_size, *size, rank
    return state, settings, None, None, [kind], *sizes, per, 2, True, False, None


def assert_same_variants(got, expected):
    """Compare every bit of all results; these cases hold no NaN."""
    for name, a, b in zip(NAMES, got, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, (name, a.shape, b.shape)
        assert torch.equal(a.cpu(), b.cpu()), (name, (a.cpu() != b.cpu()).nonzero()[:4].tolist())


def resizes(kinds):
    return RESIZEMIX in kinds
