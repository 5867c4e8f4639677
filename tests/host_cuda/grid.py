"""Batches, rows and boxes for the tests of the host harness, and the check of one case.

``python -m host_cuda.grid`` runs a thinned grid over every kernel with the harness variant that
FUSED_MIXUP_HOST_VARIANT names: under the sanitizers it needs a process of its own.
FUSED_MIXUP_GRID=full runs all of it.
"""

from __future__ import annotations

import itertools
import os
import random

import torch
from box_cases import random_call, wild_call
from comparing import same_bits

from fused_mixup import reference
from fused_mixup.reference.pairing import transpose_pairing

from . import (
    cluster_grid,
    collage_grid,
    lib,
    loss_grid,
    mask_grid,
    neighbor_ops,
    normalize_grid,
    plan_grid,
    variant_ops,
)
from . import ops as host
from .batches import (
    BATCHES,
    BLENDS,
    BOXES,
    FLIP,
    LAYOUTS,
    ORDERS,
    PAIRINGS,
    PASTED,
    ROLL,
    SELF,
    SHAPES,
    TENSOR,
    copy_of,
    make_batch,
    make_blend,
    make_box,
    make_partner,
)


def cases(seed, step=1, rounds=2):
    """(order, batch, shape, layout, blend, box): every geometry ``rounds`` times, with blends and
    boxes in turn."""
    rotation = itertools.cycle(itertools.product(BLENDS, BOXES))
    orders = itertools.cycle(ORDERS)
    for _ in range(seed):
        next(rotation)
    geometries = itertools.product(BATCHES, SHAPES, LAYOUTS, range(rounds))
    for k, (batch, shape, layout, _) in enumerate(geometries):
        case = next(orders), batch, shape, layout, *next(rotation)
        if (k + seed) % step == 0:
            yield case


def check_mix(dtype, pairing, case, generator):
    order, batch, shape, layout, blend_kind, box_kind = case
    rule = PAIRINGS[pairing]
    lib.set_order(order)
    partner = make_partner(pairing, batch, generator)
    blend = make_blend(blend_kind, batch, generator)
    box = make_box(box_kind, batch, shape, generator)
    x, base = make_batch(batch, shape, dtype, layout, generator)
    args = (partner, blend, box, rule)
    expected = reference.mix(x, *args)
    assert same_bits(host.mix(x, *args), expected), ("mix", case)
    # mix_ writes the batch and nothing outside it.
    y, y_base = copy_of(x, base)
    want, want_base = copy_of(x, base)
    want.copy_(expected)
    host.mix_(y, *args)
    assert same_bits(y_base, want_base), ("mix_", case)
    if rule in (FLIP, SELF):  # 32 bytes at once where they are aligned
        y, y_base = copy_of(x, base)
        host.mix_(y, *args, wide=True)
        assert same_bits(y_base, want_base), ("mix_, 32 bytes", case)
        assert same_bits(host.mix(x, *args, wide=True), expected), ("mix, 32 bytes", case)
    if rule in (TENSOR, ROLL):  # a batch too large for shared memory takes this path
        y, y_base = copy_of(x, base)
        host.mix_(y, *args, shared_limit=0)
        assert same_bits(y_base, want_base), ("mix_ by walking", case)
        y, y_base = copy_of(x, base)
        host.mix_(y, *args, ring_blocks=2)
        assert same_bits(y_base, want_base), ("mix_ by a ring of tiles", case)
    if dtype.is_floating_point:
        pointers = transpose_pairing(partner) if partner is not None else (None, None)
        backward = (partner, *pointers, blend, box, rule)
        expected = reference.mix_backward(x, *backward)
        for wide in {False, rule in (FLIP, SELF)}:
            got = host.mix_backward(x, *backward, wide=wide)
            assert same_bits(got, expected), ("mix_backward", wide, case)


def check_paste(dtype, pairing, case, generator):
    order, batch, shape, layout, _, box_kind = case
    rule = PAIRINGS[pairing]
    lib.set_order(order)
    partner = make_partner(pairing, batch, generator)
    box = make_box(box_kind, batch, shape, generator)
    x, base = make_batch(batch, shape, dtype, layout, generator)
    want, want_base = copy_of(x, base)
    reference.paste_(want, partner, box, rule)
    for limit, blocks in ((host.SHARED_LIMIT, 0), (0, 0), (host.SHARED_LIMIT, 2)):
        y, y_base = copy_of(x, base)
        host.paste_(y, partner, box, rule, shared_limit=limit, ring_blocks=blocks)
        assert same_bits(y_base, want_base), (limit, blocks, case)


