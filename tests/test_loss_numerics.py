"""soft_target_cross_entropy: extreme logits, rounding, poisoned rows, determinism."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import loss_targets
from loss_truth import ours, truth

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan


def plain(labels, num_classes, device):
    """The one-hot target: λ = 1, no smoothing."""
    plan = MixPlan.identity(len(labels))
    return MixedTarget.from_labels(torch.tensor(labels), plan, num_classes).to(device)


def test_no_mixing_is_the_hard_cross_entropy(device):
    logits = torch.randn(5, 100, device=device)
    labels = [0, 99, 5, 5, 42]
    got = fm.soft_target_cross_entropy(logits, plain(labels, 100, device))
    torch.testing.assert_close(got, F.cross_entropy(logits, torch.tensor(labels, device=device)))


def test_gradient_of_the_true_class_in_bfloat16(device):
    # With p = 0.999 the entry is p - 1, which vanishes if p is rounded first.
    k = 1000
    logits = torch.zeros(1, k, dtype=torch.bfloat16)
    logits[0, 3] = math.log(0.999 / 0.001 * (k - 1))
    target = plain([3], k, device)
    _, grad = ours(logits.to(device), target)
    _, expected = truth(logits, target)
    assert abs(expected[0, 3].item() + 0.001) < 2e-4
    assert abs(grad[0, 3].item() / expected[0, 3].item() - 1) < 0.005


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_logits_far_from_zero(device, shift):
    torch.manual_seed(1)
    base = torch.randn(8, 300, dtype=torch.float64)
    # The shifted logits are exact in float32, so that only the loss can lose digits.
    shifted = ((base * 512).round() / 512 + shift).float()
    for _, target in loss_targets(8, 300, device):
        for t in (target, target.dense()):
            loss, grad = ours(shifted.to(device), t)
            expected, expected_grad = truth(shifted, t)
            assert loss.isfinite() and abs(loss.item() / expected.item() - 1) < 1e-5
            torch.testing.assert_close(grad.cpu().double(), expected_grad, rtol=1e-5, atol=1e-8)


def test_masked_classes(device):
    # A logit of -inf with target 0 has a finite loss and a gradient of 0.
    for k in (10, 5000):
        logits = torch.randn(4, k, device=device)
        logits[:, k // 2 :] = -math.inf
        target = plain([0, 1, 2, 3], k, device)
        kept = F.cross_entropy(logits[:, : k // 2], torch.arange(4, device=device))
        for t in (target, target.dense()):
            loss, grad = ours(logits, t)
            torch.testing.assert_close(loss, kept)
            assert (grad[:, k // 2 :] == 0).all() and grad.isfinite().all()
        first = logits.flip(1).contiguous()  # whole chunks of -inf before the first number
        loss, _ = ours(first, plain([k - 1 - i for i in range(4)], k, device))
        torch.testing.assert_close(loss, kept)
        smoothed = fm.soft_target_cross_entropy(first, target, label_smoothing=0.1)
        assert smoothed.item() == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_reach_the_loss(device, bad):
    for k in (10, 5000):
        for at in (0, k - 1):
            logits = torch.randn(2, k, device=device)
            logits[0, at] = bad
            target = plain([1, 1], k, device)
            for t in (target, target.dense()):
                loss, grad = ours(logits, t, reduction="none")
                assert loss[0].isnan() and loss[1].isfinite()
                assert grad[0].isnan().any() and grad[1].isfinite().all()
    everything = torch.full((1, 6), -math.inf, device=device)
    assert fm.soft_target_cross_entropy(everything, plain([1], 6, device)).isnan()


def test_labels_unseen_by_the_checks_poison_their_row_only(device):
    # On a GPU no check reads labels either: the row becomes NaN, and no read is out of bounds.
    logits = torch.randn(3, 12, device=device)
    target = plain([1, 2, 3], 12, device)
    target.labels.data.copy_(torch.tensor([1, 12, 2**40]))  # PyTorch does not count this write
    loss, grad = ours(logits, target, reduction="none")
    assert loss.isnan().tolist() == [False, True, True]
    assert grad.isnan().all(1).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_error_is_no_larger_than_eager(device, dtype):
    torch.manual_seed(2)
    logits = (torch.randn(64, 1000) * 4).to(dtype).to(device)
    plan = MixPlan.uniform(64, "flip", 0.37)
    target = MixedTarget.from_labels(torch.randint(0, 1000, (64,)), plan, 1000, 0.1).to(device)
    expected, expected_grad = truth(logits, target)
    z = logits.clone().requires_grad_()
    eager = torch.sum(-target.dense() * F.log_softmax(z.float(), -1), -1).mean()
    (eager_grad,) = torch.autograd.grad(eager, z)
    loss, grad = ours(logits, target)
    # The margin is one unit in the last place of the float32 loss.
    assert abs(loss.item() - expected.item()) <= abs(eager.item() - expected.item()) + 1e-6
    error = (grad.cpu().double() - expected_grad).abs().mean()
    eager_error = (eager_grad.cpu().double() - expected_grad).abs().mean()
    assert error <= eager_error * 1.02


def test_deterministic(device):
    logits = torch.randn(257, 1031, device=device)
    (_, target), *_ = loss_targets(257, 1031, device)
    first = ours(logits, target)
    for _ in range(5):
        again = ours(logits, target)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
