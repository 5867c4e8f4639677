"""The losses of ``fused_mixup.timm`` against those of the timm that is installed."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS
from peers import timm

from fused_mixup import MixedTarget, MixPlan
from fused_mixup.timm import (
    BinaryCrossEntropy,
    LabelSmoothingCrossEntropy,
    Mixup,
    SoftTargetCrossEntropy,
)

theirs = timm.loss
HALF = (torch.float16, torch.bfloat16)


def loss_and_gradient(loss, x, *target):
    x = x.clone().requires_grad_()
    value = loss(x, *target)
    value.sum().backward()
    return value.detach(), x.grad


def check_close(their_loss, our_loss, x, target):
    """Check dtype and values: floats to rounding, half types no further from the truth.

    The truth is timm's result in float64.
    """
    their_value, their_grad = loss_and_gradient(their_loss, x, target)
    value, grad = loss_and_gradient(our_loss, x, target)
    assert (value.dtype, value.shape) == (their_value.dtype, their_value.shape)
    assert grad.dtype == x.dtype
    wide = target.double() if target.is_floating_point() else target
    exact, exact_grad = loss_and_gradient(their_loss, x.double(), wide)
    # The bound is one rounding of the result, or float32's rounding of the steps.
    eps = max(torch.finfo(value.dtype).eps, 2e-6 if x.dtype != torch.float64 else 1e-12)
    torch.testing.assert_close(value.double(), exact, rtol=2 * eps, atol=2 * eps)
    grad_eps = max(torch.finfo(x.dtype).eps, eps)
    scale = float(exact_grad.abs().max())
    torch.testing.assert_close(grad.double(), exact_grad, rtol=grad_eps, atol=grad_eps * scale)
    if x.dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(value, their_value, rtol=2 * eps, atol=2 * eps)
        torch.testing.assert_close(grad, their_grad, rtol=2 * eps, atol=2 * eps)


def soft(*shape):
    return torch.rand(*shape).softmax(-1)


# ------------------------------------------------------------------ soft targets


@pytest.mark.parametrize("shape", [(7,), (4, 7), (1, 1), (3, 5, 7), (2, 3, 2, 33)])
@pytest.mark.parametrize("target_dtype", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_soft_target(dtype, target_dtype, shape):
    x, target = (3 * torch.randn(shape)).to(dtype), soft(*shape).to(target_dtype)
    check_close(theirs.SoftTargetCrossEntropy(), SoftTargetCrossEntropy(), x, target)


def test_soft_target_broadcasts_and_takes_integers():
    x = torch.randn(2, 4, 7)
    ours, loss = SoftTargetCrossEntropy(), theirs.SoftTargetCrossEntropy()
    for target in (soft(7), soft(4, 7), soft(2, 1, 7), torch.randint(0, 2, (2, 4, 7))):
        check_close(loss, ours, x, target)
    check_close(loss, ours, torch.randn(4, 7), soft(3, 4, 7))


def test_gradient_reaches_the_target():
    x, target = torch.randn(4, 7), soft(4, 7)
    grads = []
    for loss in (theirs.SoftTargetCrossEntropy(), SoftTargetCrossEntropy()):
        leaf = target.clone().requires_grad_()
        loss(x, leaf).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("positions", [(), (5,), (2, 3)])
def test_mixed_targets_are_their_dense_ones(positions, smoothing, mode):
    """Every loss takes a MixedTarget with labels [B, …] for logits [B, …, C]."""
    labels = torch.randint(0, 7, (4, *positions))
    lam = torch.rand(4)
    plan = MixPlan.uniform(4, "flip", 0.3) if mode == "batch" else MixPlan.per_sample(lam, "flip")
    target = MixedTarget.from_labels(labels, plan, 7, smoothing)
    dense = target.dense().movedim(1, -1)
    x = torch.randn(4, *positions, 7)
    losses = [SoftTargetCrossEntropy(), LabelSmoothingCrossEntropy(0.2)]
    if not positions:
        losses += [BinaryCrossEntropy(), BinaryCrossEntropy(target_threshold=0.2, sum_classes=True)]
    for loss in losses:
        value, grad = loss_and_gradient(loss, x, target)
        dense_value, dense_grad = loss_and_gradient(loss, x, dense)
        torch.testing.assert_close(value, dense_value, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(grad, dense_grad, rtol=2e-6, atol=2e-7)
        assert value.dtype == dense_value.dtype


def test_half_logits_with_a_mixed_target_give_float32():
    """timm's loss gives float32 too, as its dense targets are float32."""
    target = Mixup(num_classes=7, sparse_targets=True)(torch.randn(4, 3), torch.arange(4))[1]
    for dtype in HALF:
        assert SoftTargetCrossEntropy()(torch.randn(4, 7).to(dtype), target).dtype == torch.float32


