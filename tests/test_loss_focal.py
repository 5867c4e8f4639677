"""Focal losses and the z-loss: values and gradients of both losses, on every kind of target."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from focal_truth import close, dense_of, focal, gradient, mixed, reduced

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(0, 5), (1, 7), (2, 33), (3, 1), (5, 6, 3), (2, 19, 3, 5), (65, 100)]
MODES = [{}, {"grad_in_forward": True}, {"inplace_backward": True}]


@pytest.mark.parametrize("mode", MODES, ids=lambda m: next(iter(m), "default"))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_formula(device, dtype, mode):
    torch.manual_seed(0)
    for i, shape in enumerate(SHAPES):
        gamma, z_loss = ((2.0, 0.0), (0.5, 0.1), (0.0, 0.01), (1.0, 0.0))[i % 4]
        z = (torch.randn(shape, device=device) * 3).to(dtype)
        w = torch.rand(shape[1], device=device) if i % 2 else None
        for reduction in ("mean", "sum", "none"):
            target = mixed(shape, device=device)
            options = {"weight": w, "reduction": reduction}
            options |= {"focal_gamma": gamma, "z_loss": z_loss}
            got = gradient(fm.soft_target_cross_entropy, z, target, **options, **mode)
            true = dense_of(target), gamma, z_loss, w, 0.0, reduction
            want = gradient(reduced, z.double(), *true)
            if z.numel():
                close(got, want, dtype)
            assert got[0].shape == want[0].shape and got[1].dtype == dtype


@pytest.mark.parametrize("kind", ["smoothed", "dense", "smoothing on top"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_targets_of_all_classes(device, dtype, kind):
    """With γ these have a focal term in every class; a z-loss alone runs the kernels."""
    torch.manual_seed(0)
    for shape in ((5, 7), (2, 6, 3)):
        z = (torch.randn(shape, device=device) * 3).to(dtype)
        target = mixed(shape, 0.1 if kind == "smoothed" else 0.0, device=device)
        eps = 0.2 if kind == "smoothing on top" else 0.0
        given = target.dense(dtype) if kind == "dense" else target
        t = given if kind == "dense" else dense_of(target)
        for gamma, z_loss in ((2.0, 0.1), (0.5, 0.0), (0.0, 0.1)):
            for mode in MODES:
                options = {"focal_gamma": gamma, "z_loss": z_loss, "label_smoothing": eps, **mode}
                got = gradient(fm.soft_target_cross_entropy, z, given, **options)
                want = gradient(reduced, z.double(), t, gamma, z_loss, None, eps)
                close(got, want, dtype)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.5])
def test_the_loss_of_a_mix_is_the_mix_of_losses(device, gamma):
    torch.manual_seed(0)
    z = torch.randn(6, 9, dtype=torch.float64, device=device)
    target = mixed((6, 9), device=device)
    w = target.weight.double()
    options = {"focal_gamma": gamma, "reduction": "none"}
    parts = [
        fm.soft_target_cross_entropy(z, y, **options)
        for y in (target.labels, target.partner_labels)
    ]
    got = fm.soft_target_cross_entropy(z, target, **options)
    torch.testing.assert_close(got, w[:, 0] * parts[0] + w[:, 1] * parts[1])
    parts = [
        fm.soft_target_binary_cross_entropy(z, y, **options)
        for y in (target.labels, target.partner_labels)
    ]
    got = fm.soft_target_binary_cross_entropy(z, target, **options)
    torch.testing.assert_close(got, w[:, :1] * parts[0] + w[:, 1:] * parts[1])


def test_z_loss_is_that_of_palm(device):
    z = torch.randn(5, 8, device=device) * 5
    labels = torch.randint(0, 8, (5,), device=device)
    got = gradient(lambda x: fm.soft_target_cross_entropy(x, labels, z_loss=1e-2), z)
    want = gradient(lambda x: F.cross_entropy(x, labels) + 1e-2 * x.logsumexp(1).square().mean(), z)
    torch.testing.assert_close(got, want)


def test_rows_that_are_ignored_have_no_z_loss(device):
    torch.manual_seed(0)
    z = torch.randn(12, 5, device=device)
    z[0] = math.nan  # both labels of row 0 are ignored
    target = mixed((12, 5), ignored=True, device=device)
    kept = ~((target.labels == -100) & (target.partner_labels == -100))
    for gamma in (0.0, 1.5):
        options = {"focal_gamma": gamma, "z_loss": 0.1}
        rows = fm.soft_target_cross_entropy(z, target, reduction="none", **options)
        loss, grad = gradient(fm.soft_target_cross_entropy, z, target, **options)
        assert bool((rows[~kept] == 0).all()) and bool((grad[~kept] == 0).all())
        assert bool(rows.isfinite().all())
        counted = (rows != 0).sum()  # a kept label may have weight 0 beside an ignored one
        torch.testing.assert_close(loss, rows.sum() / counted)


def test_class_indices_with_class_weights_divide_by_their_sum(device):
    z = torch.randn(6, 5, device=device)
    labels = torch.tensor([0, 1, 2, -100, 4, 4], device=device)
    w = torch.rand(5, device=device) + 0.5
    options = {"weight": w, "focal_gamma": 2.0, "z_loss": 0.1}
    rows = fm.soft_target_cross_entropy(z, labels, reduction="none", **options)
    want = rows.sum() / w[labels[labels >= 0]].sum()
    torch.testing.assert_close(fm.soft_target_cross_entropy(z, labels, **options), want)


def test_extreme_logits(device):
    """A sure class, one that underflows, a masked one without target, logits far from zero."""
    z = torch.tensor([[80.0, -80, 0], [1e4, -1e4, 0], [0, -math.inf, 3], [-1e4, -1e4, -1e4 + 2]])
    z = z.to(device)
    labels, other = (
        torch.tensor([0, 1, 0, 2], device=device),
        torch.tensor([0, 0, 1, 1], device=device),
    )
    weight = torch.tensor([[0.5, 0.5], [0.3, 0.7], [1.0, 0.0], [0.4, 0.6]], device=device)
    target = MixedTarget(labels, other, weight, 3)
    dense = target.dense()
    for gamma in (0.5, 1.0, 2.0):
        for given in (target, dense):

            def loss(x, given=given, gamma=gamma):
                return fm.soft_target_cross_entropy(x, given, focal_gamma=gamma, reduction="none")

            rows, grad = gradient(loss, z)
            assert bool(rows.isfinite().all()) and bool(grad.isfinite().all())
            close((rows,), (focal(z, dense, gamma, 0.0),), torch.float32)
            assert rows[0] == 0 and bool((grad[0] == 0).all())  # p = 1
            torch.testing.assert_close(grad.sum(1), torch.zeros(4, device=device))


def test_accuracy_comes_from_the_same_sweep(device):
    torch.manual_seed(0)
    z = torch.randn(40, 6, device=device)
    for target in (mixed((40, 6), device=device), mixed((40, 6), 0.1, device=device)):
        options = {"focal_gamma": 2.0, "z_loss": 0.1}
        loss, top1 = fm.soft_target_cross_entropy(z, target, return_accuracy=True, **options)
        assert top1 == fm.mixed_accuracy(z, target, (1,))[0]
        torch.testing.assert_close(loss, fm.soft_target_cross_entropy(z, target, **options))


def test_uniform_plans_reach_the_kernels_by_value(device):
    z = torch.randn(8, 10, device=device)
    labels = torch.arange(8, device=device)
    for lam in (0.3, 1.0):
        target = MixedTarget.from_labels(labels, MixPlan.uniform(8, "flip", lam), 10)
        got = fm.soft_target_cross_entropy(z, target, focal_gamma=2.0)
        want = focal(z, dense_of(target), 2.0, 0.0).mean()
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ binary


def sigmoid_focal(x, t, gamma, alpha):
    """The formula of torchvision.ops.sigmoid_focal_loss, for hard targets."""
    p = x.sigmoid()
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    return (alpha * t + (1 - alpha) * (1 - t)) * ce * (1 - p_t) ** gamma


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hard_targets_give_the_loss_of_torchvision(device, dtype, gamma):
    torch.manual_seed(0)
    alpha = 0.25
    for shape in ((0, 3), (1, 1), (5, 7), (3, 33, 5), (2, 130)):
        z = (torch.randn(shape, device=device) * 3).to(dtype)
        t = (torch.rand(shape, device=device) < 0.3).to(dtype)
        per_class = [shape[1], *[1] * (len(shape) - 2)]
        weight = torch.full(per_class, 1 - alpha, dtype=torch.float64, device=device)
        options = {"weight": weight, "pos_weight": weight * 0 + alpha / (1 - alpha)}
        for mode in MODES:
            given = {**options, "focal_gamma": gamma, "reduction": "sum", **mode}
            got = gradient(fm.soft_target_binary_cross_entropy, z, t, **given)
            want = gradient(sigmoid_focal, z.double(), t.double(), gamma, alpha)
            close((got[1],), (want[1],), dtype)
            torch.testing.assert_close(got[0].double(), want[0].sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("sum_classes", [False, True])
def test_binary_options(device, sum_classes, reduction):
    torch.manual_seed(0)
    z = torch.randn(4, 37, 2, device=device)
    target = mixed((4, 37, 2), 0.1, device=device)
    w, q = torch.rand(37, 1, device=device), torch.rand(37, 1, device=device) * 2
    for weight in (w, torch.rand(4, 1, 2, device=device)):
        for threshold in (None, 0.2):
            options = {"weight": weight, "pos_weight": q, "target_threshold": threshold}
            options |= {"sum_classes": sum_classes, "reduction": reduction}

            def by_hand(x, weight=weight, threshold=threshold):
                t = dense_of(target)
                t = t if threshold is None else (t > threshold).double()
                p, s = x.sigmoid(), F.logsigmoid
                each = q * t * (1 - p) ** 1.5 * -s(x) + (1 - t) * p**1.5 * -s(-x)
                each = weight * each
                each = each.sum(1) if sum_classes else each
                return each.mean() if reduction == "mean" else each

            options["focal_gamma"] = 1.5
            got = gradient(fm.soft_target_binary_cross_entropy, z, target, **options)
            close(got, gradient(by_hand, z.double()), torch.float32)


def test_binary_extremes_and_one_logit(device):
    z = torch.tensor([-300.0, -90.0, -1e4, 0.0, 90.0, 1e4], device=device)
    for t in (0.0, 0.3, 1.0):
        target = torch.full_like(z, t)
        options = {"focal_gamma": 0.5, "reduction": "none"}
        loss, grad = gradient(fm.soft_target_binary_cross_entropy, z, target, **options)
        s, other = F.softplus(-z.double()), F.softplus(z.double())
        want = t * (-0.5 * other).exp() * s + (1 - t) * (-0.5 * s).exp() * other
        torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-30)
        assert bool(grad.isfinite().all())
