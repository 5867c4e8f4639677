"""The calls of the ops that mix by masks, for the table of ``gpu_cases.py``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import torch
from mask_cases import DTYPES, Call, masks, pool_calls, random_call

from fused_mixup.codes import FLIP, SELF

OPS = ("mix_masked", "mix_masked_out", "mix_masked_", "mix_masked_backward", "mask_mean")
RANDOM = 24  # calls of each op, beside the quick ones


def quick_call(rng: random.Random, on_host: bool) -> Call:
    """A small call whose results no planted error leaves alone."""
    x, size = torch.rand(4, 3, 5, 16), 4
    lam = torch.rand(1 if on_host else size, dtype=torch.float64)
    blend = torch.stack((lam, 1 - lam), 1).expand(size, 2)
    box = torch.empty(size, 0, dtype=torch.int32)
    return Call(x, (None, blend, box, FLIP), masks(rng, size, 5, 16, False), False, "quick")


def mask_args(op: str, seed: int) -> tuple:
    rng = random.Random(seed)
    if seed < 2:
        call = quick_call(rng, seed == 0)
    else:
        dtypes = DTYPES[:4] if op == "mix_masked_backward" else DTYPES
        call = random_call(rng, dtypes)
        while call.rough or (op == "mix_masked_" and call.plan[3] not in (FLIP, SELF)):
            call = random_call(rng, dtypes)
    if op == "mask_mean":
        return *call.mask, *call.x.shape[-2:]
    if op == "mix_masked_backward":
        return call.backward(call.x)
    return pool_calls(call, rng) if op == "mix_masked_out" else (call.x, *call.plan, *call.mask)


def mask_cases() -> Iterator[dict]:
    """The arguments of each Case."""
    for op in OPS:
        for seed in range(RANDOM):
            make = partial(mask_args, op, seed)
            yield {"op": op, "name": f"call {seed}", "make": make, "quick": seed < 2}