# ------------------------------------------------------------------ class indices


@pytest.mark.parametrize("label_dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("dtype", FLOATS)
def test_label_smoothing(dtype, smoothing, label_dtype):
    x = (3 * torch.randn(6, 11)).to(dtype)
    labels = torch.randint(0, 11, (6,), dtype=label_dtype)
    arguments = () if smoothing == 0.1 else (smoothing,)
    ours = LabelSmoothingCrossEntropy(*arguments)
    loss = theirs.LabelSmoothingCrossEntropy(*arguments)
    check_close(loss, ours, x, labels)
    assert (ours.smoothing, ours.confidence) == (loss.smoothing, loss.confidence)


def test_label_smoothing_of_many_positions():
    """timm's loss is wrong here; ours is the mean over all rows, each as in a separate batch."""
    x, labels = torch.randn(4, 5, 7), torch.randint(0, 7, (4, 5))
    flat = theirs.LabelSmoothingCrossEntropy()(x.view(20, 7), labels.view(20))
    torch.testing.assert_close(LabelSmoothingCrossEntropy()(x, labels), flat)


# ------------------------------------------------------------------ binary cross-entropy

BCE = [
    {},
    {"smoothing": 0.0},
    {"target_threshold": 0.2},
    {"reduction": "sum"},
    {"reduction": "none", "smooth_dense": True},
    {"sum_classes": True, "reduction": "none"},
    {"weight": torch.rand(7), "pos_weight": 2.0},
    {"pos_weight": torch.rand(7), "smooth_dense": True, "smoothing": 0.3},
]


@pytest.mark.parametrize("arguments", BCE)
@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_cross_entropy(dtype, arguments):
    """Values, gradients, attributes and buffers equal timm's bit for bit."""
    loss, ours = theirs.BinaryCrossEntropy(**arguments), BinaryCrossEntropy(**arguments)
    x = torch.randn(4, 7).to(dtype)
    for target in (torch.randint(0, 7, (4,)), soft(4, 7), soft(4, 7).to(dtype)):
        for a, b in zip(
            loss_and_gradient(loss, x, target), loss_and_gradient(ours, x, target), strict=True
        ):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
    assert list(ours.state_dict()) == list(loss.state_dict())
    for name in ("smoothing", "target_threshold", "reduction", "sum_classes", "smooth_dense"):
        assert getattr(ours, name) == getattr(loss, name)


def test_binary_cross_entropy_of_many_positions():
    x, target = torch.randn(4, 5, 7), soft(4, 5, 7)
    assert torch.equal(BinaryCrossEntropy()(x, target), theirs.BinaryCrossEntropy()(x, target))


# ------------------------------------------------------------------ autocast, bad input


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["SoftTargetCrossEntropy", "LabelSmoothingCrossEntropy"])
def test_autocast(name):
    """The CPU's autocast runs log_softmax in bfloat16, a GPU's in float32."""
    x = torch.randn(4, 7, dtype=torch.bfloat16)
    target = soft(4, 7).bfloat16() if name.startswith("Soft") else torch.arange(4)
    expected, ours = getattr(theirs, name)(), globals()[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a, b = expected(x, target), ours(x, target)
    assert a.dtype == b.dtype
    torch.testing.assert_close(a, b, rtol=2**-8, atol=0)
    if torch.cuda.is_available():
        x, target = x.cuda(), target.cuda()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            a, b = expected(x, target), ours(x, target)
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


X, INDICES = torch.randn(4, 7), torch.arange(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SoftTargetCrossEntropy()(X, INDICES), TypeError, "target"),
        (lambda: SoftTargetCrossEntropy()(X, soft(4, 6)), ValueError, "target"),
        (lambda: LabelSmoothingCrossEntropy(1.0), AssertionError, "smoothing"),
        (lambda: LabelSmoothingCrossEntropy()(X, INDICES[:2]), ValueError, "target"),
        (lambda: LabelSmoothingCrossEntropy()(X, INDICES + 5), IndexError, "labels"),
        (lambda: BinaryCrossEntropy(-0.1), AssertionError, "smoothing"),
        (lambda: BinaryCrossEntropy(reduction="max"), ValueError, "reduction"),
        (lambda: BinaryCrossEntropy()(X, INDICES[:2]), AssertionError, "target"),
        (lambda: BinaryCrossEntropy()(X, soft(4, 6)), ValueError, "target"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_mixed_target_of_other_positions_is_refused():
    target = MixedTarget.from_labels(torch.zeros(4, 5).long(), MixPlan.identity(4), 7)
    with pytest.raises(ValueError, match="target: expected labels"):
        SoftTargetCrossEntropy()(torch.randn(4, 6, 7), target)
