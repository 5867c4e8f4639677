"""Random calls of the ops of masks: the host harness against the reference, bit for bit."""

from __future__ import annotations

import itertools
import random

import torch
from comparing import same_bits

from fused_mixup import reference
from fused_mixup.codes import (
    BILINEAR,
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
    MASK_SIGMOID,
    MASK_STORED,
    MASK_THRESHOLD,
    NEAREST,
)
from fused_mixup.reference.pairing import transpose_pairing
from fused_mixup.schemas import MaskArguments

from . import lib, mask_ops
from .batches import (
    BLENDS,
    BOXES,
    FLIP,
    LAYOUTS,
    ORDERS,
    PAIRINGS,
    copy_of,
    make_batch,
    make_blend,
    make_box,
    make_partner,
)
from .ops import DTYPES

# Samples whose lines are whole vectors, in one plane or several; others; a line, a column, a pixel.
SIZES = ([3, 5, 16], [3, 5, 7], [2, 3, 4, 16], [13, 2, 48], [9, 16], [4, 8, 1], [1, 1, 1])
SIZES += ([8, 4, 6], [16, 1, 5], [5, 32], [3, 33, 32])
BATCHES = (2, 3, 1, 5)
FORMS = (0, MASK_SEPARABLE, MASK_STORED)
FUNCTIONS = (0, MASK_THRESHOLD, MASK_PARITY)
MAPS = (torch.float32, torch.bool, torch.float16, torch.uint8, torch.bfloat16)
MAP_SIZES = ((1, 1), (2, 3), (7, 7), (5, 16), (40, 9))
KINDS = ("separable", "stored", "both", "both", "one row", "none")


def make_mask(rng, batch, height, width, generator) -> MaskArguments:
    """Masks of all forms and functions among those of no mask; the numbers fit every function."""
    kind = rng.choice(KINDS)
    if kind == "none":
        return MaskArguments(None, None, None, None, None, NEAREST)
    forms = {"separable": FORMS[:2], "stored": (0, MASK_STORED)}.get(kind, FORMS)
    codes = [
        (form + rng.choice(FUNCTIONS) + rng.choice((0, MASK_INVERT))) if form else 0
        for form in (rng.choice(forms) for _ in range(batch))
    ]
    code = torch.tensor(codes, dtype=torch.int32)
    threshold = torch.rand(batch, generator=generator)
    rank = rng.randint(1, 4)
    rows = columns = stored = None
    whole = any(c & 12 == MASK_PARITY for c in codes) or rng.random() < 0.3
    if kind != "stored":
        rows, columns = (torch.rand(batch, rank, n, generator=generator) for n in (height, width))
        if whole:
            rows, columns = rows.round(), columns.round()
        elif rank > 1:
            rows = rows / rank
    if kind != "separable":
        stored = torch.rand(batch, *rng.choice(MAP_SIZES), generator=generator)
        dtype = rng.choice(MAPS)
        stored = (stored.round() if whole or not dtype.is_floating_point else stored).to(dtype)
    if kind == "one row" and batch > 1:
        one = [None if t is None else t[:1].expand(batch, *t.shape[1:])
               for t in (code, threshold, rows, columns, stored)]  # fmt: skip
        code, threshold, rows, columns, stored = one
    # Between the lines of a map parity has no meaning.
    parity = any(c & 15 == MASK_STORED + MASK_PARITY for c in codes)
    interpolation = NEAREST if parity else rng.choice((NEAREST, BILINEAR))
    return MaskArguments(code, threshold, rows, columns, stored, interpolation)


def calls(count, seed):
    """(order, dtype, pairing, size, layout, x, storage, plan, mask, what remains is drawn)"""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    kernels = list(itertools.product(DTYPES, PAIRINGS, SIZES))
    for k in range(count):
        dtype, pairing, size = kernels[(k * 61 + seed) % len(kernels)]
        batch = rng.choice(BATCHES) if k % 50 else 0
        layout = rng.choice((*LAYOUTS, "contiguous", "channels_last", "turned"))
        turned = layout == "turned"
        shape = [*size[:-2], size[-1], size[-2]] if turned else size
        x, base = make_batch(batch, shape, dtype, "contiguous" if turned else layout, generator)
        x = x.transpose(-1, -2) if turned else x
        if dtype.is_floating_point and x.numel() and rng.random() < 0.2:
            x[0, ..., 0, 0], x[-1, ..., -1, -1] = torch.inf, -0.0
        partner = make_partner(pairing, batch, generator) if batch else None
        if batch == 0 and pairing in ("permutation", "shared"):
            partner = torch.empty(0, dtype=torch.int32)
        blend = make_blend(rng.choice(BLENDS), batch, generator)
        box_size = [1, *size[rng.randrange(max(len(size) - 3, 0), len(size)) :]]
        box = make_box(rng.choice(("none", *BOXES)), batch, box_size, generator)
        plan = (partner, blend, box, PAIRINGS[pairing])
        mask = make_mask(rng, batch, *size[-2:], generator)
        yield ORDERS[k % len(ORDERS)], (dtype, pairing, size, layout), x, base, plan, mask, rng


