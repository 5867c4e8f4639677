"""decoupled_mixup_cross_entropy: each label's term among the classes without the other."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, decoupled_mixup_cross_entropy

CLASSES = 6


def target_of(batch=6, inner=(), smoothing=0.0, ignore=False):
    """Rows with terms, and without: equal labels, a weight of 0, ignored labels."""
    labels = torch.randint(0, CLASSES, (2, batch, *inner))
    weight = torch.rand(batch, 2)
    labels[1, 0] = labels[0, 0]
    weight[1] = torch.tensor([1.0, 0.0])
    if ignore:
        labels[torch.rand(labels.shape) < 0.3] = -100
        labels[:, 2], labels[:, 3] = -100, 1
    return MixedTarget(*labels, weight, CLASSES, smoothing)


def expected(z, target, eta, terms="both", weight=None, reduction="mean", label_smoothing=0.0):
    """The loss from its formula, with the masked logits of each term."""
    labels, inner = torch.stack((target.labels, target.partner_labels), 1), [1] * (z.ndim - 2)
    kept = labels != target.ignore_index
    w = target.weight.double().view(-1, 2, *inner)
    t = F.one_hot(labels.clamp_min(0), CLASSES).double() * (1 - target.label_smoothing)
    t = ((t + target.label_smoothing / CLASSES) * (w * kept).unsqueeze(-1)).sum(1).movedim(-1, 1)
    t = t * (1 - label_smoothing) + label_smoothing / CLASSES
    of_class = (torch.ones(CLASSES) if weight is None else weight).double()
    rows = -(t * of_class.view(1, -1, *inner) * z.log_softmax(1)).sum(1)
    ignored = ~kept.all(1) & ((w * kept) == 0).all(1)
    rows = torch.where(ignored, 0, rows)
    there = kept.all(1) & (labels[:, 0] != labels[:, 1]) & (w > 1e-3).all(1)
    less = w[:, 0] < w[:, 1]
    for j in (0, 1):
        own, other = labels[:, j].clamp_min(0), labels[:, 1 - j].clamp_min(0)
        masked = z.masked_fill(F.one_hot(other, CLASSES).movedim(-1, 1).bool(), -torch.inf)
        term = masked.logsumexp(1) - z.gather(1, own.unsqueeze(1)).squeeze(1)
        chosen = terms == "both" or (less if j == 0 else ~less) == (terms == "less")
        rows = rows + torch.where(there & chosen, eta[j] * of_class[own] * term, 0)
    if reduction == "none":
        return rows
    return rows.sum() / ((~ignored).sum() if reduction == "mean" else 1)


def gradients(loss, z, *args, **kw):
    leaf = z.detach().requires_grad_()
    value = loss(leaf, *args, **kw)
    upstream = torch.linspace(1, 2, value.numel()).view(value.shape).to(value)
    return value.detach(), *torch.autograd.grad((value * upstream).sum(), leaf)


OPTIONS = (
    {},
    {"terms": "less", "reduction": "sum"},
    {"terms": "more", "weight": torch.rand(CLASSES) + 0.5},
    {"reduction": "none", "label_smoothing": 0.2, "weight": torch.rand(CLASSES) + 0.5},
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("inner", [(), (2, 3)], ids=str)
def test_agrees_with_the_formula(backend, dtype, inner):
    for ignore, scale, options in itertools.product((False, True), (1.0, 30.0), OPTIONS):
        target = target_of(6, inner, 0.1 if ignore else 0.0, ignore)
        z = (scale * torch.randn(6, CLASSES, *inner)).to(dtype)
        truth = gradients(expected, z.double(), target, (0.3, 0.7), **options)
        found = gradients(decoupled_mixup_cross_entropy, z, target, (0.3, 0.7), **options)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        for a, b, of in zip(found, truth, (wide, dtype), strict=True):
            eps = torch.finfo(of).eps * (1 if of == torch.float16 else 32)
            torch.testing.assert_close(a.double(), b, rtol=eps, atol=eps)


def test_a_term_is_exact_where_the_other_label_has_all_the_probability(backend):
    z = torch.tensor([[40.0, 1.0, 2.0, 0.0, -1.0, 0.5], [1.0, 2.0, 200.0, -300.0, 0.0, 0.0]])
    target = MixedTarget(torch.tensor([0, 3]), torch.tensor([1, 2]), torch.full((2, 2), 0.5), 6)
    for terms in ((0.0, 1.0), (1.0, 0.0)):
        truth = gradients(expected, z.double(), target, terms)
        found = gradients(decoupled_mixup_cross_entropy, z, target, terms)
        for a, b in zip(found, truth, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=2e-6, atol=1e-7)


def test_eta_of_each_sample_and_other_layouts(backend, monkeypatch):
    monkeypatch.setattr("fused_mixup.losses.many_labels_binary._BUFFER", 4 * CLASSES * 20)
    target, eta = target_of(6, (4, 5)), torch.rand(6, 2)
    z = torch.randn(6, CLASSES, 4, 5)
    by_hand = [eta[:, j].view(6, 1, 1) for j in (0, 1)]
    truth = gradients(expected, z.double(), target, by_hand)
    for x in (
        z,
        z.to(memory_format=torch.channels_last),
        z.transpose(2, 3).clone().transpose(2, 3),
    ):
        found = gradients(decoupled_mixup_cross_entropy, x, target, eta)
        for a, b in zip(found, truth, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


def test_without_terms_it_is_the_cross_entropy(backend):
    target, z = target_of(smoothing=0.1, ignore=True), torch.randn(6, CLASSES)
    for reduction in ("mean", "none"):
        got = decoupled_mixup_cross_entropy(z, target, 0.0, reduction=reduction)
        assert torch.equal(got, fm.soft_target_cross_entropy(z, target, reduction=reduction))
    one = decoupled_mixup_cross_entropy(
        z[:, :1], MixedTarget(*torch.zeros(2, 6).long(), target.weight, 1)
    )
    assert one == 0


def test_derivatives(backend):
    target = target_of(3, smoothing=0.1)
    z = torch.randn(3, CLASSES, dtype=torch.float64, requires_grad=True)

    def loss(z):
        return decoupled_mixup_cross_entropy(z, target, 0.4)

    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)
    for transform in (torch.func.grad, torch.func.jacrev):
        found = transform(loss)(z.detach())
        torch.testing.assert_close(found, torch.autograd.grad(loss(z), z)[0])


@pytest.mark.proof
def test_compiled():
    target, z = target_of(smoothing=0.1, ignore=True), torch.randn(6, CLASSES)

    def loss(z):
        return decoupled_mixup_cross_entropy(z, target, 0.4)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(gradients(compiled, z), gradients(loss, z), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((torch.randint(0, 6, (6,)),), "target: expected a MixedTarget of two labels a row"),
        (
            (MixedTarget.of_labels(torch.zeros(6, 3).long(), torch.ones(6, 3), 6),),
            "got one of 3; soft_target_cross_entropy takes",
        ),
        ((target_of(), -1.0), "eta: expected a finite number >= 0"),
        ((target_of(), (1.0, 2.0, 3.0)), "eta: expected a number, or two, got 3"),
        ((target_of(), torch.ones(3, 2)), r"eta: expected .* floats of shape \[6, 2\]"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises((TypeError, ValueError), match=match):
        decoupled_mixup_cross_entropy(torch.randn(6, CLASSES), *arguments)
    with pytest.raises(ValueError, match="terms: expected one of"):
        decoupled_mixup_cross_entropy(torch.randn(6, CLASSES), target_of(), terms="all")
