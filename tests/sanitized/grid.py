"""Every CPU op against the reference, over dtypes, layouts, pairings, boxes and batch sizes.

It is a program, to run in a separate process: with the kernels of one instruction set
(FUSED_MIXUP_CPU), and with a module under a sanitizer. It prints, as JSON, the instruction
set that ran, the module's file, and how many results of each op were compared.
FUSED_MIXUP_GRID=full takes every combination instead of a part of them, FUSED_MIXUP_GRID=thin a
smaller part.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import itertools
import json
import math
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # tests

import loss_checks
import torch
from cases import BLENDABLE, FLOATS, GRID, layouts, pairings, plans, values
from collage_cases import random_results as collages
from comparing import same_bits
from draw_cases import draw_cases
from erasing_cases import erasing_cases
from grid_boxes import check_boxes
from grid_masks import check_masks
from grid_ragged import check_ragged
from neighbor_cases import neighbor_cases
from normalize_cases import random_results
from variant_cases import variant_cases

from fused_mixup import _C, MixPlan, backends, ops, reference
from fused_mixup.codes import PAIRINGS

FULL = os.environ.get("FUSED_MIXUP_GRID") == "full"
THIN = 4 if os.environ.get("FUSED_MIXUP_GRID") == "thin" else 1
MOVABLE = (torch.bool, torch.int16, torch.int32, torch.int64, torch.complex128)  # 1 to 16 bytes
# Batches large enough that parallel_for splits them into tiles or samples.
LARGE = ((24, [3, 32, 33]), (3, [40_001]), (300, [70]))
compared: collections.Counter[str] = collections.Counter()


def thin(items, step):
    """Keep all of ``items``, or every ``step``-th from a random one on."""
    items, step = list(items), step * THIN
    return items if FULL else items[int(torch.randint(step, ())) :: step]


@functools.cache
def all_plans(batch_size, *shape):
    """The plans for all dtypes, cached: making them takes longer than mixing small batches."""
    return list(plans(batch_size, list(shape)))


def check(op, got, expected, *what):
    compared[op] += 1
    assert same_bits(got, expected), (op, *what, int((got != expected).sum()))


def check_near(op, got, expected, bound, *what):
    """Check that finite values lie within ``bound``, and that infinities and NaNs are equal."""
    compared[op] += 1
    got = got.double()
    close = (got - expected).abs() <= bound
    close |= (got == expected) | (got.isnan() & expected.isnan())
    assert close.all(), (op, *what, int((~close).sum()), (got - expected).abs().max().item())


# ------------------------------------------------------------------ mixing


def arguments(plan):
    return plan.partner_or_none, plan.blend, plan.box, plan.rule


def check_mix(view, args, *what):
    """Check mix, mix_out and mix_ on one batch; mix_ comes last, as it overwrites the batch."""
    expected = reference.mix(view, *args)
    got = ops.mix(view, *args)
    assert got.stride() == torch.empty_like(view).stride()
    check("mix", got, expected, *what)
    batch_size, *shape = view.shape
    out = torch.zeros((*shape, batch_size), dtype=view.dtype).movedim(-1, 0)
    ops.mix_out(view, *args, out)
    check("mix_out", out, expected, *what)
    if view.dtype.is_floating_point:
        check_mix_backward(view, args, *what)
    ops.mix_(view, *args)
    check("mix_", view, expected, *what)


def check_mix_backward(grad, args, *what):
    partner, blend, box, rule = args
    lists = (None, None) if partner is None else ops.transpose_pairing(partner)
    got = ops.mix_backward(grad, partner, *lists, blend, box, rule)
    truth = reference.mix_backward(grad.double(), partner, *lists, blend, box, rule)
    # The bound of test_mix.py: each term is rounded, at most B + 1 are summed and rounded once.
    acc = torch.float64 if grad.dtype == torch.float64 else torch.float32
    most = grad.double().abs().max() if grad.numel() else 0
    count = 2
    if partner is not None and len(partner):
        count = torch.bincount(partner.clamp(0, len(partner) - 1)).max().item() + 1
    bound = torch.finfo(grad.dtype).eps * truth.abs() + torch.finfo(acc).eps * count * count * most
    check_near("mix_backward", got, truth, bound, *what)


def check_paste(view, args, *what):
    partner, _, box, rule = args
    expected = view.clone()
    reference.paste_(expected, partner, box, rule)
    ops.paste_(view, partner, box, rule)
    check("paste_", view, expected, *what)


def mixing():
    for dtype in BLENDABLE:
        for batch_size, shape in GRID:
            x = values((batch_size, *shape), dtype)
            for name, plan in thin(all_plans(batch_size, *shape), 3):
                check_mix(x.clone(), arguments(plan), dtype, batch_size, shape, name)
        shapes = GRID if FULL else [(5, [3, 7, 5]), (5, [3, 20, 33]), (5, [2, 3, 4, 5])]
        for batch_size, shape in shapes:
            x = values((batch_size, *shape), dtype)
            for name, plan in thin(all_plans(batch_size, *shape), 9):
                for layout, view in layouts(x):
                    check_mix(view, arguments(plan), dtype, batch_size, shape, name, layout)
        for batch_size, shape in LARGE:
            x = values((batch_size, *shape), dtype)
            for name, plan in thin(all_plans(batch_size, *shape), 11):
                for layout, view in thin(layouts(x), 4):
                    check_mix(view, arguments(plan), dtype, batch_size, shape, name, layout)
    for dtype in (*MOVABLE, *(BLENDABLE if FULL else ())):
        for batch_size, shape in [*GRID, LARGE[0]]:
            x = values((batch_size, *shape), dtype)
            for name, plan in thin(all_plans(batch_size, *shape), 9):
                for layout, view in thin(layouts(x), 3):
                    check_paste(view, arguments(plan), dtype, batch_size, shape, name, layout)


def sample_lists(batch_size, shape, dtype):
    """(name, a batch's samples): in one layout, each in separate memory, in different layouts."""
    x = values((batch_size, *shape), dtype)
    apart = [list(view) for _, view in layouts(x)]
    for (name, _), samples in zip(layouts(x), apart, strict=True):
        yield name, samples
    yield "own memory", [s.clone() for s in x]
    if len(shape) > 1:  # decoders give images with channels last
        yield "HWC", [s.movedim(0, -1).contiguous().movedim(-1, 0) for s in x]
    every = [apart[i % len(apart)][i] for i in range(batch_size)]
    yield "a layout each", every
    if shape:
        yield "one value", [s[..., :1].expand(s.shape) for s in x]


def batches_for(count, shape, dtype):
    """(name, output tensor), contiguous and not."""
    yield "contiguous", torch.zeros(count, *shape, dtype=dtype)
    wide = torch.zeros(count + 1, *shape, dtype=dtype)
    yield "of a larger one", wide[1:]
    if len(shape) == 3:
        form = torch.channels_last
        yield "channels_last", torch.zeros(count, *shape, dtype=dtype).to(memory_format=form)
    yield "every second element", torch.zeros(count, *shape, 2, dtype=dtype)[..., 0]


def check_mix_samples(batch_size, shape, dtype, plan, *what):
    for name, samples in thin(sample_lists(batch_size, shape, dtype), 3):
        for count in {batch_size, (batch_size + 1) // 2, 0}:
            for into, out in thin(batches_for(count, shape, dtype), 2):
                expected = out.clone()
                reference.mix_samples(samples, *arguments(plan), expected)
                before = [s.clone() for s in samples]
                ops.mix_samples(samples, *arguments(plan), out)
                check("mix_samples", out, expected, dtype, shape, *what, name, count, into)
                assert all(map(same_bits, samples, before))


def collating():
    """Mix samples that lie apart in memory into a batch."""
    for dtype in BLENDABLE:
        for batch_size, shape in [*(g for g in GRID if g[0]), *LARGE]:
            step = 20 if math.prod(shape) * batch_size < 5000 else 41
            for name, plan in thin(all_plans(batch_size, *shape), step):
                check_mix_samples(batch_size, shape, dtype, plan, name)


def normalizing():
    """From bytes or floats of any layout to the model's input."""
    for got, expected, what in random_results(1500 if FULL else 250 // THIN):
        check("mix_normalize", got, expected, *what)
    for name, got, expected, what in collages(3000 if FULL else 500 // THIN, 0, ops, reference):
        check(name, got, expected, what)


def masking():
    check_masks(check, 900 if FULL else 260 // THIN)


def boxes():
    check_boxes(check, 1000 if FULL else 60)


def ragged():
    check_ragged(check, 3000 if FULL else 500 // THIN)


def every_half():
    """Mix all values of both half types, with weights that round in every way."""
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    self, box = PAIRINGS["self"], torch.zeros(1, 0, dtype=torch.int32)
    for dtype in (torch.float16, torch.bfloat16):
        for w in (0.5, 1 / 3, 1.7, 1e-3):
            blend = torch.tensor([[w, 0.0]], dtype=torch.float64)
            args = bits.view(dtype)[None], None, blend, box, self
            check("mix", ops.mix(*args), reference.mix(*args))


def beyond_the_ends():
    """Indices and boxes out of range are clamped, never read."""
    low, high = torch.iinfo(torch.int32).min, torch.iinfo(torch.int32).max
    partner = torch.tensor([high, low, -1, 5, 4], dtype=torch.int32)
    rows = [[low, low, high, high], [-1, 3, 99, 99], [high, high, low, low], [6, 0, 7, high]]
    box = torch.tensor([*rows, [0, 2, 7, 5]], dtype=torch.int32)
    blend = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(5, 2)
    args = (partner, blend, box, PAIRINGS["tensor"])
    for dtype in BLENDABLE:
        for layout, view in layouts(values((5, 3, 7, 5), dtype)):
            check_mix(view, args, "beyond", dtype, layout)
        for layout, view in layouts(values((5, 3, 7, 5), dtype)):
            check_paste(view, args, "beyond", dtype, layout)


# ------------------------------------------------------------------ plans


def drawing():
    n = 5 if FULL else 1
    drawn = {"draw_plan": draw_cases(80 * n, seed=4, large=0.15)}
    drawn |= {"draw_variants": variant_cases(60 * n, 7), "draw_erasing": erasing_cases(90 * n, 4)}
    drawn["draw_neighbors"] = neighbor_cases(60 * n, 2)
    for name, cases in drawn.items():
        for state, *options in cases:
            calls = (ops, state), (reference, stepped := state.clone())
            got, expected = (getattr(of, name)(s, *options) for of, s in calls)
            for part, (a, b) in enumerate(zip((*got, state), (*expected, stepped), strict=True)):
                check(name, a, b, part, *options)


# ------------------------------------------------------------------ labels and loss


def targets():
    for size, inner, k in ((0, [], 3), (1, [], 1), (7, [], 10), (4, [3, 5], 6), (99, [], 999)):
        labels = torch.randint(-1, k + 1, (size, *inner))  # some outside [0, K)
        for dtype, (name, partner) in itertools.product(FLOATS, pairings(size)):
            lam = torch.rand(size).index_fill(0, torch.arange(0, size, 3), 1.0)
            each = MixPlan.uniform(size, partner, 0.3), MixPlan.per_sample(lam, partner)
            for plan in each:
                for smoothing in (0.0, 0.1):
                    args = (plan.partner_or_none, plan.weight, plan.rule, k, smoothing, dtype)
                    got = ops.mix_targets(labels, *args)
                    check("mix_targets", got, reference.mix_targets(labels, *args), dtype, name, k)


def maps():
    """Labels of every width, whole and strided: the bounds of those that are not ignored."""
    dtypes = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    shapes = [(0, 3), (1, 1), (3, 0), (7, 33), (4, 3, 5), (5, 181, 182)]
    for dtype, shape in itertools.product(dtypes, shapes):
        whole = torch.randint(0, 100, shape).to(dtype)
        for labels in (whole, whole.transpose(0, -1).contiguous().transpose(0, -1)):
            for ignored in (-(2**63), -101, -100, -1, 0, 7, 255, 2**40):
                expected = reference.label_bounds(labels, ignored)
                check("label_bounds", ops.label_bounds(labels, ignored), expected, shape, ignored)


def losses():
    # The cases of test_loss_cpu.py, in smaller sizes.
    shapes = [(0, 5), (5, 1), (7, 33), (3, 2100)]
    shapes += [(2, 6, 7, 5), (3, 1, 9), (1, 110, 70), (2, 5, 600)]
    for dtype, shape in itertools.product(FLOATS, shapes):
        step = 1 if FULL else 11
        loss_checks.cross_entropies(shape, dtype, step)
        loss_checks.binary_cross_entropies(shape, dtype, step)
        loss_checks.all_ranks(shape, dtype)
        loss_checks.all_scales(shape, dtype)
    compared.update(loss_checks.compared)


def main():
    assert backends.chosen("CPU") == "native", backends.reason_unavailable("native", "CPU")
    parts = (mixing, collating, ragged, normalizing, masking, every_half, beyond_the_ends, drawing)
    for part in (*parts, boxes, targets, maps, losses):
        torch.manual_seed(0)
        part()
    result = {"on": _C.cpu_capability(), "module": _C.__file__, "compared": compared}
    split = getattr(ctypes.CDLL(_C.__file__), "fused_mixup_calls_split", None)
    if split is not None:
        split.restype = ctypes.c_int64
        result["split"] = split()
    print(json.dumps(result))


if __name__ == "__main__":
    asked = os.environ.get("FUSED_MIXUP_CPU")
    if asked and asked != _C.cpu_capability():
        print(json.dumps({"on": _C.cpu_capability()}))  # this CPU lacks the instruction set
        sys.exit()
    main()
