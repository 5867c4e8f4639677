"""mix_boxes, the function: lists and padded boxes, formats, dtypes, fields, what is refused."""

from __future__ import annotations

import random

import pytest
import torch
import torch._dynamo.testing
from box_cases import (
    BATCHES,
    MOST,
    SHARES,
    H,
    W,
    boxes_by_hand,
    counts_of,
    random_boxes,
    random_plan,
)

import fused_mixup as fm
from fused_mixup import MixPlan
from fused_mixup.boxes.mix import follow_boxes

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (H, W)


def lists_of(boxes, count, *fields):
    counts = counts_of(boxes, count)
    return [[t[i, :n] for i, n in enumerate(counts)] for t in (boxes, *fields)]


@pytest.mark.parametrize("format", ["xyxy", "xywh", "cxcywh"])
def test_lists_and_padded_boxes_are_those_found_by_hand(format):
    rng = random.Random(7)
    for _ in range(60):
        batch, most, share = rng.choice(BATCHES), rng.choice(MOST[:4]), rng.choice(SHARES)
        dtype = rng.choice((torch.float32, torch.float64, torch.float16))
        corners = random_boxes(rng, batch, most, dtype)
        labels = torch.randint(0, 99, (batch, most, 2))
        count = rng.choice(
            (None, torch.tensor([rng.randint(0, most) for _ in range(batch)]).long())
        )
        plan = random_plan(rng, batch)
        boxes = in_format(corners, format)
        lists, label_lists = lists_of(boxes, count, labels)
        want = boxes_by_hand([b.tolist() for b in lists_of(corners, count)[0]], plan, share)
        options = {"format": format, "min_visible": share}
        got = fm.mix_boxes(lists, label_lists, plan, SIZE, **options)
        padded = fm.mix_boxes(boxes, labels, plan, SIZE, count=count, **options)
        assert padded[3].tolist() == [len(rows) for rows in want]
        for i, rows in enumerate(want):
            truth = torch.tensor([box for box, _, _ in rows], dtype=torch.float64).view(-1, 4)
            assert got[0][i].dtype == dtype
            assert torch.equal(got[0][i].double(), in_format(truth, format))
            assert torch.equal(got[1][i], labels.view(-1, 2)[[o * most + k for *_, (o, k) in rows]])
            for a, b in zip(got, padded, strict=False):
                assert torch.equal(a[i], b[i, : len(rows)])
                assert not b[i, len(rows) :].any()


def in_format(corners, format):
    low, high = corners[..., :2], corners[..., 2:]
    if format == "xyxy":
        return corners
    return torch.cat((low if format == "xywh" else (low + high) / 2, high - low), -1)


@pytest.mark.parametrize("format", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int32]
    + [torch.int64],
    ids=str,
)
def test_boxes_that_are_not_cut_keep_their_bits(dtype, format):
    """Numbers that no conversion gives back exactly, of every dtype."""
    sides = torch.tensor([7.3, 5.1, 9.7, 11.9]) * torch.rand(3, 6, 4)
    boxes = (
        sides.to(dtype)
        if format != "xyxy"
        else torch.cat((sides, sides + 3), -1)[..., ::2].to(dtype)
    )
    boxes = torch.cat((boxes[..., :2], torch.maximum(boxes[..., :2], boxes[..., 2:])), -1)
    labels = torch.arange(18).view(3, 6)
    for plan in (
        MixPlan.identity(3),
        MixPlan.uniform(3, "roll", 1.0),
        MixPlan.uniform(3, "roll", 0.4),
    ):
        mixed, got, weights, count = fm.mix_boxes(boxes, labels, plan, (400, 400), format=format)
        own = mixed[:, :6]
        assert own.dtype == dtype and torch.equal(own, boxes) and torch.equal(got[:, :6], labels)
        lists = fm.mix_boxes(list(boxes), list(labels), plan, (400, 400), format=format)
        for i in range(3):
            assert torch.equal(lists[0][i], mixed[i, : count[i]])
            assert torch.equal(lists[2][i], weights[i, : count[i]])
    assert count.tolist() == [12] * 3
    assert torch.equal(weights, torch.tensor([0.4] * 6 + [0.6] * 6).expand(3, 12))


