"""Ours take the inputs that PyTorch's losses take, or refuse them and name the remedy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

bce, theirs = fm.soft_target_binary_cross_entropy, F.binary_cross_entropy_with_logits
LABELS = torch.tensor([0, 1, 0, 0, 1, 1])
MODES = ({}, {"grad_in_forward": True}, {"inplace_backward": True})


def mixed(num_classes=2, labels=LABELS, smoothing=0.1):
    return MixedTarget.from_labels(
        labels, MixPlan.uniform(len(labels), "flip", 0.3), num_classes, smoothing
    )


# ------------------------------------------------------------------ one logit for two classes


def one_logit():
    """Logits, our target, and the dense one that PyTorch's loss takes."""
    z = torch.randn(6, 1)
    target = mixed()
    present = LABELS.float()
    yield z, LABELS, present[:, None]
    yield z, present[:, None], present[:, None]
    yield z, target, target.dense()[:, 1:]
    yield z[:, 0], LABELS, present
    yield z[:, 0], present, present
    yield z[:, 0], target, target.dense()[:, 1]
    maps = torch.randint(0, 2, (2, 3, 4))
    yield torch.randn(2, 1, 3, 4), maps, maps[:, None].float()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_one_logit_a_row(device, reduction, mode):
    weights = {}, {"pos_weight": torch.tensor([2.0])}, {"weight": torch.tensor(0.5)}
    for z, target, dense in one_logit():
        rows = torch.rand(z.shape)
        for kw in (*weights, {"weight": rows}):
            module = fm.SoftTargetBinaryCrossEntropy(**kw, reduction=reduction, **mode)
            leaf, other = (z.clone().requires_grad_() for _ in range(2))
            right = theirs(other, dense, reduction=reduction, **kw)
            loss = bce(leaf * 1, target, reduction=reduction, **kw, **mode)
            assert loss.shape == right.shape
            torch.testing.assert_close(loss, right)
            torch.testing.assert_close(module(leaf * 1, target), right)
            (got,) = torch.autograd.grad(loss.sum(), leaf)
            (expected,) = torch.autograd.grad(right.sum(), other)
            torch.testing.assert_close(got, expected)


def test_one_logit_with_other_options():
    z, target = torch.randn(6, 1), mixed()
    cut = (target.dense()[:, 1:] > 0.5).float()
    torch.testing.assert_close(bce(z, target, target_threshold=0.5), theirs(z, cut))
    for logits in (z, z[:, 0]):
        rows = bce(logits, LABELS, sum_classes=True, reduction="none")
        torch.testing.assert_close(rows, theirs(z[:, 0], LABELS.float(), reduction="none"))
    bce(z, LABELS[:, None].float(), validate=True)
    with pytest.raises(ValueError, match="at most one"):
        bce(z, 2.0 * LABELS[:, None], validate=True)
    compiled = torch.compile(
        lambda z: bce(z, LABELS) + bce(z[:, 0], target), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(z), bce(z, LABELS) + bce(z[:, 0], target))


@pytest.mark.parametrize(
    ("logits", "target", "error", "says"),
    [
        # With one class, class 0 would be "present" in every row.
        ((6, 1), mixed(1, LABELS * 0), ValueError, "expected num_classes 2 for one logit"),
        ((6, 1), mixed(3), ValueError, "expected num_classes 2 for one logit"),
        ((6, 1), LABELS + 1, IndexError, r"\[0, 2\), got 2"),
        ((6,), LABELS - 1, IndexError, r"\[0, 2\), got -1"),
        ((6, 1), LABELS.float(), ValueError, r"use \.unsqueeze\(1\)$"),
        ((6,), LABELS.float()[:, None], ValueError, r"use \.squeeze\(1\)$"),
        ((6, 1), LABELS[:, None], TypeError, r"use \.float\(\)"),
        ((6, 1), LABELS.bool(), TypeError, r"use \.long\(\)"),
        ((), torch.tensor(1.0), ValueError, "logits: expected shape"),
    ],
)
def test_one_logit_refused(logits, target, error, says):
    with pytest.raises(error, match=says):
        bce(torch.zeros(logits), target)


