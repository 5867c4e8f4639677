"""mix_boxes, the op: against a count by hand, against drawn pixels, on every backend."""

from __future__ import annotations

import random

import pytest
import torch
from box_cases import (
    BATCHES,
    MOST,
    SHARES,
    H,
    W,
    boxes_by_hand,
    counts_of,
    random_boxes,
    random_call,
    random_plan,
    wild_call,
)
from comparing import same_bits

import fused_mixup as fm
from fused_mixup import MixPlan, backends, ops, reference
from fused_mixup.codes import PAIRINGS

pytestmark = pytest.mark.usefixtures("one_thread")


def plan_of(partner, blend, box, rule):
    names = {code: name for name, code in PAIRINGS.items()}
    return MixPlan(partner, blend.float(), blend, box, names[rule])


def assert_all_same(got, want, what=None):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert same_bits(a, b), what


# ------------------------------------------------------------------ the op


@pytest.mark.parametrize("calls", [100, pytest.param(2000, marks=pytest.mark.proof)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_boxes_are_those_found_by_hand(device, dtype, calls):
    """Quarters of pixels are exact in both dtypes; weights and shares are rounded."""
    rng = random.Random(1)
    kept = dropped = 0
    for _ in range(calls):
        boxes, count, *plan, share = random_call(rng, dtype)
        there = [t.to(device) if isinstance(t, torch.Tensor) else t for t in (boxes, count)]
        mixed, source, weight, left = (
            t.cpu() for t in ops.mix_boxes(*there, *_moved(plan, device), share)
        )
        counts = counts_of(boxes, count)
        lists = [rows[:n] for rows, n in zip(boxes.tolist(), counts, strict=True)]
        want = boxes_by_hand(lists, plan_of(*plan), share)
        most = boxes.shape[1]
        assert left.tolist() == [len(rows) for rows in want]
        for i, rows in enumerate(want):
            n = len(rows)
            assert mixed[i, :n].tolist() == [box for box, _, _ in rows]
            assert not mixed[i, n:].any() and not weight[i, n:].any()
            assert (source[i, n:] == -1).all()
            got = source[i, :n].tolist()
            assert got == [k if of == i else most + k for _, _, (of, k) in rows]
            truth = torch.tensor([w for _, w, _ in rows], dtype=torch.float64)
            torch.testing.assert_close(weight[i, :n].double(), truth, rtol=2e-7, atol=0)
            kept += n
            dropped += counts[i] + counts[int(plan_of(*plan).partner[i])] - n
    assert kept > 800 and dropped > 800


def _moved(plan, device):
    return [t.to(device) if isinstance(t, torch.Tensor) else t for t in plan]


def drawn_boxes(boxes, height, width):
    """bool [n, H, W]: the pixels of integer boxes."""
    y, x = torch.arange(height).view(-1, 1), torch.arange(width)
    x1, y1, x2, y2 = (c.view(-1, 1, 1) for c in boxes.unbind(-1))
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def test_boxes_are_those_seen_in_drawn_pixels(device):
    """Each box is drawn as a mask; what the plan leaves of it in the image decides."""
    rng = random.Random(2)
    ones = torch.ones(H, W)
    for _ in range(40):
        batch, most, share = rng.choice(BATCHES[1:]), rng.choice(MOST[1:4]), rng.choice(SHARES)
        corners = random_boxes(rng, batch, most, step=1).clamp(min=0).float()
        boxes = torch.minimum(corners, torch.tensor([W, H, W, H]))
        masks = torch.stack([drawn_boxes(b, H, W) for b in boxes])  # [B, N, H, W]
        plan = random_plan(rng, batch)
        mixed, source, weight, left = (
            t.cpu()
            for t in ops.mix_boxes(boxes.to(device), None, *_moved(_args(plan), device), share)
        )
        for i, p in enumerate(plan.partner.tolist()):
            if p == i:
                continue
            # How much of each image every pixel shows, by mixing images of ones and zeros.
            shows = [
                fm.mix(torch.stack([ones * (k == j) for k in range(batch)]), plan)[i]
                for j in (i, p)
            ]
            want = []
            for j, first in ((i, 0), (p, most)):
                for k, mask in enumerate(masks[j]):
                    area = int(mask.sum())
                    seen = mask & (shows[first // most] > 0)
                    if area == 0 or not seen.any() or int(seen.sum()) / area < share:
                        continue
                    ys, xs = seen.any(1).nonzero(), seen.any(0).nonzero()
                    box = [*map(int, (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1))]
                    value = shows[first // most][seen].double()
                    # A partner's box is seen through the cut and, blended, around it.
                    want.append((first + k, box, float(value.mean())))
            there = [s for s in source[i].tolist() if s >= 0 and _has_area(boxes, i, p, s)]
            assert there == [s for s, _, _ in want]
            for s, box, value in want:
                at = source[i].tolist().index(s)
                assert mixed[i, at].tolist() == box
                assert weight[i, at] == pytest.approx(value, abs=1e-6)


def _args(plan):
    return plan.partner_or_none, plan.blend, plan.box, plan.rule


def _has_area(boxes, i, p, source):
    n = boxes.shape[1]
    x1, y1, x2, y2 = (boxes[i, source] if source < n else boxes[p, source - n]).tolist()
    return x2 > x1 and y2 > y1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_backend_gives_the_same_bits(device, dtype):
    rng = random.Random(3)
    for k in range(120):
        arguments = (wild_call if k % 2 else random_call)(rng, dtype)
        got = ops.mix_boxes(*_moved(arguments, device))
        assert_all_same([t.cpu() for t in got], reference.mix_boxes(*arguments), arguments)
        assert not got[2].isnan().any()


def test_packed_boxes_are_the_padded_ones(device):
    rng = random.Random(4)
    for _ in range(60):
        boxes, count, *rest = random_call(rng)
        counts = counts_of(boxes, count)
        packed = torch.cat(
            [boxes[:0].view(0, 4), *(b[:n] for b, n in zip(boxes, counts, strict=True))]
        )
        there = _moved((packed, counts, *rest), device)
        name = device if device == "cpu" else "reference"
        with fm.backend("reference") if name == "reference" else fm.backend(fm.forcing.forced()):
            mixed, source, weight, left = (t.cpu() for t in ops.mix_boxes_packed(*there))
        want, places, want_weight, want_left = reference.mix_boxes(boxes, count, *rest)
        assert left.tolist() == want_left.tolist()
        stays = places >= 0
        assert_all_same((mixed, weight), (want[stays], want_weight[stays]))
        plan = plan_of(*rest[:-1])
        first = [sum(counts[:i]) for i in range(len(counts))]
        most = boxes.shape[1]
        rows = [
            first[i] + s if s < most else first[p] + s - most
            for i, (p, ss) in enumerate(zip(plan.partner.tolist(), places.tolist(), strict=True))
            for s in ss
            if s >= 0
        ]
        assert source.tolist() == rows


WHY_NO_TRITON = backends.reason_unavailable("triton", "CPU")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of NaN
@pytest.mark.skipif(WHY_NO_TRITON is not None, reason=str(WHY_NO_TRITON))
@pytest.mark.parametrize("calls", [10, pytest.param(200, marks=pytest.mark.proof)])
def test_triton_gives_the_same_bits(calls):
    import triton_place  # noqa: F401 - watches the programs of a launch

    import fused_mixup.triton_kernels as tk

    rng = random.Random(calls)
    for k in range(calls):
        dtype = (torch.float32, torch.float64)[k % 2]
        arguments = (wild_call if k % 3 == 1 else random_call)(rng, dtype)
        assert_all_same(tk.mix_boxes(*arguments), reference.mix_boxes(*arguments), arguments)


@pytest.mark.parametrize("at", range(3))
def test_packed_counts_whose_sum_has_more_than_63_bits_are_refused(at):
    plan = MixPlan.uniform(3, "flip", 0.3)
    counts = [2, 0, 1]
    counts[at] = 2**63 - 1
    rows = plan.partner_or_none, plan.blend, plan.box, plan.rule
    with pytest.raises((RuntimeError, ValueError), match="counts"):
        torch.ops.fused_mixup.mix_boxes_packed(torch.rand(3, 4), counts, *rows, 0.1)
