"""Random calls of mix_rectangles and mix_patches: the host harness against the reference."""

from __future__ import annotations

from collage_cases import random_results
from comparing import same_bits

from fused_mixup import reference

from . import collage_ops, lib
from .batches import ORDERS


def run(calls: int, seed: int = 0) -> int:
    """Compare random calls, wild ones too; return how many."""
    results = random_results(calls, seed, collage_ops, reference)
    for k, (name, got, want, args) in enumerate(results):
        assert same_bits(got, want), (name, k, args)
        lib.set_order(ORDERS[k % len(ORDERS)])
    return calls
