"""Class weights, ignored labels, class indices, positions, accuracies and modules."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import FLOATS, loss_targets

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan, ops
from fused_mixup.target import NO_IGNORE

POSITIONS = ((), (5,), (2, 3))


def both(ours, theirs, z, *args, **kw):
    """Losses and gradients close to each other."""
    results = []
    for loss in (ours, theirs):
        leaf = z.detach().requires_grad_()
        value = loss(leaf, *args, **kw)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
    eps = 1e-12 if z.dtype == torch.float64 else 2e-6
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=eps, atol=eps, equal_nan=True)


# ------------------------------------------------------------------ class indices


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_indices_are_those_of_pytorch(device, reduction, positions):
    z = torch.randn(4, 7, *positions, device=device)
    labels = torch.randint(0, 7, (4, *positions), device=device)
    for ignored in (-100, 3, 70):
        y = torch.where(torch.rand(labels.shape, device=device) < 0.3, ignored, labels)
        for weight in (None, torch.rand(7, device=device)):
            for smoothing in (0.0, 0.1):
                kw = {"ignore_index": ignored, "reduction": reduction, "weight": weight}
                kw["label_smoothing"] = smoothing
                both(fm.soft_target_cross_entropy, F.cross_entropy, z, y, **kw)
    everything = torch.full_like(labels, -100)
    for weight in (None, torch.rand(7, device=device)):
        kw = {"weight": weight, "reduction": reduction}
        both(fm.soft_target_cross_entropy, F.cross_entropy, z, everything, **kw)


def test_binary_loss_of_class_indices_is_that_of_one_hot(device):
    z = torch.randn(4, 7, device=device)
    labels = torch.tensor([0, 6, 3, 3], device=device)
    got = fm.soft_target_binary_cross_entropy(z, labels)
    hot = F.one_hot(labels, 7).float()
    torch.testing.assert_close(got, F.binary_cross_entropy_with_logits(z, hot))


# ------------------------------------------------------------------ ignored labels


def ignoring(device, ignore_index=-100):
    #            own, partner: kept; own ignored; partner ignored; both; and with weights of 0
    own = torch.tensor([1, ignore_index, 2, ignore_index, ignore_index, 4])
    other = torch.tensor([0, 3, ignore_index, ignore_index, 3, ignore_index])
    weight = torch.tensor([[0.3, 0.7]] * 4 + [[1.0, 0.0], [0.0, 1.0]])
    return MixedTarget(own, other, weight, 5, 0.1, ignore_index).to(device)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [-100, 3, 77])
def test_an_ignored_label_drops_its_term(device, ignore_index, smoothing):
    own = torch.tensor([1, ignore_index, 2, ignore_index, ignore_index, 4])
    z = torch.randn(6, 5, device=device, requires_grad=True)
    target = ignoring(device, ignore_index)
    rows = fm.soft_target_cross_entropy(z, target, reduction="none", label_smoothing=smoothing)
    kept = torch.zeros(6, 5)
    for i, (a, b) in enumerate(zip(own, target.partner_labels.cpu(), strict=True)):
        for y, w in ((a, target.weight[i, 0]), (b, target.weight[i, 1])):
            if y != ignore_index:
                kept[i] += float(w) * (0.9 * F.one_hot(y, 5) + 0.1 / 5)
    torch.testing.assert_close(target.dense().cpu(), kept)
    expected = F.cross_entropy(z, kept.to(device), reduction="none", label_smoothing=smoothing)
    gone = torch.tensor([False, False, False, True, True, True], device=device)
    if ignore_index == 3:  # the kept label of row 1 is ignored too
        gone[1] = True
    torch.testing.assert_close(rows, torch.where(gone, 0, expected))
    mean = fm.soft_target_cross_entropy(z, target, label_smoothing=smoothing)
    torch.testing.assert_close(mean, rows.sum() / (~gone).sum())
    (grad,) = torch.autograd.grad(mean, z)
    assert torch.equal((grad == 0).all(1), gone)


def test_the_losses_own_ignore_index(device):
    z = torch.randn(4, 5, device=device)
    labels = torch.tensor([0, 1, 2, 3], device=device)
    target = MixedTarget.from_labels(labels, MixPlan.identity(4), 5)
    got = fm.soft_target_cross_entropy(z, target, ignore_index=2)
    both_kept = F.cross_entropy(z, labels, ignore_index=2)
    torch.testing.assert_close(got, both_kept)
    same = MixedTarget.from_labels(labels, MixPlan.identity(4), 5, ignore_index=2)
    for kw in ({}, {"ignore_index": 2}):
        torch.testing.assert_close(fm.soft_target_cross_entropy(z, same, **kw), both_kept)
    assert fm.soft_target_cross_entropy(z, target, ignore_index=0).isfinite()


def test_labels_that_only_the_targets_default_ignores():
    z = torch.randn(4, 5)
    good, ignored = torch.arange(4), torch.tensor([0, -100, 2, 255])
    for labels in ((ignored, good), (good, ignored)):
        target = MixedTarget(*(y.clamp_max(4) for y in labels), torch.full((4, 2), 0.5), 5)
        assert fm.soft_target_cross_entropy(z, target).isfinite()
        with pytest.raises(IndexError, match="or 255, which is ignored, got -100"):
            fm.soft_target_cross_entropy(z, target, ignore_index=255)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_second_order_where_every_row_is_ignored(device, reduction):
    z = torch.randn(3, 5, device=device, requires_grad=True)
    labels = torch.full((3,), -100, device=device)
    target = MixedTarget.from_labels(labels, MixPlan.identity(3), 5)
    loss = fm.soft_target_cross_entropy(z, target, reduction=reduction).sum()
    (first,) = torch.autograd.grad(loss, z, create_graph=True)
    (second,) = torch.autograd.grad((first + 1).square().sum(), z)
    assert (first == 0).all() and (second == 0).all()


def test_bad_numbers_in_ignored_rows_reach_nothing(device):
    z = torch.randn(3, 5, device=device)
    z[1] = math.nan
    z[2] = math.inf
    labels = torch.tensor([1, -100, -100], device=device)
    leaf = z.clone().requires_grad_()
    loss = fm.soft_target_cross_entropy(leaf, labels)
    torch.testing.assert_close(loss, F.cross_entropy(z[:1], labels[:1]))
    (grad,) = torch.autograd.grad(loss, leaf)
    assert grad.isfinite().all() and (grad[1:] == 0).all()


# ------------------------------------------------------------------ class weights


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_class_weights(device, dtype, positions):
    z = torch.randn(4, 7, *positions, device=device).to(dtype)
    dense = torch.rand(4, 7, *positions, device=device)
    weight = torch.rand(7, device=device)
    weight[2] = 0
    labels = torch.randint(0, 7, (4, *positions), device=device)
    target = MixedTarget.from_labels(labels, MixPlan.uniform(4, "flip", 0.3), 7, 0.1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for t in (dense, target):
        for smoothing in (0.0, 0.1):
            for reduction in ("mean", "sum", "none"):
                kw = {"reduction": reduction, "label_smoothing": smoothing}
                soft = (t.dense(wide) if isinstance(t, MixedTarget) else t).to(wide)
                got = fm.soft_target_cross_entropy(z, t, weight=weight, **kw)
                expected = F.cross_entropy(z.to(wide), soft, weight.to(wide), **kw)
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_class_of_weight_zero_drops_its_term(device):
    z = torch.randn(2, 4, device=device)
    z[:, 2] = -math.inf
    dense = torch.full((2, 4), 0.25, device=device)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0], device=device)
    leaf = z.clone().requires_grad_()
    loss = fm.soft_target_cross_entropy(leaf, dense, weight=weight)
    (grad,) = torch.autograd.grad(loss, leaf)
    assert loss.isfinite() and grad.isfinite().all() and (grad[:, 2] == 0).all()


# ------------------------------------------------------------------ gradients


def sparse(z, device):
    labels = torch.randint(0, 5, (3, *z.shape[2:]), device=device)
    labels.view(-1)[0] = -100
    plan = MixPlan.uniform(3, "flip", 0.3)
    return MixedTarget.from_labels(labels, plan, 5, 0.1)


@pytest.mark.parametrize(
    "loss", [fm.soft_target_cross_entropy, fm.soft_target_binary_cross_entropy]
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_in_float64(device, loss, reduction):
    """First and second order, of logits and dense targets, with weights of classes."""
    binary = loss is fm.soft_target_binary_cross_entropy
    for positions in ((), (2,)):
        z = torch.randn(3, 5, *positions, dtype=torch.float64, device=device, requires_grad=True)
        t = torch.rand(z.shape, dtype=torch.float64, device=device, requires_grad=True)
        weight = torch.rand(5, dtype=torch.float64, device=device)
        kw = {"reduction": reduction, "weight": weight}
        if binary:
            shape = [5] + [1] * len(positions)
            kw |= {"weight": weight.view(shape), "pos_weight": 2 * weight.flip(0).view(shape)}
            kw["sum_classes"] = bool(positions)
        else:
            kw["label_smoothing"] = 0.1
        mixed = sparse(z, device) if not binary else sparse(z.detach(), device)
        if binary:
            mixed = MixedTarget(
                mixed.labels.abs() % 5, mixed.partner_labels.abs() % 5, mixed.weight, 5
            )
        assert torch.autograd.gradcheck(lambda z, t=mixed, kw=kw: loss(z, t, **kw), (z,))
        assert torch.autograd.gradgradcheck(lambda z, t=mixed, kw=kw: loss(z, t, **kw), (z,))
        assert torch.autograd.gradcheck(lambda z, t, kw=kw: loss(z, t, **kw), (z, t))
        assert torch.autograd.gradgradcheck(lambda z, t, kw=kw: loss(z, t, **kw), (z, t))


def test_a_threshold_lets_no_gradient_through(device):
    z = torch.randn(3, 5, device=device, requires_grad=True)
    t = torch.rand(3, 5, device=device, requires_grad=True)
    loss = fm.soft_target_binary_cross_entropy(z, t, target_threshold=0.5)
    expected = F.binary_cross_entropy_with_logits(z, (t > 0.5).float())
    torch.testing.assert_close(loss, expected)
    assert (torch.autograd.grad(loss, t)[0] == 0).all()


# ------------------------------------------------------------------ binary cross-entropy


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_the_binary_loss_broadcast(device, reduction):
    z = torch.randn(3, 5, 4, device=device)
    t = torch.rand(3, 5, 4, device=device)
    pos = torch.rand(5, 1, device=device)
    for shape in ((5, 1), (1, 5, 1), (), (1,), (4,), (3, 1, 1), (3, 5, 4), (5, 4)):
        kw = {"weight": torch.rand(shape, device=device), "pos_weight": pos, "reduction": reduction}
        both(fm.soft_target_binary_cross_entropy, F.binary_cross_entropy_with_logits, z, t, **kw)
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
    # As on a GPU, where no check reads them; a threshold turns no NaN into a target of 0.
    z = torch.randn(4, 6, device=device)
    own = torch.tensor([1, 6, 2, -100], device=device)
    other = torch.tensor([0, 1, 2**40, 2], device=device)
    sparse = own, other, torch.rand(4, 2).to(device)
    for threshold in (None, 0.3):
        options = None, None, 0.1, threshold, 2, True
        rows, grad = ops.soft_target_binary_cross_entropy_grad(z, *sparse, *options)
        assert rows.isnan().tolist() == [False, True, True, True]
        assert grad.isnan().all(1).tolist() == [False, True, True, True]
        assert grad[0].isfinite().all()


# ------------------------------------------------------------------ accuracy


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
    target = ignoring(device)  # rows 3, 4 and 5 are ignored
    (got,) = fm.mixed_accuracy(z, target, (1,))
    # Row 0 hits its partner (0.7), row 1 misses, row 2 hits its own, which is all that is kept.
    torch.testing.assert_close(got.cpu(), torch.tensor((0.7 + 0 + 1) / 3))
    _, same = fm.soft_target_cross_entropy(z, target, return_accuracy=True)
    assert torch.equal(got, same)
    nothing = torch.full((6,), -100, device=device)
    assert fm.mixed_accuracy(z, nothing, (1,))[0].isnan()


def test_ties_and_nan(device):
    z = torch.zeros(3, 4, device=device)
    z[2, 3] = math.nan
    labels = torch.tensor([0, 2, 0], device=device)
    for k, hits in ((1, 1), (2, 2), (3, 3)):  # row 2: after the NaN alone
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


# ------------------------------------------------------------------ validate


def test_validate(device):
    z = torch.randn(3, 4, device=device)
    good = torch.rand(3, 4, device=device).softmax(1)
    plan = MixPlan.uniform(3, "flip", 0.3)
    target = MixedTarget.from_labels(torch.arange(3, device=device), plan, 4)
    for loss in (fm.soft_target_cross_entropy, fm.soft_target_binary_cross_entropy):
        for fine in (good, good.bfloat16(), target, torch.arange(3, device=device)):
            logits = z.bfloat16() if fine is not target and fine.dtype == torch.bfloat16 else z
            assert torch.equal(loss(logits, fine, validate=True), loss(logits, fine))
        bad = good.clone()
        bad[1, 2] += 0.5
        with pytest.raises(ValueError, match="a sum of 1.5 .*in row 1"):
            loss(z, bad, validate=True)
        bad[1, 2] = math.nan
        with pytest.raises(ValueError, match="in row 1"):
            loss(z, bad, validate=True)
        negative = good.clone()
        negative[2, 0], negative[2, 1] = -0.5, negative[2, 1] + good[2, 0] + 0.5
        with pytest.raises(ValueError, match="least value of -0.5 in row 2"):
            loss(z, negative, validate=True)
        wrong = MixedTarget(*[target.labels] * 2, torch.tensor([[0.5, 0.6]] * 3), 4).to(device)
        with pytest.raises(ValueError, match="expected weights.*1.1"):
            loss(z, wrong, validate=True)
    positions = good.unsqueeze(2).repeat(1, 1, 2)
    positions[1, 0, 1] = 2
    with pytest.raises(ValueError, match=r"in row \(1, 1\)"):
        fm.soft_target_cross_entropy(positions, positions, validate=True)


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
        (torch.zeros(4, 6).long(), {}, TypeError, "use .long.*float"),
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
    every = replace(TARGET, ignore_index=NO_IGNORE)
    got = fm.soft_target_binary_cross_entropy(Z, every)
    assert torch.equal(got, fm.soft_target_binary_cross_entropy(Z, TARGET))


@pytest.mark.parametrize(
    ("topk", "error"), [((0,), ValueError), ((1.5,), TypeError), (3, TypeError)]
)
def test_bad_topk(topk, error):
    with pytest.raises(error, match="topk"):
        fm.mixed_accuracy(Z, TARGET, topk)
    with pytest.raises(error, match="return_accuracy: expected"):
        fm.soft_target_cross_entropy(Z, TARGET, return_accuracy=topk)