def target_cases(seed, step=1):
    """(order, batch, classes, shape of the rest, blend, smoothing).

    A smoothing changes two numbers of a launch and no path, so that it comes in turn: each size and
    each blend has both, but a size and a blend have them for different seeds.
    """
    orders = itertools.cycle(ORDERS)
    sizes = itertools.product(BATCHES, (1, 2, 7, 10, 1000), ([], [3], [2, 2]))
    for k, (size, which) in enumerate(itertools.product(enumerate(sizes), range(2))):
        i, (batch, classes, rest) = size
        smoothing = (0.0, 0.1)[(i + which + seed) % 2]
        case = next(orders), batch, classes, rest, ("rows", (1.0, 0.0))[which], smoothing
        if k % step == 0:
            yield case


def check_targets(dtype, pairing, case, generator):
    order, batch, classes, rest, blend_kind, smoothing = case
    lib.set_order(order)
    labels = torch.randint(0, classes, (batch, *rest), generator=generator)
    if batch == 3:
        labels.view(-1)[1] = (-1, classes, 2**40)[len(rest)]
    partner = make_partner(pairing, batch, generator)
    weight = make_blend(blend_kind, batch, generator).float()
    if blend_kind != "rows":
        weight = weight[:1].expand(batch, 2)
    args = (labels, partner, weight, PAIRINGS[pairing], classes, smoothing, dtype)
    assert same_bits(host.mix_targets(*args), reference.mix_targets(*args)), case


def check_boxes(calls, seed) -> int:
    rng = random.Random(seed)
    for k in range(calls):
        lib.set_order(ORDERS[k % len(ORDERS)])
        dtype = (torch.float32, torch.float64)[k // 2 % 2]
        args = (wild_call if k % 2 else random_call)(rng, dtype)
        for got, want in zip(host.mix_boxes(*args), reference.mix_boxes(*args), strict=True):
            assert same_bits(got, want), args
    return calls


def mix_seed(dtype, pairing):
    """The number at which a dtype and a pairing enter the rotation of blends and boxes."""
    return 7 * list(PAIRINGS).index(pairing) + host.DTYPES.index(dtype)


def run() -> int:
    """Check every kernel, dtype, pairing and layout in this variant; return the number of cases."""
    full = os.environ.get("FUSED_MIXUP_GRID") == "full"
    generator = torch.Generator().manual_seed(5)
    count = 0
    for pairing in PAIRINGS:
        for dtype in host.DTYPES:
            for case in cases(mix_seed(dtype, pairing), 1 if full else 7):
                check_mix(dtype, pairing, case, generator)
                count += 1
            with lib.dependent_launches():
                for case in cases(mix_seed(dtype, pairing), 5 if full else 60):
                    check_mix(dtype, pairing, case, generator)
                    count += 1
        for dtype in PASTED:
            for case in cases(0, 1 if full else 23):
                check_paste(dtype, pairing, case, generator)
                count += 1
        for dtype in host.DTYPES[:4]:
            for case in target_cases(mix_seed(dtype, pairing), 1 if full else 15):
                check_targets(dtype, pairing, case, generator)
                count += 1
    count += check_boxes(400 if full else 40, 5)
    count += loss_grid.run(full, generator)
    count += cluster_grid.run(full, generator)
    count += plan_grid.run(1000 if full else 40)
    count += variant_ops.check_variant_cases(300 if full else 20, seed=4)
    count += neighbor_ops.check_neighbor_cases(300 if full else 30, seed=4)
    count += normalize_grid.run(4000 if full else 1000)
    count += collage_grid.run(4000 if full else 700)
    count += mask_grid.run(2000 if full else 300)
    compiled, launched = lib.kernels()
    assert compiled, "no kernel among the library's symbols"
    assert compiled == launched, f"never launched: {sorted(compiled - launched)}"
    return count


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(run(), "cases")
