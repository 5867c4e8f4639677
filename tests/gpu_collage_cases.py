"""The calls of mix_rectangles and mix_patches for the table of ``gpu_cases.py``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import torch
from cases import BLENDABLE
from collage_cases import patch_call, rectangle_call
from collage_inputs import collage_inputs

CALLS = {"mix_rectangles": rectangle_call, "mix_patches": patch_call}


def _inputs(op: str, k: int) -> tuple:
    return tuple(collage_inputs()[op][k].values())


def _random(op: str, seed: int, dtype: torch.dtype, wild: bool) -> tuple:
    return CALLS[op](random.Random(seed), dtype, wild)


def collage_cases() -> Iterator[dict]:
    """The arguments of each Case."""
    for op in CALLS:
        for k in range(2):
            make = partial(_inputs, op, k)
            quick = {"op": op, "name": f"input {k}", "make": make, "quick": True}
            # The bits of a fill are found by PyTorch, on the host.
            filled = collage_inputs()[op][k].get("fill") is not None
            yield quick | ({"triton_launches": (1, 2)} if filled else {})
        for dtype in (*BLENDABLE, torch.int64):
            for seed in range(12):
                make = partial(_random, op, seed, dtype, seed % 4 == 3)
                yield {"op": op, "name": f"{dtype} random {seed}", "make": make}
