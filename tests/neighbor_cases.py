"""Random arguments of ``ops.draw_neighbors``, on which every backend must agree to the bit."""

from __future__ import annotations

import random

import torch

import fused_mixup as fm
from fused_mixup.codes import GAUSSIAN, STEP_WORD, TOPHAT

# Sizes around vectors, warps and the 1024 labels that the CPU sums together.
BATCHES = (0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 100)
POOLS = (None, None, 1, 5, 64, 65, 130)


def neighbor_cases(count, seed=0, batches=BATCHES, pools=POOLS):
    """``count`` tuples of arguments, the state first; both kernels in turn."""
    rng = random.Random(seed)
    for k in range(count):
        yield neighbor_case(rng, rng.choice(batches), rng.choice(pools), (GAUSSIAN, TOPHAT)[k % 2])


def neighbor_case(rng, batch, pool, kernel):
    state = fm.plan_state(rng.getrandbits(64), rng.randrange(1 << 20), rng.choice((None, 0, 4094)))
    state[STEP_WORD] = rng.choice((0, 1, 2**32 - 1, 2**32, rng.getrandbits(48)))
    dims = rng.choice((1, 1, 2, 5))
    dtype = rng.choice((torch.float32, torch.float64))
    generator = torch.Generator().manual_seed(rng.getrandbits(60))

    def labels(n):
        made = torch.randn(n, 2 * dims, dtype=dtype, generator=generator)
        form = rng.randrange(4)
        if form == 0:
            made = made.round()  # many equal labels
        if form == 1:
            made = made * 1e200 if dtype == torch.float64 else made * 1e30  # squares overflow
        if form == 2:
            made = made[:, : dims * 2 : 2]  # strided
        return made[:, :dims]

    h = rng.choice((1e-100, 1e-3, 0.05, 0.5, 1.0, 3.0, 50.0, 1e30, 1e100))
    settings = torch.tensor([h], dtype=torch.float64)
    return state, settings, labels(batch), None if pool is None else labels(pool), kernel
