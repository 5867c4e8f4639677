"""Label weights by areas, attention, class maps and class counts, against loops over samples."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fused_mixup import MixedTarget, MixPlan
from fused_mixup import label_weights as lw


def boxes(batch, *sizes):
    """Random boxes, the first of them empty, the last the whole sample."""
    edges = [torch.randint(0, n + 1, (batch, 2)).sort(1).values for n in sizes]
    box = torch.stack([e[:, i] for i in (0, 1) for e in edges], 1).int()
    box[0, len(sizes) :] = box[0, : len(sizes)]
    box[-1] = torch.tensor([0] * len(sizes) + list(sizes))
    return box


def close(found, expected):
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), equal_nan=True)


@pytest.mark.parametrize("sizes", [(9,), (12, 7), (4, 5, 6)], ids=str)
def test_areas(device, sizes):
    box = boxes(5, *sizes)
    expected = []
    for row in box.tolist():
        inside = torch.zeros(sizes)
        edges = zip(row[: len(sizes)], row[len(sizes) :], strict=True)
        inside[tuple(slice(*edge) for edge in edges)] = 1
        expected.append([1 - inside.mean().item(), inside.mean().item()])
    close(lw.area_weights(box.to(device), sizes).cpu(), expected)


@pytest.mark.parametrize(("size", "grid"), [((224, 224), 14), ((230, 190), 14), ((37, 50), 5)])
def test_transmix_as_its_paper_upsamples_the_mask(size, grid):
    attention, box = torch.rand(6, grid * grid), boxes(6, *size)
    attention[1] = 0.0
    expected = []
    for tokens, (top, left, bottom, right) in zip(attention, box.tolist(), strict=True):
        mask = torch.zeros(1, 1, *size)
        mask[..., top:bottom, left:right] = 1
        area = mask.mean().item()
        seen = F.interpolate(mask, size=(grid, grid)).flatten()
        share = area if tokens.sum() == 0 else ((tokens * seen).sum() / tokens.sum()).item()
        expected.append([1 - 0.3 * area - 0.7 * share, 0.3 * area + 0.7 * share])
    close(lw.transmix_weights(attention, box, size, ratio=0.3), expected)
    close(lw.transmix_weights(attention.view(6, grid, grid), box, size, ratio=0.3), expected)


def test_one_row_of_a_plan_serves():
    plan = MixPlan.uniform(4, "flip", 0.5, [2, 3, 6, 9])
    assert plan.box.stride(0) == 0
    attention = torch.rand(4, 16)
    rows = lw.transmix_weights(attention, plan.box, (8, 12))
    torch.testing.assert_close(rows, lw.transmix_weights(attention, plan.box.contiguous(), (8, 12)))


def test_attention_under_a_mask():
    attention, mask = torch.rand(3, 4, 5), (torch.rand(3, 4, 5) < 0.5).long()
    attention[2] = 0.0
    expected = []
    for a, m in zip(attention, mask, strict=True):
        share = ((a * m).sum() / a.sum()).item() if a.sum() else m.float().mean().item()
        expected.append([share, 1 - share])
    close(lw.attention_weights(attention, mask), expected)
    close(lw.attention_weights(attention.flatten(1), mask.flatten(1)), expected)


def test_mixpro():
    attention, mask = torch.rand(5, 9), (torch.rand(5, 9) < 0.5).float()
    logits, labels = torch.randn(5, 7), torch.randint(0, 7, (5,))
    target = MixedTarget.from_labels(labels, MixPlan.uniform(5, "flip", 0.25), 7, 0.1)
    c = F.cosine_similarity(target.dense(), logits.softmax(1))
    by_attention = (attention * mask).sum(1) / attention.sum(1)
    share = c * by_attention + (1 - c) * 0.25
    close(lw.mixpro_weights(attention, mask, logits, target), [[s, 1 - s] for s in share.tolist()])
    three = MixedTarget.of_labels(torch.zeros(5, 3, dtype=torch.int64), torch.ones(5, 3), 7)
    with pytest.raises(ValueError, match="two labels a row.* got one of 3 labels"):
        lw.mixpro_weights(attention, mask, logits, three)


@pytest.mark.parametrize("rows", [1, 4])
def test_tokenmix(rows):
    maps, mask = torch.rand(4, 3, 5), (torch.rand(rows, 3, 5) < 0.5).float()
    partner = torch.tensor([2, 0, 0, 3], dtype=torch.int32)
    expected = []
    for i, p in enumerate(partner.tolist()):
        m = mask[i % rows]
        shares = (maps[i] * m).sum() / maps[i].sum(), (maps[p] * (1 - m)).sum() / maps[p].sum()
        expected.append([share.item() for share in shares])
    close(lw.tokenmix_weights(maps, mask, partner), expected)


def test_snapmix():
    maps, labels = torch.rand(6, 8, 11), torch.tensor([0, 1, 1, 2, 0, 2])
    maps[3] = torch.nan
    partner = torch.tensor([4, 2, 0, 1, 3, 5], dtype=torch.int32)
    box, taken = boxes(6, 8, 11), boxes(6, 8, 11).flip(0)
    expected = []
    for i, p in enumerate(partner.tolist()):
        (t, left, b, right), (v, u, w, x) = box[i].tolist(), taken[i].tolist()
        area = (b - t) * (right - left)
        if not area or not (w - v) * (x - u):
            expected.append([1.0, 0.0])
            continue
        own = 1 - (maps[i, t:b, left:right].sum() / maps[i].sum()).item()
        other = (maps[p, v:w, u:x].sum() / maps[p].sum()).item()
        if labels[i] == labels[p]:
            own = other = own + other
        own = 1 - area / 88 if own != own else own
        expected.append([own, area / 88 if other != other else other])
    close(lw.snapmix_weights(maps, box, taken, partner, labels), expected)


COUNTS = torch.tensor([900, 300, 100, 33, 1])


def pairs(batch):
    labels, others = torch.randint(0, 5, (batch,)), torch.randint(0, 5, (batch,))
    share = torch.rand(batch)
    share[:3] = torch.tensor([0.0, 1.0, 0.5])
    return torch.stack((share, 1 - share), 1), labels, others


def test_remix():
    weight, labels, others = pairs(200)
    expected = []
    for (lam, rest), i, p in zip(weight.tolist(), labels, others, strict=True):
        n, m = COUNTS[i].item(), COUNTS[p].item()
        if n >= 3 * m and lam < 0.5:
            lam, rest = 0.0, 1.0
        elif 3 * n <= m and 1 - lam < 0.5:
            lam, rest = 1.0, 0.0
        expected.append([lam, rest])
    got = lw.remix_weights(weight, labels, others, COUNTS)
    assert torch.equal(got, torch.tensor(expected))
    assert 0 < (got != weight).any(1).sum() < 200


def test_remix_of_classes_without_samples():
    """A class without samples is the rare one beside any other, and not beside one like it."""
    weight = torch.tensor([[0.25, 0.75], [0.75, 0.25]]).repeat_interleave(3, 0)
    labels, others = torch.tensor([0, 0, 1] * 2), torch.tensor([1, 2, 2] * 2)
    got = lw.remix_weights(weight, labels, others, torch.tensor([9, 0, 0]))[:, 0]
    assert got.tolist() == [0.0, 0.0, 0.25, 0.75, 0.75, 0.75]
    got = lw.remix_weights(weight, others, labels, torch.tensor([9, 0, 0]))[:, 0]
    assert got.tolist() == [0.25, 0.25, 0.25, 1.0, 1.0, 0.75]


def test_mamix():
    weight, labels, others = pairs(200)
    expected = []
    for (_, mu), i, p in zip(weight.tolist(), labels, others, strict=True):
        k, other = COUNTS[i].item() ** -0.25, COUNTS[p].item() ** -0.25
        c = k / (k + other)
        lam = 1 - mu / (2 * c) if mu < c else (1 - mu) / (2 * (1 - c))
        expected.append([lam, 1 - lam])
    close(lw.mamix_weights(weight, labels, others, COUNTS), expected)


@pytest.mark.proof
def test_compiled():
    def step(attention, box, maps, partner, labels):
        first = lw.transmix_weights(attention, box, (16, 16))
        return first + lw.snapmix_weights(maps, box, box, partner, labels)

    inputs = (
        torch.rand(4, 16),
        boxes(4, 16, 16),
        torch.rand(4, 16, 16),
        torch.arange(4).int(),
        torch.zeros(4, dtype=torch.int64),
    )
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), step(*inputs))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: lw.area_weights(torch.rand(3, 4), (8, 8)), "box: expected integers of shape"),
        (lambda: lw.area_weights(torch.zeros(3, 4).int(), (8,)), "size: expected 2 sizes >= 1"),
        (
            lambda: lw.transmix_weights(torch.rand(3, 15), boxes(3, 8, 8), (8, 8)),
            "attention: expected a square number of tokens, got 15; leave class tokens",
        ),
        (
            lambda: lw.transmix_weights(torch.rand(2, 16), boxes(3, 8, 8), (8, 8)),
            r"box: expected integers of shape \[2, 4\]",
        ),
        (
            lambda: lw.transmix_weights(torch.rand(3, 16), boxes(3, 8, 8), (8, 8), 1.5),
            "ratio: expected a number in",
        ),
        (
            lambda: lw.attention_weights(torch.rand(3, 16), torch.ones(3, 9)),
            r"mask: expected shape \[3, 16\] as attention, or of one row",
        ),
        (
            lambda: lw.tokenmix_weights(torch.rand(3, 4, 4), torch.ones(1, 4, 4), torch.arange(2)),
            r"partner: expected integers of shape \[3\]",
        ),
        (
            lambda: lw.remix_weights(*pairs(3), COUNTS, kappa=0.5),
            "kappa: expected a number >= 1, got 0.5",
        ),
        (
            lambda: lw.remix_weights(*pairs(3), -COUNTS),
            "class_counts: expected numbers of samples, got negative ones or NaN",
        ),
        (
            lambda: lw.remix_weights(*pairs(3), COUNTS * math.nan),
            "class_counts: expected numbers of samples, got negative ones or NaN",
        ),
        (
            lambda: lw.mamix_weights(torch.rand(3), *pairs(3)[1:], COUNTS),
            r"weight: expected a floating tensor \[B, 2\]",
        ),
        (
            lambda: lw.tokenmix_weights(
                torch.rand(3, 4, 4), torch.rand(3, 4, 4), torch.tensor([0, 1, -1])
            ),
            r"partner: expected indices in \[0, 3\), got -1",
        ),
        (
            lambda: lw.snapmix_weights(
                torch.rand(3, 4, 4),
                boxes(3, 4, 4),
                boxes(3, 4, 4),
                torch.arange(1, 4),
                torch.arange(3),
            ),
            r"partner: expected indices in \[0, 3\), got 3",
        ),
        (
            lambda: lw.remix_weights(pairs(3)[0], -torch.arange(3), torch.zeros(3).int(), COUNTS),
            r"labels: expected indices in \[0, \d+\), got -2",
        ),
        (
            lambda: lw.mamix_weights(*pairs(3), torch.zeros(len(COUNTS))),
            "class_counts: expected numbers of 1 and more",
        ),
        (
            lambda: lw.mamix_weights(*pairs(3), [3, 4]),
            "class_counts: expected a tensor .*; use torch.tensor",
        ),
    ],
)
def test_bad_input(call, match):
    with pytest.raises((TypeError, ValueError, IndexError), match=match):
        call()