def test_logits_of_one_dim_that_are_a_leaf_are_not_written():
    leaf = torch.randn(6, 1)[:, 0].requires_grad_()
    with pytest.raises(ValueError, match="got a leaf"):
        bce(leaf, LABELS, inplace_backward=True)


# ------------------------------------------------------------------ remedies

Z, Y = torch.randn(4, 5), torch.arange(4)
HOT = F.one_hot(Y, 5)
LOSSES = {
    "cross-entropy": lambda t: fm.soft_target_cross_entropy(Z, t),
    "binary": lambda t: bce(Z, t),
    "accuracy": lambda t: fm.mixed_accuracy(Z, t),
    "linear": lambda t: fm.linear_soft_target_cross_entropy(Z, torch.eye(5), None, t),
}


@pytest.mark.parametrize(
    ("name", "target", "must", "never"),
    [
        *((name, HOT, ".float()", ".long()") for name in LOSSES),
        ("cross-entropy", HOT, ".argmax(1)", "squeeze"),
        ("binary", HOT.bool(), ".float()", ".argmax"),
        ("cross-entropy", HOT.byte(), ".float()", ".long()"),
        ("cross-entropy", Y.int(), ".long()", ".float()"),
        ("binary", Y.int(), ".long()", ".float()"),
        ("cross-entropy", Y.bool(), ".long()", ".float()"),
        ("cross-entropy", Y[:, None], ".squeeze(1)", ".long()"),
        ("binary", Y[:, None], ".squeeze(1)", ".float()"),
        ("cross-entropy", Y[:, None].int(), ".squeeze(1).long()", ".float()"),
        ("cross-entropy", Y.float(), ".long()", ".float()"),
        ("accuracy", Y.float()[:, None], ".squeeze(1).long()", ".float()"),
        ("binary", HOT.to(torch.complex64), "complex64", ".float()"),
        ("linear", Y.int(), ".long()", ".float()"),
    ],
)
def test_the_remedy_fits_the_mistake(name, target, must, never):
    with pytest.raises((TypeError, ValueError)) as caught:
        LOSSES[name](target)
    text = str(caught.value)
    assert must in text and never not in text


