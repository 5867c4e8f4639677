"""Targets of more than two labels a row, and every loss of them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from many_labels import CLASSES, columns, one_hot, rows

import fused_mixup as fm
from fused_mixup import MixedTarget


def reduced(each, reduction, count):
    return each if reduction == "none" else each.sum() / (count if reduction == "mean" else 1)


def cross_entropy(
    z, target, weight=None, reduction="mean", label_smoothing=0.0, gamma=0.0, z_loss=0.0
):
    """The loss in float64 from its formula."""
    labels, weights, kept = columns(target)
    t = one_hot(target) * (1 - label_smoothing) + label_smoothing / target.num_classes
    if weight is not None:
        t = t * weight.double().view(1, -1, *[1] * (z.ndim - 2))
    log_p = z.log_softmax(1)
    each = -(t * (1 - log_p.exp()) ** gamma * log_p).sum(1) + z_loss * z.logsumexp(1) ** 2
    ignored = ~kept.all(1) & (weights == 0).all(1)
    return reduced(torch.where(ignored, 0, each), reduction, (~ignored).sum())


def gradients(loss, z, *args, **kw):
    """The losses, and the gradient of their sum with different weights."""
    leaf = z.detach().requires_grad_()
    value = loss(leaf, *args, **kw)
    upstream = torch.linspace(1, 2, value.numel(), device=z.device).view(value.shape).to(value)
    return value.detach(), *torch.autograd.grad((value * upstream).sum(), leaf)


def compare(found, truth, dtype):
    """The loss to float32's accuracy (float64's), the gradient to that of its own type."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for a, b, of in zip(found, truth, (wide, dtype), strict=True):
        eps = (
            16 * torch.finfo(of).eps
            if of in (torch.float32, torch.float64)
            else torch.finfo(of).eps
        )
        torch.testing.assert_close(a.cpu().double(), b, rtol=eps, atol=eps)