def test_integer_boxes_are_cut_at_whole_pixels():
    boxes = [torch.tensor([[2, 2, 8, 8]]), torch.tensor([[0, 0, 10, 10]])]
    plan = MixPlan.uniform(2, "flip", 0.5, [0, 0, 12, 4])
    mixed, none, weights = fm.mix_boxes(boxes, None, plan, SIZE)
    assert none is None
    assert [b.tolist() for b in mixed] == [
        [[4, 2, 8, 8], [0, 0, 4, 10]],
        [[4, 0, 10, 10], [2, 2, 4, 8]],
    ]
    assert mixed[0].dtype == torch.int64 and weights[0].tolist() == [1, 1]


@pytest.mark.parametrize("padded", [False, True])
def test_fields_of_any_dtype_and_shape_follow(padded):
    rng = random.Random(8)
    boxes = random_boxes(rng, 3, 5)
    count = torch.tensor([5, 0, 3])
    plan = MixPlan.per_sample(
        [0.5, 0.7, 0.2], torch.tensor([2, 0, 1]), [[2, 3, 9, 12]] * 3, [True, False, True]
    )
    fields = {
        "iscrowd": torch.rand(3, 5) < 0.5,
        "area": torch.rand(3, 5, dtype=torch.float64),
        "masks": torch.randint(0, 2, (3, 5, 4, 6), dtype=torch.uint8),
        "half": torch.randn(3, 5, 1).half(),
        "row": torch.arange(15).view(3, 5),
    }
    given, given_boxes = fields, boxes
    if not padded:
        given_boxes, *lists = lists_of(boxes, count, *fields.values())
        given = dict(zip(fields, lists, strict=True))
    mixed = follow_boxes(given_boxes, given, plan, SIZE, count=count if padded else None)
    for name, t in fields.items():
        for i in range(3):
            n = int(mixed.counts[i]) if padded else len(mixed.rows[i])
            rows = mixed.fields["row"][i][:n]
            assert torch.equal(mixed.fields[name][i][:n], t.flatten(0, 1)[rows])


def test_padded_boxes_compile_without_breaks_or_recompiles():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()

    def mixed(boxes, labels, count, plan, share):
        return fm.mix_boxes(
            boxes, labels, plan, SIZE, format="xywh", count=count, min_visible=share
        )

    compiled = torch.compile(mixed, backend=counter, fullgraph=True)
    rng = random.Random(9)
    for lam in (0.1, 0.3, 0.9):
        boxes = in_format(random_boxes(rng, 4, 5, torch.float32), "xywh")
        count, labels = torch.tensor([5, 0, 2, 4]), torch.randint(0, 9, (4, 5))
        plan = MixPlan.uniform(4, "roll", lam, [1, 2, rng.randint(3, 12), 9])
        for got, want in zip(
            compiled(boxes, labels, count, plan, 0.2),
            mixed(boxes, labels, count, plan, 0.2),
            strict=True,
        ):
            assert torch.equal(got, want)
    assert counter.frame_count == 1


# ------------------------------------------------------------------ what is refused

GOOD = torch.tensor([[1.0, 2.0, 5.0, 6.0]])
LABELS = torch.tensor([3])


def refused(match, boxes=None, labels=None, plan=None, size=SIZE, error=ValueError, **options):
    boxes = [GOOD, GOOD] if boxes is None else boxes
    labels = [LABELS, LABELS] if labels is None else labels
    plan = MixPlan.uniform(2, "flip", 0.5) if plan is None else plan
    with pytest.raises(error, match=match):
        fm.mix_boxes(boxes, labels, plan, size, **options)


