"""The binary cross-entropy: targets, weights, a threshold, and bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import loss_targets
from loss_options import POSITIONS, compare

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, ops
from fused_mixup.codes import NO_IGNORE


def test_binary_loss_of_class_indices_is_that_of_one_hot(device):
    z = torch.randn(4, 7, device=device)
    labels = torch.tensor([0, 6, 3, 3], device=device)
    got = fm.soft_target_binary_cross_entropy(z, labels)
    hot = F.one_hot(labels, 7).float()
    torch.testing.assert_close(got, F.binary_cross_entropy_with_logits(z, hot))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_the_binary_loss_broadcast(device, reduction):
    z = torch.randn(3, 5, 4, device=device)
    t = torch.rand(3, 5, 4, device=device)
    pos = torch.rand(5, 1, device=device)
    for shape in ((5, 1), (1, 5, 1), (), (1,), (4,), (3, 1, 1), (3, 5, 4), (5, 4)):
        kw = {"weight": torch.rand(shape, device=device), "pos_weight": pos, "reduction": reduction}
        compare(fm.soft_target_binary_cross_entropy, F.binary_cross_entropy_with_logits, z, t, **kw)
    weight = torch.rand(3, 1, 1, device=device)
    got = fm.soft_target_binary_cross_entropy(z, t, weight=weight, sum_classes=True)
    double = {"weight": weight.double(), "sum_classes": True}
    assert torch.equal(fm.soft_target_binary_cross_entropy(z, t, **double), got)
    assert fm.soft_target_binary_cross_entropy(z, t, **double).dtype == torch.float32
    each = F.binary_cross_entropy_with_logits(z, t, weight, reduction="none")
    torch.testing.assert_close(got, each.sum(1).mean())


@pytest.mark.parametrize("positions", POSITIONS)
def test_binary_loss_of_a_mixed_target(device, positions):
    z = torch.randn(4, 7, *positions, device=device)
    labels = torch.randint(0, 7, (4, *positions), device=device)
    target = MixedTarget.from_labels(labels, MixPlan.uniform(4, "roll", 0.3), 7, 0.1)
    for threshold in (None, 0.2):
        dense = target.dense()
        if threshold is not None:
            dense = (dense > threshold).float()
        got = fm.soft_target_binary_cross_entropy(z, target, target_threshold=threshold)
        torch.testing.assert_close(got, F.binary_cross_entropy_with_logits(z, dense))


def test_labels_unseen_by_the_checks_poison_their_row_only(device):
    # On a GPU no check reads labels either; a threshold must not turn NaN into a target of 0.
    z = torch.randn(4, 6, device=device)
    own = torch.tensor([1, 6, 2, -100], device=device)
    other = torch.tensor([0, 1, 2**40, 2], device=device)
    sparse = own, other, torch.rand(4, 2).to(device)
    for threshold in (None, 0.3):
        options = None, None, 0.1, threshold, 0.0, 2, True
        rows, grad = ops.soft_target_binary_cross_entropy_grad(z, *sparse, *options)
        assert rows.isnan().tolist() == [False, True, True, True]
        assert grad.isnan().all(1).tolist() == [False, True, True, True]
        assert grad[0].isfinite().all()


Z = torch.randn(4, 6)
(_, TARGET), *_ = loss_targets(4, 6)
IGNORES = MixedTarget(torch.tensor([-100, 1, 2, 3]), torch.arange(4), TARGET.weight, 6)
IGNORES_SEVEN = MixedTarget(*[torch.arange(4)] * 2, TARGET.weight, 6, ignore_index=7)


@pytest.mark.parametrize(
    ("target", "kw", "error", "says"),
    [
        (TARGET, {"weight": torch.rand(5)}, ValueError, "weight: expected a shape that broadcasts"),
        (TARGET, {"weight": torch.rand(1, 4, 6)}, ValueError, "weight: expected a shape"),
        (TARGET, {"pos_weight": torch.rand(4, 1)}, ValueError, "pos_weight: expected one number"),
        (TARGET, {"pos_weight": 2.0}, TypeError, "pos_weight: expected a floating tensor"),
        (TARGET, {"reduction": "avg"}, ValueError, "reduction"),
        (IGNORES_SEVEN, {}, ValueError, "target: expected no ignore_index, got 7"),
        (IGNORES, {}, IndexError, "got -100"),
        (torch.rand(4, 5), {}, ValueError, "target: expected shape"),
        (torch.zeros(4, 6).long(), {}, TypeError, r"use \.float\(\) for a number of each class$"),
        (torch.full((4,), -100), {}, IndexError, "got -100"),
        (3, {}, TypeError, "target: expected a MixedTarget"),
        (torch.rand(4, 6).to_sparse(), {}, TypeError, "target: expected a dense tensor.*to_dense"),
        (TARGET, {"target_threshold": "0.5"}, TypeError, "target_threshold: expected a number"),
        (TARGET, {"target_threshold": torch.rand(2)}, TypeError, "target_threshold: expected a n"),
    ],
)
def test_bad_input_of_the_binary_loss(target, kw, error, says):
    with pytest.raises(error, match=says):
        fm.soft_target_binary_cross_entropy(Z, target, **kw)


def test_binary_loss_of_a_target_that_ignores_no_label():
    given = TARGET.labels, TARGET.partner_labels, TARGET.weight, TARGET.num_classes
    every = MixedTarget(*given, TARGET.label_smoothing, NO_IGNORE)
    got = fm.soft_target_binary_cross_entropy(Z, every)
    assert torch.equal(got, fm.soft_target_binary_cross_entropy(Z, TARGET))
