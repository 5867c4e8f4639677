"""The Triton kernels of mix_rectangles and mix_patches against the reference, to the bit.

A call takes up to a second in the interpreter. There bfloat16 is cut off and not rounded.
"""

from __future__ import annotations

import pytest
import torch
from collage_cases import random_results
from comparing import same_bits
from triton_place import DEVICE, INTERPRETED, quiet

import fused_mixup.triton_kernels as tk
from fused_mixup import reference

pytestmark = [pytest.mark.gpu, quiet, pytest.mark.usefixtures("one_thread")]


class There:
    """The kernels on tensors of the CPU, wherever they run."""

    def __getattr__(self, name):
        def call(*args):
            moved = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in args]
            getattr(tk, name)(*moved)
            args[-1].copy_(moved[-1])

        return call


def check(calls, seed):
    for name, got, want, args in random_results(calls, seed, There(), reference):
        if not (INTERPRETED and got.dtype == torch.bfloat16):
            assert same_bits(got, want), (name, args)


def test_some_calls():
    check(8, 2)


@pytest.mark.proof
def test_random_calls():
    check(60, 3)
