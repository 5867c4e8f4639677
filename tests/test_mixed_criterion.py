"""mixed_criterion: any criterion for class indices on a mixed batch."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, mixed_criterion

rows_of = partial(F.cross_entropy, reduction="none")


def target_of(shape, classes, ignore_index=None, device="cpu"):
    own, other = torch.randint(0, classes, (2, *shape))
    if ignore_index is not None:
        own[::3], other[::4] = ignore_index, ignore_index
    weight = torch.rand(shape[0], 1)
    weight[1::3], weight[2::5] = 1.0, 0.0
    weight = torch.cat((weight, 1 - weight), 1)
    extra = {} if ignore_index is None else {"ignore_index": ignore_index}
    return MixedTarget(own, other, weight, classes, **extra).to(device)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore_index", [None, -100, 255, 0])
@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (31,), (5, 3), (4, 2, 3)])
def test_cross_entropy_is_soft_target_cross_entropy(device, shape, ignore_index, reduction):
    torch.manual_seed(0)
    z = torch.randn(shape[0], 6, *shape[1:], device=device, requires_grad=True)
    target = target_of(shape, 6, ignore_index, device)
    got = mixed_criterion(rows_of, z, target, reduction)
    want = fm.soft_target_cross_entropy(z, target, reduction=reduction)
    torch.testing.assert_close(got, want, equal_nan=True)
    pair = (torch.autograd.grad(loss.sum(), z)[0] for loss in (got, want))
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.MultiMarginLoss(reduction="none"),
        lambda z, y: F.mse_loss(z.mean(1), y.to(z.dtype), reduction="none"),
        lambda z, y: (1 - z.softmax(1).gather(1, y[:, None])[:, 0]) ** 0.7 / 0.7,
    ],
    ids=["margin", "ordinal", "generalised"],
)
def test_a_criterion_of_any_kind(criterion):
    torch.manual_seed(0)
    z = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    target = target_of((9,), 5)
    w = target.weight.double()
    want = w[:, 0] * criterion(z, target.labels) + w[:, 1] * criterion(z, target.partner_labels)
    torch.testing.assert_close(mixed_criterion(criterion, z, target), want.mean())
    assert torch.autograd.gradcheck(lambda z: mixed_criterion(criterion, z, target), z)


def test_a_label_of_weight_zero_has_no_part():
    """Its infinite loss gives neither NaN nor a gradient, and it is not asked for."""
    z = torch.zeros(2, 3)
    z[:, 1] = -math.inf
    z.requires_grad_()
    target = MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.eye(2), 3)
    seen = []

    def criterion(z, y):
        seen.append(y.tolist())
        return -z.log_softmax(1).gather(1, y[:, None])[:, 0].exp().log()

    loss = mixed_criterion(criterion, z, target)
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))
    assert bool(torch.autograd.grad(loss, z)[0].isfinite().all())
    assert seen == [[0, 2], [0, 2]]


@pytest.mark.parametrize(("lam", "calls"), [(0.3, 2), (1.0, 1), (0.0, 1)])
def test_one_row_of_weights_may_need_one_call(lam, calls):
    labels = torch.arange(4)
    target = MixedTarget.from_labels(labels, MixPlan.uniform(4, "flip", lam), 5)
    z, count = torch.randn(4, 5), []

    def criterion(z, y):
        count.append(y)
        return rows_of(z, y)

    got = mixed_criterion(criterion, z, target)
    torch.testing.assert_close(got, fm.soft_target_cross_entropy(z, target))
    assert len(count) == calls


def test_ignored_labels_do_not_reach_the_criterion():
    target = target_of((12,), 5, -100)
    z = torch.randn(12, 5)

    def criterion(z, y):
        return -z.log_softmax(1).gather(1, y[:, None])[:, 0]  # raises for -100

    got = mixed_criterion(criterion, z, target)
    torch.testing.assert_close(got, fm.soft_target_cross_entropy(z, target))


def test_class_indices_are_taken_too():
    z, labels = torch.randn(5, 4), torch.tensor([0, 1, -100, 3, 3])
    got = mixed_criterion(rows_of, z, labels)
    torch.testing.assert_close(got, F.cross_entropy(z, labels))


def test_losses_in_half_precision_are_weighed_in_float32():
    z, target = torch.randn(50, 4), target_of((50,), 4)
    loss = mixed_criterion(lambda z, y: rows_of(z, y).half(), z, target)
    rows = [rows_of(z, y).half().double() for y in (target.labels, target.partner_labels)]
    want = (target.weight.double() * torch.stack(rows, 1)).sum(1).mean()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)


def test_compiled_whole_and_transformed():
    z, target = torch.randn(6, 4, requires_grad=True), target_of((6,), 4, -100)
    step = torch.compile(
        lambda z, t: mixed_criterion(rows_of, z, t), fullgraph=True, backend="aot_eager"
    )
    want = fm.soft_target_cross_entropy(z, target)
    torch.testing.assert_close(step(z, target), want)
    got = torch.func.grad(lambda z: mixed_criterion(rows_of, z, target))(z.detach())
    torch.testing.assert_close(got, torch.autograd.grad(want, z)[0])


Z, TARGET = torch.randn(4, 6), target_of((4,), 6)
SMOOTHED = MixedTarget(TARGET.labels, TARGET.partner_labels, TARGET.weight, 6, 0.1)
REFUSED = [
    (F.cross_entropy, TARGET, ValueError, r"criterion: .*\[4\], got shape \[\]; give it reduction"),
    (lambda z, y: z, TARGET, ValueError, r"criterion: .*got shape \[4, 6\]; sum or average"),
    (lambda z, y: y, TARGET, TypeError, "criterion: expected it to return floating losses"),
    (lambda z, y: 1.0, TARGET, TypeError, "criterion: expected it to return floating losses"),
    (rows_of, SMOOTHED, ValueError, "target: expected label_smoothing 0, got 0.1; .* smooth in"),
    (rows_of, SMOOTHED.dense(), TypeError, r"target: .* needs no help: criterion\(output, target"),
    (rows_of, TARGET.labels.int(), TypeError, "target: expected a MixedTarget, or int64"),
    (rows_of, [1, 2], TypeError, "target: expected a MixedTarget, or int64"),
]


@pytest.mark.parametrize(("criterion", "target", "error", "message"), REFUSED)
def test_refused(criterion, target, error, message):
    with pytest.raises(error, match=message):
        mixed_criterion(criterion, Z, target)


def test_other_refusals():
    with pytest.raises(ValueError, match="reduction: expected one of"):
        mixed_criterion(rows_of, Z, TARGET, "average")
    target = target_of((4,), 6)
    target.labels[0] = 6
    with pytest.raises(IndexError, match="labels: expected class indices"):
        mixed_criterion(rows_of, Z, target)
