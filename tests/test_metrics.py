"""mixed_accuracy, and the accuracy that a loss returns."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import loss_targets
from loss_options import POSITIONS, ignoring_target

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan


def by_hand(z, target, k):
    hits = z.topk(min(k, z.shape[1]), 1).indices
    own, other = (
        (hits == y.unsqueeze(1)).any(1).float() for y in (target.labels, target.partner_labels)
    )
    w = target.weight.view(-1, 2, *[1] * (z.ndim - 2)).to(z.device)
    return ((w[:, 0] * own + w[:, 1] * other) / w.sum(1)).mean()


@pytest.mark.parametrize("positions", POSITIONS)
def test_accuracy_of_a_mixed_batch(device, positions):
    z = torch.randn(6, 9, *positions, device=device)
    labels = torch.randint(0, 9, (6, *positions), device=device)
    for plan in (MixPlan.uniform(6, "flip", 0.3), MixPlan.per_sample(torch.rand(6), "roll")):
        target = MixedTarget.from_labels(labels, plan.to(device), 9)
        found = fm.mixed_accuracy(z, target, (1, 5, 20))
        for k, got in zip((1, 5, 20), found, strict=True):
            torch.testing.assert_close(got, by_hand(z, target, k))
        torch.testing.assert_close(fm.mixed_accuracy(z, target.dense(), (1, 5, 20)), found)
        loss, top = fm.soft_target_cross_entropy(z, target, return_accuracy=True)
        torch.testing.assert_close(loss, fm.soft_target_cross_entropy(z, target))
        assert torch.equal(top, found[0])
        loss, tops = fm.soft_target_cross_entropy(z, target.dense(), return_accuracy=(1, 5))
        torch.testing.assert_close(tops, found[:2])
    hard = (z.argmax(1) == labels).float().mean()
    torch.testing.assert_close(fm.mixed_accuracy(z, labels, (1,))[0], hard)


def test_accuracy_counts_what_has_weight(device):
    z = torch.eye(6, 5, device=device)
    target = ignoring_target(device)  # rows 3, 4 and 5 are ignored
    (got,) = fm.mixed_accuracy(z, target, (1,))
    # Row 0 hits its partner (0.7), row 1 misses, row 2 hits its own label, the only kept one.
    torch.testing.assert_close(got.cpu(), torch.tensor((0.7 + 0 + 1) / 3))
    _, same = fm.soft_target_cross_entropy(z, target, return_accuracy=True)
    assert torch.equal(got, same)
    nothing = torch.full((6,), -100, device=device)
    assert fm.mixed_accuracy(z, nothing, (1,))[0].isnan()


def test_ties_and_nan(device):
    z = torch.zeros(3, 4, device=device)
    z[2, 3] = math.nan
    labels = torch.tensor([0, 2, 0], device=device)
    for k, hits in ((1, 1), (2, 2), (3, 3)):  # row 2: only the NaN ranks higher
        torch.testing.assert_close(
            fm.mixed_accuracy(z, labels, (k,))[0].cpu(), torch.tensor(hits / 3)
        )
    assert fm.mixed_accuracy(z[2:], torch.tensor([3], device=device), (4,))[0] == 0
    for num_classes in (4, 40):
        z = torch.zeros(3, num_classes, device=device)
        z[2, 3] = math.nan
        labels = torch.tensor([0, 2, 3], device=device)
        dense = F.one_hot(labels, num_classes).float()
        tops = (1, 2, 3, num_classes)
        expected = fm.mixed_accuracy(z, labels, tops)
        torch.testing.assert_close(fm.mixed_accuracy(z, dense, tops), expected)
        _, same = fm.soft_target_cross_entropy(z, dense, return_accuracy=tops)
        torch.testing.assert_close(same, expected)


def test_ties_of_long_rows(device):
    z = torch.zeros(2, 5000, device=device)  # more classes than a kernel takes at once
    labels = torch.tensor([4999, 1234], device=device)
    got = fm.mixed_accuracy(z, labels, (1234, 1235, 4999, 5000))
    assert [float(top) for top in got] == [0.0, 0.5, 0.5, 1.0]


Z = torch.randn(4, 6)
(_, TARGET), *_ = loss_targets(4, 6)


@pytest.mark.parametrize(
    ("topk", "error"), [((0,), ValueError), ((1.5,), TypeError), (3, TypeError)]
)
def test_bad_topk(topk, error):
    with pytest.raises(error, match="topk"):
        fm.mixed_accuracy(Z, TARGET, topk)
    with pytest.raises(error, match="return_accuracy: expected"):
        fm.soft_target_cross_entropy(Z, TARGET, return_accuracy=topk)
