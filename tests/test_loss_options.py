"""Class indices, ignored labels, class weights, gradients of all modes, and ``validate``."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import FLOATS
from loss_options import POSITIONS, compare, ignoring_target

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

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
                compare(fm.soft_target_cross_entropy, F.cross_entropy, z, y, **kw)
    everything = torch.full_like(labels, -100)
    for weight in (None, torch.rand(7, device=device)):
        kw = {"weight": weight, "reduction": reduction}
        compare(fm.soft_target_cross_entropy, F.cross_entropy, z, everything, **kw)


# ------------------------------------------------------------------ ignored labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [-100, 3, 77])
def test_an_ignored_label_drops_its_term(device, ignore_index, smoothing):
    own = torch.tensor([1, ignore_index, 2, ignore_index, ignore_index, 4])
    z = torch.randn(6, 5, device=device, requires_grad=True)
    target = ignoring_target(device, ignore_index)
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
    """Check first and second gradients of logits and dense targets, with class weights."""
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