def check(order, what, x, base, plan, mask, rng) -> None:
    lib.set_order(order)
    partner, blend, box, pairing = plan
    what = (what, plan, mask)
    expected = reference.mix_masked(x, *plan, *mask)
    assert same_bits(mask_ops.mix_masked(x, *plan, *mask), expected), ("mix_masked", what)
    if pairing in (FLIP, PAIRINGS["self"]):  # it writes the batch and nothing outside it
        got, got_base = copy_of(x, base)
        want, want_base = copy_of(x, base)
        want.copy_(expected)
        mask_ops.mix_masked_(got, *plan, *mask)
        assert same_bits(got_base, want_base), ("mix_masked_", what)
    if x.is_floating_point():
        pointers = transpose_pairing(partner) if partner is not None else (None, None)
        args = (partner, *pointers, blend, box, pairing, *mask)
        want = reference.mix_masked_backward(x, *args)
        assert same_bits(mask_ops.mix_masked_backward(x, *args), want), ("backward", what)
    check_out(what, x, plan, mask, rng)


def check_out(what, x, plan, mask, rng) -> None:
    """Partners from a pool in a layout of its own, the clean batch beside the mixed one."""
    batch, shape = len(x), list(x.shape[1:])
    generator = torch.Generator().manual_seed(rng.randrange(2**30))
    pool = None
    if rng.random() < 0.7:
        pool, _ = make_batch(batch + 2, shape, x.dtype, rng.choice(LAYOUTS), generator)
        if plan[0] is not None:
            partner = torch.randint(-1, batch + 4, (batch,), generator=generator).int()
            plan = (partner, *plan[1:])
    clean = rng.random() < 0.6
    made = batch * 2 if clean else batch
    layout = rng.choice(("contiguous", *LAYOUTS))
    out, base = make_batch(made, shape, x.dtype, layout, generator)
    want, want_base = copy_of(out, base)
    inside = plan
    if pool is not None and plan[0] is not None:  # kernels clamp; the reference indexes
        inside = (plan[0].clamp(0, batch + 1), *plan[1:])
    reference.mix_masked_out(x, pool, *inside, *mask, clean, want)
    mask_ops.mix_masked_out(x, pool, *plan, *mask, clean, out)
    assert same_bits(base, want_base), ("mix_masked_out", what, plan[0], clean, layout)
    if pool is None or clean:
        return
    # With partners of a pool it may write where it reads.
    here, here_base = make_batch(batch, shape, x.dtype, layout, generator)
    here.copy_(x)
    then, then_base = copy_of(here, here_base)
    then.copy_(want)
    mask_ops.mix_masked_out(here, pool, *plan, *mask, False, here)
    assert same_bits(here_base, then_base), ("mix_masked_out in place", what, plan[0], layout)


def check_mean(seed) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    lib.set_order(ORDERS[seed % len(ORDERS)])
    height, width = rng.choice(((5, 7), (33, 40), (1, 1), (70, 3), (2, 129)))
    mask = make_mask(rng, rng.choice(BATCHES), height, width, generator)
    if mask.code is not None:
        args = (*mask, height, width)
        assert same_bits(mask_ops.mask_mean(*args), reference.mask_mean(*args)), mask


def sigmoid_of_map(stored, order):
    """What the kernels make of a map [h, w] by a sigmoid, at each of its pixels."""
    lib.set_order(order)
    x = torch.zeros(2, *stored.shape)
    x[0] = 1  # m · 1 + (1 - m) · 0
    code = torch.full((2,), MASK_STORED + MASK_SIGMOID, dtype=torch.int32)
    plan = (None, torch.ones(1, 2, dtype=torch.float64).expand(2, 2), torch.empty(2, 0).int(), FLIP)
    mask = (code, torch.zeros(2), None, None, stored.expand(2, *stored.shape), NEAREST)
    return mask_ops.mix_masked(x, *plan, *mask)[0]


def run(count, seed=5) -> int:
    for call in calls(count, seed):
        check(*call)
    for k in range(count // 4):
        check_mean(k + seed)
    return count


def run_mean_barrier() -> None:
    """A mean whose lines are divided among warps."""
    ramp = torch.linspace(0, 1, 40).expand(2, 1, 40)
    code = torch.tensor([MASK_SEPARABLE, 0], dtype=torch.int32)
    args = (code, torch.zeros(2), ramp, ramp, None, NEAREST, 40, 40)
    assert same_bits(mask_ops.mask_mean(*args), reference.mask_mean(*args))


if __name__ == "__main__":  # under the sanitizers, which need a process of their own
    torch.set_num_threads(1)
    print(run(400), "cases")
