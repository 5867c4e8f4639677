"""The ops that mix by masks against the reference; a part of ``grid.py``."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from mask_cases import ROUGH, pool_calls, random_calls
from torch import Tensor

from fused_mixup import ops, reference
from fused_mixup.codes import FLIP, SELF

# Sums of a few terms, each rounded, and rounded once more at the end.
BACKWARD = {
    torch.float32: 1e-5,
    torch.float64: 4e-6,
    torch.float16: 1e-2,
    torch.bfloat16: 6e-2,
}


def agree(check: Callable, op: str, got: Tensor, expected: Tensor, rough: float, what: str) -> None:
    """Compare to the bit, or within ``rough`` where that is above 0."""
    if rough:
        wide = got.double(), expected.double()
        torch.testing.assert_close(*wide, rtol=rough, atol=rough, equal_nan=True)
        expected = got
    check(op, got, expected, what)


def check_masks(check: Callable, count: int) -> None:
    rng = random.Random(5)
    for call in random_calls(count, 5):
        args = *call.plan, *call.mask
        rough = ROUGH[call.x.dtype] if call.rough else 0.0
        expected = reference.mix_masked(call.x, *args)
        agree(check, "mix_masked", ops.mix_masked(call.x, *args), expected, rough, call.what)
        *pool, out = pool_calls(call, rng)
        into = out.clone()
        reference.mix_masked_out(*pool, into)
        ops.mix_masked_out(*pool, out)
        agree(check, "mix_masked_out", out, into, rough, call.what)
        if call.x.dtype.is_floating_point:
            got = ops.mix_masked_backward(*call.backward(call.x))
            truth = reference.mix_masked_backward(*call.backward(call.x.double()))
            agree(check, "mix_masked_backward", got, truth, BACKWARD[call.x.dtype], call.what)
        height, width = call.x.shape[-2:]
        if height:
            mean = ops.mask_mean(*call.mask, height, width)
            want = reference.mask_mean(*call.mask, height, width)
            agree(check, "mask_mean", mean, want, 4e-6 if call.rough else 0.0, call.what)
        for pairing in (FLIP, SELF):
            x = call.x.clone()
            rows = None, *call.plan[1:3], pairing, *call.mask
            want = reference.mix_masked(x, *rows)
            ops.mix_masked_(x, *rows)
            agree(check, "mix_masked_", x, want, rough, call.what)