def test_no_message_prints_data():
    many = torch.rand(300)
    for call in (
        lambda: fm.SoftTargetBinaryCrossEntropy(many[:5], many),  # PyTorch's deprecated argument
        lambda: fm.soft_target_cross_entropy(Z, Y, reduction=many),
        lambda: fm.soft_target_cross_entropy(Z, Y, label_smoothing=many),
        lambda: fm.soft_target_cross_entropy(Z, Y, ignore_index=many),
        lambda: bce(Z, Y, target_threshold=many),
        lambda: fm.mixed_accuracy(Z, Y, many),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert len(str(caught.value)) < 200


def test_nested_logits():
    ragged = torch.nested.nested_tensor([torch.rand(5), torch.rand(3)])
    for call in (fm.soft_target_cross_entropy, bce, fm.mixed_accuracy):
        with pytest.raises(TypeError, match="nested"):
            call(ragged, Y[:2])


# ------------------------------------------------------------------ dtypes and defaults


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_float64_target_makes_a_float64_loss(dtype):
    z, t = Z.to(dtype), torch.rand(4, 5, dtype=torch.float64)
    w = torch.eye(5, dtype=dtype)
    for reduction in ("mean", "none"):
        for ours, right in (
            (fm.soft_target_cross_entropy, F.cross_entropy),
            (bce, theirs),
            (lambda z, t, **kw: fm.linear_soft_target_cross_entropy(z, w, None, t, **kw),) * 2,
        ):
            got = ours(z, t, reduction=reduction)
            assert got.dtype == right(z, t, reduction=reduction).dtype == torch.float64
            narrow = ours(z, t.float(), reduction=reduction)
            assert narrow.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            torch.testing.assert_close(got, narrow.double())
    t.requires_grad_()
    fm.soft_target_cross_entropy(z, t).backward()
    assert t.grad.dtype == torch.float64


def test_a_class_that_is_masked_out():
    """F.cross_entropy and timm's loss give NaN for a logit of -inf whose target is 0."""
    z = torch.tensor([[-math.inf, 1.0, 2.0]], requires_grad=True)
    t = torch.tensor([[0.0, 0.5, 0.5]])
    assert F.cross_entropy(z, t).isnan()
    loss = fm.soft_target_cross_entropy(z, t)
    rest = z.detach()[:, 1:].requires_grad_()
    right = F.cross_entropy(rest, t[:, 1:])
    torch.testing.assert_close(loss, right)
    (got,), (expected,) = torch.autograd.grad(loss, z), torch.autograd.grad(right, rest)
    torch.testing.assert_close(got, F.pad(expected, (1, 0)))


def everything():
    """Results of all losses, modules and metrics, on tensors whose dtype and device are given."""
    z = torch.linspace(-2, 3, 20, dtype=torch.float32, device="cpu").view(4, 5)
    y = torch.tensor([0, 4, 2, -100], device="cpu")
    weight = torch.linspace(0.5, 1.5, 5, dtype=torch.float32, device="cpu")
    identity = torch.eye(5, dtype=torch.float32, device="cpu")
    rows = torch.linspace(0.1, 0.9, 8, dtype=torch.float32, device="cpu").view(4, 2)
    ignoring = MixedTarget(y, y.flip(0), rows, 5, 0.1)
    target = MixedTarget(y.clamp_min(0), y.flip(0).clamp_min(0), rows, 5, 0.1)
    one = MixedTarget(y.clamp(0, 1), y.flip(0).clamp(0, 1), rows, 2, 0.1)
    for reduction in ("mean", "none"):
        kw = {"reduction": reduction}
        for t in (y, ignoring, target, target.dense()):
            yield fm.soft_target_cross_entropy(z, t, weight=weight, **kw)
            yield fm.SoftTargetCrossEntropy(weight, label_smoothing=0.1, **kw)(z, t)
            yield fm.linear_soft_target_cross_entropy(z, identity, None, t, **kw)
            yield from fm.soft_target_cross_entropy(z, t, return_accuracy=(1, 2))[1]
            yield from fm.mixed_accuracy(z, t, (1, 2))
        for t in (y.clamp_min(0), target, target.dense()):
            yield bce(z, t, weight=weight, pos_weight=weight, target_threshold=0.3, **kw)
            yield fm.SoftTargetBinaryCrossEntropy(weight, **kw)(z, t)
        for t in (y.clamp(0, 1), one):
            yield bce(z[:, 0], t, **kw)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_default_dtypes(dtype):
    expected = list(everything())
    torch.set_default_dtype(dtype)
    try:
        got = list(everything())
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a.nan_to_num(nan=-7), b.nan_to_num(nan=-7))


def test_another_default_device():
    """New tensors go to the logits' device: on the default device meta they would lack values."""
    expected = list(everything())
    with torch.device("meta"):
        got = list(everything())
    for a, b in zip(got, expected, strict=True):
        assert a.device.type == "cpu"
        assert torch.equal(a.nan_to_num(nan=-7), b.nan_to_num(nan=-7))


class NoFloat64(TorchDispatchMode):
    """Imitates a device without float64 (MPS): making such a tensor is an error."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else (result,):
            assert not isinstance(t, torch.Tensor) or t.dtype != torch.float64, op
        return result


def test_nothing_is_float64_for_float32_logits():
    with fm.backend("reference"), NoFloat64():
        assert all(t.dtype == torch.float32 for t in everything())
    z, target = torch.randn(4, 5, requires_grad=True), mixed(5, Y)
    with fm.backend("reference"), NoFloat64():
        for loss in (fm.soft_target_cross_entropy, bce):
            for mode in MODES:
                loss(z * 1, target, validate=True, **mode).backward()


# ------------------------------------------------------------------ labels written to later


def test_labels_of_a_target_that_changed():
    """A new valid label counts; a new invalid one is an error."""
    for change, error in ((4, None), (77, IndexError), (-1, IndexError)):
        labels = Y.clone()
        target = MixedTarget(labels, Y.flip(0), torch.rand(4, 2), 5)
        labels[1] = change
        fresh = Y.clone()
        fresh[1] = 4
        fresh = MixedTarget(fresh, target.partner_labels, target.weight, 5)
        for call in LOSSES.values():
            if error is None:
                torch.testing.assert_close(call(target), call(fresh), rtol=0, atol=0)
            else:
                with pytest.raises(error, match=str(change)):
                    call(target)
