"""soft_target_cross_entropy: values, gradients, memory and refusals."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import FLOATS, loss_targets, values
from loss_truth import ours, truth

import fused_mixup as fm
from fused_mixup import MixedTarget

# 1 and 2: degenerate; 5 and 33: partial vectors; 1000: ImageNet; 2048+1 and 5000: several chunks.
CLASSES = (1, 2, 5, 33, 1000, 2049, 5000)


def check(logits, target, **kw):
    dtype = logits.dtype
    loss, grad = ours(logits, target, **kw)
    expected, expected_grad = truth(logits, target, **kw)
    wide = torch.float64 in (dtype, getattr(target, "dtype", None))
    assert loss.dtype == (torch.float64 if wide else torch.float32)
    assert grad.dtype == dtype and grad.shape == logits.shape
    k = logits.shape[1]
    # Several accumulators sum K float32 terms; float64 targets have float32 weights.
    eps = 1e-13 if dtype == torch.float64 else 6e-7
    size = expected.abs() + math.log(k) + 1
    assert ((loss.cpu().double() - expected).abs() <= eps * 4 * size).all()
    scale = 1 / logits.shape[0] if kw.get("reduction", "mean") == "mean" else 1.0
    bound = torch.finfo(dtype).eps / 2 * expected_grad.abs() + eps * 2 * scale
    if dtype == torch.float16:
        bound = bound + 6e-8  # half a denormal of float16
    assert ((grad.cpu().double() - expected_grad).abs() <= bound * 1.01).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("num_classes", CLASSES)
def test_sparse_target(device, dtype, num_classes):
    batch_size = 7 if num_classes > 1000 else 33
    logits = (values((batch_size, num_classes), dtype) * 3).to(device)
    for _, target in loss_targets(batch_size, num_classes, device):
        for reduction in ("mean", "sum", "none"):
            for smoothing in (0.0, 0.1):
                check(logits, target, reduction=reduction, label_smoothing=smoothing)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("num_classes", CLASSES)
def test_dense_target(device, dtype, num_classes):
    batch_size = 7
    logits = (values((batch_size, num_classes), dtype) * 3).to(device)
    dense = torch.rand(batch_size, num_classes)
    dense[dense < 0.3] = 0
    dense /= num_classes
    for target_dtype in FLOATS:
        for reduction in ("mean", "sum", "none"):
            for smoothing in (0.0, 0.1):
                target = dense.to(target_dtype).to(device)
                check(logits, target, reduction=reduction, label_smoothing=smoothing)


@pytest.mark.parametrize("batch_size", [0, 1, 2, 3, 64, 1000])
def test_batch_sizes(device, batch_size):
    logits = torch.randn(batch_size, 10, device=device)
    for _, target in loss_targets(batch_size, 10, device):
        for reduction in ("sum", "none"):
            check(logits, target, reduction=reduction)
        if batch_size:
            check(logits, target)
        else:
            assert fm.soft_target_cross_entropy(logits, target).isnan()  # as PyTorch's empty mean


def test_views_of_logits(device):
    base = torch.randn(9, 50, device=device)
    for _, target in loss_targets(8, 37, device):
        for view in (
            base[1:, 5:42],
            base[:8, 13:],
            torch.randn(37, 8, device=device).t(),
            torch.randn(8, 74, device=device)[:, ::2],
            torch.randn(1, 37, device=device).expand(8, 37),
        ):
            check(view, target)
            check(view, target.dense())


def test_gradients_in_float64(device):
    # Small, as the time of a check grows with the square of the number of elements.
    z = torch.randn(4, 3, dtype=torch.float64, device=device, requires_grad=True)
    for _, target in loss_targets(4, 3, device):
        for reduction in ("mean", "sum", "none"):

            def loss(t, y=target, r=reduction):
                return fm.soft_target_cross_entropy(t, y, reduction=r, label_smoothing=0.1)

            assert torch.autograd.gradcheck(loss, z)
            assert torch.autograd.gradgradcheck(loss, z)


def test_gradients_of_a_dense_target(device):
    z = torch.randn(2, 4, dtype=torch.float64, device=device, requires_grad=True)
    t = torch.rand(2, 4, dtype=torch.float64, device=device, requires_grad=True)
    for reduction in ("mean", "sum", "none"):

        def loss(z, t, r=reduction):
            return fm.soft_target_cross_entropy(z, t, reduction=r, label_smoothing=0.2)

        assert torch.autograd.gradcheck(loss, (z, t))
        assert torch.autograd.gradgradcheck(loss, (z, t))


def test_upstream_gradients(device):
    z = torch.randn(6, 11, device=device, requires_grad=True)
    (_, target), *_ = loss_targets(6, 11, device)
    upstream = torch.randn(6, device=device)
    rows = fm.soft_target_cross_entropy(z, target, reduction="none")
    (got,) = torch.autograd.grad(rows, z, upstream)
    rows = F.cross_entropy(z, target.dense(), reduction="none")
    (expected,) = torch.autograd.grad(rows, z, upstream)
    torch.testing.assert_close(got, expected)
    one = fm.soft_target_cross_entropy(z, target, reduction="none")
    (got,) = torch.autograd.grad(one, z, upstream[:1].expand(6))
    torch.testing.assert_close(
        got,
        torch.autograd.grad(
            F.cross_entropy(z, target.dense(), reduction="none"), z, upstream[:1].expand(6)
        )[0],
    )


# ------------------------------------------------------------------ memory


def test_no_dense_target_is_ever_allocated(extra_memory):
    if fm.backends.chosen("CPU") != "native":
        pytest.skip(
            "the reference builds a dense target: "
            + str(fm.backends.reason_unavailable("native", "CPU"))
        )
    logits = torch.randn(64, 10_000)
    (_, target), *_ = loss_targets(64, 10_000)
    size = 64 * 10_000 * 4
    assert extra_memory(lambda: fm.soft_target_cross_entropy(logits, target)) < 64 * 1024
    assert extra_memory(lambda: F.cross_entropy(logits, target.dense())) > 2 * size
    z = logits.requires_grad_()

    def both():
        torch.autograd.grad(fm.soft_target_cross_entropy(z, target), z)

    assert size <= extra_memory(both) < size + 64 * 1024  # the gradient itself


# ------------------------------------------------------------------ bad input

Z = torch.randn(4, 6)
(_, TARGET), *_ = loss_targets(4, 6)
(_, OTHER_K), *_ = loss_targets(4, 7)
(_, OTHER_B), *_ = loss_targets(5, 6)
IGNORES_SEVEN = MixedTarget(*[torch.arange(4)] * 2, TARGET.weight, 6, ignore_index=7)


@pytest.mark.parametrize(
    ("logits", "target", "kw", "error", "says"),
    [
        (Z.long(), TARGET, {}, TypeError, "logits: expected a floating"),
        ([1.0], TARGET, {}, TypeError, "logits"),
        (Z[0], TARGET, {}, ValueError, r"logits: expected shape \[B, K, …\]"),
        (Z.to_sparse(), TARGET, {}, TypeError, "to_dense"),
        (torch.randn(4, 6, *[1] * 12), TARGET, {}, ValueError, "flatten some"),
        (torch.randn(4, 6, 2), TARGET, {}, ValueError, r"labels of shape \[4, 2\]"),
        (torch.empty(4, 0), TARGET, {}, ValueError, "K >= 1"),
        (Z, OTHER_K, {}, ValueError, "num_classes 6"),
        (Z, OTHER_B, {}, ValueError, "labels of shape"),
        (Z, torch.arange(4).int(), {}, TypeError, "use .long"),
        (Z, torch.arange(5), {}, ValueError, r"target: expected class indices of shape \[4\]"),
        (Z, torch.arange(4) + 3, {}, IndexError, "got 6"),
        (Z, torch.arange(4) - 1, {}, IndexError, "or -100, which is ignored, got -1"),
        (Z, torch.arange(4).to("meta"), {}, ValueError, "target: expected it on cpu"),
        (Z, torch.rand(4, 7), {}, ValueError, "target: expected shape"),
        (Z, 3, {}, TypeError, "target: expected a MixedTarget"),
        (Z, TARGET, {"reduction": "avg"}, ValueError, "reduction"),
        (Z, TARGET, {"label_smoothing": 2.0}, ValueError, "label_smoothing"),
        (Z, TARGET.to("meta"), {}, ValueError, "use target.to"),
        (Z, torch.rand(4, 6, device="meta"), {}, ValueError, "target: expected it on cpu"),
        (Z, TARGET, {"weight": torch.rand(5)}, ValueError, r"weight: expected shape \[6\]"),
        (Z, TARGET, {"weight": [1.0] * 6}, TypeError, "weight: expected a floating"),
        (Z, TARGET, {"weight": torch.rand(6, device="meta")}, ValueError, "weight: expected it on"),
        (Z, TARGET, {"weight": torch.rand(6, requires_grad=True)}, ValueError, "no gradient"),
        (Z, TARGET.dense(), {"ignore_index": 3}, ValueError, "ignore_index: expected none"),
        (Z, TARGET, {"ignore_index": 0.5}, TypeError, "ignore_index: expected an int"),
        (Z, IGNORES_SEVEN, {"ignore_index": 3}, ValueError, "ignore_index: expected 7"),
        (Z, TARGET, {"return_accuracy": (0,)}, ValueError, "return_accuracy"),
    ],
)
def test_bad_input(logits, target, kw, error, says):
    with pytest.raises(error, match=says):
        fm.soft_target_cross_entropy(logits, target, **kw)