OPTIONS = (
    {},
    {"reduction": "sum", "z_loss": 0.1},
    {"reduction": "none", "label_smoothing": 0.2},
    {"weight": torch.rand(CLASSES) + 0.5, "label_smoothing": 0.1, "z_loss": 0.01},
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("inner", [(), (2, 5)], ids=str)
def test_the_cross_entropy(backend, dtype, inner):
    for smoothing, ignore, options in itertools.product((0.0, 0.1), (False, True), OPTIONS):
        target = rows(6, 4, inner, CLASSES, smoothing, ignore)
        z = torch.randn(6, CLASSES, *inner).to(dtype)
        truth = gradients(cross_entropy, z.double(), target, **options)
        compare(gradients(fm.soft_target_cross_entropy, z, target, **options), truth, dtype)


@pytest.mark.parametrize("count", [3, 20])
def test_the_focal_loss(backend, count):
    target = rows(5, count, (3,), ignore=True)
    z = torch.randn(5, CLASSES, 3)
    for reduction in ("mean", "none"):
        truth = gradients(cross_entropy, z.double(), target, None, reduction, gamma=1.5)
        options = {"reduction": reduction, "focal_gamma": 1.5}
        compare(gradients(fm.soft_target_cross_entropy, z, target, **options), truth, z.dtype)


@pytest.mark.parametrize("mode", ["grad_in_forward", "inplace_backward"])
def test_memory_modes_and_layouts(backend, mode):
    target = rows(4, 5, (6, 5), smoothing=0.1, ignore=True)
    z = torch.randn(4, CLASSES, 6, 5).to(memory_format=torch.channels_last)
    for loss, of in (
        (fm.soft_target_cross_entropy, target),
        (fm.soft_target_binary_cross_entropy, rows(4, 5, (6, 5), smoothing=0.1)),
    ):
        for x in (z, z.contiguous(), z[..., ::2, :]):
            some = MixedTarget.of_labels(
                columns(of)[0][:, :, :: 6 // x.shape[2]], of.weight, CLASSES
            )
            truth = gradients(loss, x.double(), some)
            moded = gradients(lambda x, t: loss(x * 1, t, **{mode: True}), x, some)  # noqa: B023
            compare(moded, truth, x.dtype)


BINARY = (
    {},
    {"reduction": "sum", "sum_classes": True},
    {"reduction": "none", "target_threshold": 0.3},
    {"reduction": "none", "sum_classes": True, "pos_weight": torch.rand(CLASSES, 1) + 0.5},
    {"weight": torch.rand(CLASSES, 1) + 0.5, "focal_gamma": 1.5},
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_the_binary_cross_entropy(backend, dtype):
    for smoothing, options in itertools.product((0.0, 0.1), BINARY):
        target = rows(6, 4, (5,), smoothing=smoothing)
        z = 3 * torch.randn(6, CLASSES, 5).to(dtype)
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        dense = target.dense(acc).double()  # in the type in which a threshold compares
        loss = fm.soft_target_binary_cross_entropy
        truth = gradients(loss, z.double(), dense, **options)
        compare(gradients(loss, z, target, **options), truth, dtype)


def test_a_binary_loss_near_zero_keeps_its_digits(backend):
    if backend == "reference":
        pytest.skip("the terms of an absent class cancel in plain PyTorch")
    labels = torch.tensor([[1, 3, 5]])
    z = torch.where(F.one_hot(labels, CLASSES).sum(1) > 0, 12.0, -12.0)
    target = MixedTarget.of_labels(labels, torch.ones(1, 3), CLASSES)
    truth = F.binary_cross_entropy_with_logits(z.double(), one_hot(target))
    torch.testing.assert_close(
        fm.soft_target_binary_cross_entropy(z, target).double(), truth, rtol=1e-3, atol=0
    )


def test_samples_in_several_chunks(backend, monkeypatch):
    monkeypatch.setattr("fused_mixup.losses.many_labels_binary._BUFFER", 3 * CLASSES)
    target, z = rows(8), torch.randn(8, CLASSES)
    for reduction in ("mean", "none"):
        truth = F.binary_cross_entropy_with_logits(z, one_hot(target).float(), reduction=reduction)
        got = fm.soft_target_binary_cross_entropy(z, target, reduction=reduction)
        torch.testing.assert_close(got, truth)


def test_one_logit_a_row(backend):
    target = rows(6, 3, num_classes=2, smoothing=0.1)
    z = torch.randn(6, 1)
    truth = F.binary_cross_entropy_with_logits(z.double(), one_hot(target)[:, 1:])
    got = fm.soft_target_binary_cross_entropy(z, target)
    torch.testing.assert_close(got.double(), truth)


def test_the_linear_loss(backend):
    features, weight, bias = torch.randn(6, 5, 8), torch.randn(CLASSES, 8), torch.randn(CLASSES)
    target = rows(6, 4, (5,), smoothing=0.1, ignore=True)
    for reduction in ("mean", "none"):
        leaves = [t.clone().requires_grad_() for t in (features, weight, bias)]
        loss = fm.linear_soft_target_cross_entropy(
            *leaves, target, reduction=reduction, chunk_rows=7
        )
        found = torch.autograd.grad(loss.sum(), leaves)
        wide = [t.double().requires_grad_() for t in (features, weight, bias)]
        logits = F.linear(*wide).movedim(-1, 1)
        truth = cross_entropy(logits, target, reduction=reduction)
        torch.testing.assert_close(loss.double(), truth, rtol=1e-5, atol=1e-5)
        for a, b in zip(found, torch.autograd.grad(truth.sum(), wide), strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def test_accuracy_and_ranks(backend):
    target, z = rows(6, 5, (4,), ignore=True), torch.randn(6, CLASSES, 4)
    labels, weight, _ = columns(target)
    hits = z.topk(2, 1).indices.unsqueeze(2) == labels.unsqueeze(1)
    share = weight / weight.sum(1, keepdim=True)
    each = (hits.any(1) * share).sum(1)
    expected = each[weight.sum(1).expand_as(each) > 0].mean().float()
    torch.testing.assert_close(fm.mixed_accuracy(z, target, topk=(2,))[0], expected)
    loss, (same,) = fm.soft_target_cross_entropy(z, target, return_accuracy=(2,))
    torch.testing.assert_close(same, expected)
    assert torch.equal(loss, fm.soft_target_cross_entropy(z, target))


def test_any_criterion(backend):
    target, z = rows(6, 4, ignore=True), torch.randn(6, CLASSES)
    criterion = torch.nn.CrossEntropyLoss(reduction="none")
    got = fm.mixed_criterion(criterion, z, target)
    torch.testing.assert_close(got, fm.soft_target_cross_entropy(z, target))


def test_derivatives(backend):
    target = rows(4, 3, smoothing=0.1, ignore=True)
    z = torch.randn(4, CLASSES, dtype=torch.float64, requires_grad=True)
    for loss in (
        lambda z: fm.soft_target_cross_entropy(z, target, z_loss=0.1),
        lambda z: fm.soft_target_binary_cross_entropy(z, rows(4, 3), reduction="sum"),
    ):
        seed = torch.get_rng_state()

        def again(z, loss=loss, seed=seed):
            torch.set_rng_state(seed)
            return loss(z)

        assert torch.autograd.gradcheck(again, z)
        assert torch.autograd.gradgradcheck(again, z)
        assert torch.equal(torch.func.grad(again)(z), torch.autograd.grad(again(z), z)[0])


@pytest.mark.proof
def test_compiled():
    labels, weight = torch.randint(0, CLASSES, (6, 4)), torch.rand(6, 4)

    def step(z, labels, weight):
        target = MixedTarget.of_labels(labels, weight, CLASSES, 0.1)
        first = fm.soft_target_cross_entropy(z, target)
        return first + fm.soft_target_binary_cross_entropy(z, target)

    z = torch.randn(6, CLASSES)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for a, b in zip(
        gradients(compiled, z, labels, weight), gradients(step, z, labels, weight), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_poisoned_rows(backend):
    target, z = rows(4, 3, (2,), smoothing=0.1), torch.randn(4, CLASSES, 2)
    target.partner_labels[1, 1, 0] = CLASSES  # a GPU could not refuse it
    with pytest.raises(IndexError, match="labels: expected class indices"):
        fm.soft_target_cross_entropy(z, target)
    for module, rest in (
        (fm.losses.many_labels, (-100, 0.1, 0.0, 0.0, 0.0, 2)),
        (fm.losses.many_labels_binary, (None, 0.1, None, 0.0, 2, True)),
    ):
        name = f"soft_target_{'binary_' if len(rest) < 7 and rest[0] is None else ''}cross_entropy"
        sparse = *target.indices, target.weight, None, *rest
        ranks = (False,) if "binary" not in name else ()
        results = getattr(module, f"{name}_grad")(z, *sparse, *ranks)
        bad = torch.zeros(4, 2, dtype=torch.bool)
        bad[1, 0] = True
        assert torch.equal(results[0].isnan(), bad)
        assert torch.equal(results[1].isnan(), bad.unsqueeze(1).expand(z.shape))