def test_bad_lists_are_refused_by_name():
    refused(r"boxes: expected 2 tensors, one for each sample", [GOOD])
    refused(
        r"labels\[1\]: expected 1 rows, as boxes\[1\] has, got 2", labels=[LABELS, LABELS.repeat(2)]
    )
    refused(
        r"labels\[1\]: expected torch.int64 as", labels=[LABELS, torch.ones(1)], error=TypeError
    )
    refused(r"boxes\[1\]: expected torch.float32 as", [GOOD, GOOD.double()], error=TypeError)
    refused(r"boxes\[1\]: expected shape \['n', 4\]", [GOOD, torch.ones(1, 5)])
    refused(r"boxes: expected 4 numbers a box", [torch.ones(1, 5)] * 2)
    refused(r"boxes: expected tensors \[n, 4\]", [torch.ones(4)] * 2)
    refused(r"boxes\[0\]: expected a tensor, got a list", [[[1, 2, 3, 4]], GOOD], error=TypeError)
    refused(r"boxes\[1\]: expected a row for each box", [GOOD, torch.tensor(3.0)])
    refused(r"boxes: expected a list .* got a dict", {0: GOOD}, error=TypeError)
    refused(r"labels: expected a list, as boxes is", labels=torch.ones(2, 1), error=TypeError)
    refused(r"do not require grad", [GOOD, GOOD.clone().requires_grad_()])
    refused(r"expected boxes of floats or integers", [GOOD.bool()] * 2, error=TypeError)
    refused(r"count: expected None", count=torch.tensor([1, 1]))
    refused(r"boxes\[0\]: expected it on the CPU, got meta: .* pad", [GOOD.to("meta")] * 2)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("values", "format", "match"),
    [
        ([5.0, 2.0, 1.0, 6.0], "xyxy", "x1 <= x2 and y1 <= y2, got one that is reversed"),
        ([1.0, 2.0, 3.0, -1.0], "xywh", "a width and a height >= 0, got one that is reversed"),
        ([1.0, torch.nan, 3.0, 1.0], "xyxy", "got infinity or NaN"),
        ([1.0, torch.inf, 3.0, torch.inf], "xyxy", "got infinity or NaN"),
        ([1.0, 1.0, torch.inf, 2.0], "cxcywh", "got infinity or NaN"),
    ],
)
def test_bad_boxes_on_the_cpu_name_their_sample(values, format, match, padded):
    bad = torch.tensor([[1.0, 2.0, 5.0, 6.0], values])
    if padded:
        boxes = torch.stack((GOOD.expand(2, 4), bad))
        refused(rf"boxes\[1\].*{match}", boxes, torch.ones(2, 2), format=format)
        count = torch.tensor([2, 1])  # a row that is not there may hold anything
        fm.mix_boxes(boxes, None, MixPlan.identity(2), SIZE, format=format, count=count)
    else:
        labels = [torch.ones(1), torch.ones(2)]
        refused(rf"boxes\[1\].*{match}", [GOOD, bad], labels, format=format)


def test_bad_padded_tensors_and_numbers_are_refused():
    boxes, labels = GOOD.expand(2, 3, 4), torch.ones(2, 3)
    refused(r"boxes: expected shape \[2, N, …\]", boxes[:1], labels)
    refused(r"boxes: expected shape \[B, N, 4\]", boxes[..., None], labels)
    refused(r"labels: expected shape \[2, 3, …\], a row for each of boxes", boxes, labels[:, :2])
    refused(r"labels: expected a tensor", boxes, [LABELS] * 2, error=TypeError)
    refused(r"count: expected an int64 or int32", boxes, labels, count=[3, 3], error=TypeError)
    refused(r"count: expected shape \[2\]", boxes, labels, count=torch.tensor([3]))
    refused(
        r"count: expected numbers in \[0, 3\], .* got 4", boxes, labels, count=torch.tensor([4, 0])
    )
    refused(
        r"plan: expected boxes inside .*size", plan=MixPlan.uniform(2, "flip", 0.5, [0, 0, 13, 2])
    )
    refused(r"plan: expected boxes of 2 dims", plan=MixPlan.uniform(2, "flip", 0.5, [0, 3]))
    refused(r"plan: expected a MixPlan", plan="flip", error=TypeError)
    refused(r"size: expected the images' \(H, W\)", size=(3, 4, 5))
    for share in (-0.1, 1.5, float("nan")):
        refused(r"min_visible: expected a number in \[0, 1\]", min_visible=share)
    refused(r"format: .* got 'xyxyxyxy'; what a cut leaves of a rotated box", format="xyxyxyxy")
    refused(r"format: expected one of", format="yxyx")


def test_an_empty_sample_may_have_no_shape():
    boxes = [torch.empty(0), GOOD]
    mixed, labels, _ = fm.mix_boxes(
        boxes, [torch.empty(0), torch.ones(1)], MixPlan.uniform(2, "flip", 0.5), SIZE
    )
    assert torch.equal(mixed[0], GOOD) and torch.equal(mixed[1], GOOD) and labels[0].tolist() == [1]
    mixed, _, weights = fm.mix_boxes([torch.empty(0)] * 2, None, MixPlan.identity(2), SIZE)
    assert [t.shape for t in mixed] == [(0, 4)] * 2 and [t.shape for t in weights] == [(0,)] * 2
