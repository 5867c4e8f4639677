"""The losses under torch.func and torch.compile give what PyTorch's losses give."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

func = torch.func
B, K = 4, 6


def ours_ce(z, t, **kw):
    return fm.soft_target_cross_entropy(z, t, label_smoothing=0.1, **kw)


def theirs_ce(z, t, **kw):
    return F.cross_entropy(z, t, label_smoothing=0.1, **kw)


def theirs_bce(z, t, **kw):
    return F.binary_cross_entropy_with_logits(z, t, **kw)


PAIRS = {
    "cross-entropy": (ours_ce, theirs_ce),
    "binary": (fm.soft_target_binary_cross_entropy, theirs_bce),
}


def targets():
    """Our target and the dense one that it stands for."""
    y = torch.tensor([0, 5, 2, 2])
    mixed = MixedTarget.from_labels(y, MixPlan.uniform(B, "roll", 0.3), K, 0.1)
    rows = MixedTarget(y, y.flip(0), torch.rand(B, 2), K)
    dense = torch.rand(B, K)
    yield "indices", y, F.one_hot(y, K).float()
    yield "mixed", mixed, mixed.dense()
    yield "mixed by row", rows, rows.dense()
    yield "dense", dense, dense


def logits():
    z = torch.randn(B, K)
    z[0, 0] = 0.0  # |x| has no derivative at this logit
    return z


TRANSFORMS = {
    "grad": func.grad,
    "grad_and_value": func.grad_and_value,
    "vjp": lambda f: lambda z: func.vjp(f, z)[1](torch.tensor(2.0))[0],
    "jacrev": func.jacrev,
    "jacfwd": func.jacfwd,
    "hessian": func.hessian,
    "jacrev of grad": lambda f: func.jacrev(func.grad(f)),
    "grad of grad": lambda f: func.grad(lambda z: func.grad(f)(z).square().sum()),
    "jvp": lambda f: lambda z: func.jvp(f, (z,), (z.flip(0),)),
    "vmap": lambda f: lambda z: func.vmap(f)(torch.stack((z, z * 2))),
    "vmap of grad": lambda f: lambda z: func.vmap(func.grad(f))(torch.stack((z, z * 2))),
    "vmap of vmap of grad": lambda f: (
        lambda z: func.vmap(func.vmap(func.grad(f)), in_dims=3)(
            torch.stack((z, z * 2))[..., None].expand(-1, -1, -1, 3)
        )
    ),
    "grad of sum of vmap": lambda f: func.grad(
        lambda z: func.vmap(f)(torch.stack((z, z * 2))).square().sum()
    ),
}


def same(got, expected, **kw):
    for a, b in zip(
        got if isinstance(got, tuple) else (got,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, **kw)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("pair", PAIRS)
def test_transforms(pair, transform):
    (ours, theirs), of = PAIRS[pair], TRANSFORMS[transform]
    z = logits()
    for _, target, dense in targets():
        for reduction in ("mean", "sum"):

            def mine(z, target=target, reduction=reduction):
                return ours(z, target, reduction=reduction)

            def right(z, dense=dense, reduction=reduction):
                return theirs(z, dense, reduction=reduction)

            same(of(mine)(z), of(right)(z))


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd", "vmap", "jvp"])
@pytest.mark.parametrize("pair", PAIRS)
def test_transforms_of_losses_that_are_not_reduced(pair, transform):
    (ours, theirs), of = PAIRS[pair], TRANSFORMS[transform]
    for _, target, dense in targets():
        z = logits()
        got = of(lambda z, t=target: ours(z, t, reduction="none"))(z)
        same(got, of(lambda z, t=dense: theirs(z, t, reduction="none"))(z))


# ------------------------------------------------------------------ one sample at a time

Y = torch.tensor([0, 5, 2, 2])
PARTNERS, WEIGHTS = Y.flip(0), torch.tensor([[0.3, 0.7]]).expand(B, 2).contiguous()


def per_sample(loss):
    """Losses and gradients for each sample, which DP-SGD and influence functions need."""
    yield lambda z, *of: func.vmap(loss)(z, *of)
    yield lambda z, *of: func.vmap(func.grad(loss))(z, *of)
    yield lambda z, *of: func.vmap(loss, chunk_size=3)(z, *of)
    yield lambda z, *of: func.vmap(loss, in_dims=(1, *[0] * len(of)))(z.t(), *of)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_loss_for_each_sample(pair):
    ours, theirs = PAIRS[pair]
    z, one_hot = logits(), F.one_hot(Y, K).float()
    mixed = MixedTarget(Y, PARTNERS, WEIGHTS, K, 0.1).dense()

    def right(z, t):
        return theirs(z[None], t[None])

    def of_indices(z, y):
        return ours(z[None], y[None])

    def of_mixed(z, y, partner, weight):
        return ours(z[None], MixedTarget(y[None], partner[None], weight[None], K, 0.1))

    for mine, given, dense in (
        (of_indices, (Y,), one_hot),
        (of_mixed, (Y, PARTNERS, WEIGHTS), mixed),
        (of_indices, (mixed,), mixed),
    ):
        for got, expected in zip(per_sample(mine), per_sample(right), strict=True):
            same(got(z, *given), expected(z, dense))


def test_ignored_rows_have_no_gradient_whatever_their_logits():
    z, y = logits(), torch.tensor([0, -100, 2, -100])
    z[1] = math.nan
    z[3, :2] = math.inf

    def loss(z, y):
        return fm.soft_target_cross_entropy(z[None], y[None])

    got = func.vmap(func.grad(loss))(z, y)
    expected = func.vmap(func.grad(lambda z, y: F.cross_entropy(z[None], y[None])))(z[::2], y[::2])
    assert (got[1::2] == 0).all()
    torch.testing.assert_close(got[::2], expected)
    assert func.vmap(loss)(z, y).isnan().tolist() == [False, True, False, True]  # an empty mean


def test_labels_that_are_none_give_nan():
    """vmap hides the values, as a GPU does, so no check can raise IndexError."""
    got = func.vmap(lambda z, y: fm.soft_target_cross_entropy(z[None], y[None]))(logits(), Y + 1)
    assert got.isnan().tolist() == [False, True, False, False]


def test_one_logit_for_each_sample():
    z, y = torch.randn(B, 1), Y % 2

    def right(z, y):
        return theirs_bce(z, y.float())

    def ours(z, y):
        return fm.soft_target_binary_cross_entropy(z[None], y[None])

    expected = func.vmap(func.grad(right))(z[:, 0], y)
    for rows in (z, z[:, 0]):
        got = func.vmap(func.grad(ours))(rows, y)
        torch.testing.assert_close(got.flatten(), expected)


def test_accuracy_for_each_sample():
    z = logits()
    mixed = MixedTarget(Y, PARTNERS, WEIGHTS, K)
    for call in (
        lambda z, t: fm.mixed_accuracy(z, t, (1, 2)),
        lambda z, t: fm.soft_target_cross_entropy(z, t, return_accuracy=(1, 2))[1],
    ):
        rows = [torch.stack(call(z[i : i + 1], Y[i : i + 1])) for i in range(B)]
        got = func.vmap(lambda z, y, call=call: torch.stack(call(z[None], y[None])))(z, Y)
        assert torch.equal(got, torch.stack(rows))
        for t in (mixed, mixed.dense()):
            got = func.vmap(lambda z, t=t, call=call: torch.stack(call(z, t)))(torch.stack((z, -z)))
            expected = torch.stack([torch.stack(call(x, t)) for x in (z, -z)])
            torch.testing.assert_close(got, expected)


def test_the_linear_loss():
    x, w, b = torch.randn(B, 3), torch.randn(K, 3), torch.randn(K)

    def ours(x, w, b, t, **kw):
        return fm.linear_soft_target_cross_entropy(x, w, b, t, **kw)

    def right(x, w, b, t, **kw):
        return F.cross_entropy(F.linear(x, w, b), t, **kw)

    def of(loss, x, y):
        return func.vmap(
            func.grad(lambda x, y, w, b: loss(x[None], w, b, y[None]), (0, 2, 3)),
            in_dims=(0, 0, None, None),
        )(x, y, w, b)

    same(of(ours, x, Y), of(right, x, Y))
    mixed = MixedTarget(Y, PARTNERS, WEIGHTS, K)
    for transform in (func.hessian, func.jacrev, func.jacfwd):
        got = transform(lambda x: ours(x, w, b, mixed, reduction="sum"))(x)
        same(got, transform(lambda x: right(x, w, b, mixed.dense(), reduction="sum"))(x))


def test_what_reads_values_is_refused():
    t = MixedTarget(Y, PARTNERS, WEIGHTS, K).dense()
    with pytest.raises(NotImplementedError, match="^validate: expected False"):
        func.vmap(lambda z: fm.soft_target_cross_entropy(z, t, validate=True))(logits()[None])


# ------------------------------------------------------------------ a batch of upstream gradients


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_batch_of_upstream_gradients(pair, reduction):
    ours, _ = PAIRS[pair]
    leaf = logits().requires_grad_()
    for _, target, _ in targets():
        loss = ours(leaf, target, reduction=reduction)
        upstream = torch.randn(3, *loss.shape)
        expected = torch.stack(
            [torch.autograd.grad(loss, leaf, u, retain_graph=True)[0] for u in upstream]
        )
        for mode in ({}, {"grad_in_forward": True}):
            again = ours(leaf * 1, target, reduction=reduction, **mode)
            (got,) = torch.autograd.grad(again, leaf, upstream, is_grads_batched=True)
            torch.testing.assert_close(got, expected)
        again = ours(leaf * 1, target, reduction=reduction, inplace_backward=True)
        with pytest.raises(NotImplementedError, match="leave inplace_backward out"):
            torch.autograd.grad(again, leaf, upstream, is_grads_batched=True)


def test_a_batch_of_upstream_gradients_of_the_linear_loss():
    x, w = torch.randn(B, 3), torch.randn(K, 3, requires_grad=True)
    loss = fm.linear_soft_target_cross_entropy(x, w, None, Y)
    upstream = torch.tensor([1.0, -2.0])
    (got,) = torch.autograd.grad(loss, w, upstream, is_grads_batched=True)
    (one,) = torch.autograd.grad(F.cross_entropy(F.linear(x, w), Y), w)
    torch.testing.assert_close(got, torch.stack((one, -2 * one)))
    rows = fm.linear_soft_target_cross_entropy(x, w, None, Y, reduction="none")
    with pytest.raises(NotImplementedError, match="use F.linear"):
        torch.autograd.grad(rows, w, torch.randn(2, B), is_grads_batched=True)


# ------------------------------------------------------------------ compiled

MIXED = MixedTarget.from_labels(Y, MixPlan.uniform(B, "roll", 0.3), K, 0.1)
IDENTITY = torch.eye(K)


def compiled_cross_entropy(z):
    total = fm.soft_target_cross_entropy(z, MIXED, return_accuracy=True, grad_in_forward=True)[0]
    return total + fm.soft_target_cross_entropy(z, Y, weight=IDENTITY[0] + 1)


def compiled_binary(z):
    loss = fm.SoftTargetBinaryCrossEntropy(pos_weight=IDENTITY[1] + 1)
    return loss(z, MIXED.dense()) + loss(z, MIXED)


def compiled_linear(z):
    return fm.linear_soft_target_cross_entropy(z, IDENTITY, None, MIXED)


@pytest.mark.parametrize(
    ("loss", "transform"),
    [
        (compiled_cross_entropy, "grad"),
        (compiled_cross_entropy, "vmap of grad"),
        (compiled_binary, "grad_and_value"),
        (compiled_binary, "grad of grad"),
        (compiled_linear, "grad"),
        (compiled_linear, "jvp"),
    ],
)
def test_compiled_transforms(loss, transform):
    z, of = logits(), TRANSFORMS[transform]
    torch._dynamo.reset()
    same(torch.compile(of(loss), fullgraph=True, backend="aot_eager")(z), of(loss)(z))


def test_compiled_inside_a_transform_and_outside():
    """One function works under both, in either order."""
    torch._dynamo.reset()
    z = logits()
    compiled = torch.compile(compiled_linear, backend="aot_eager")
    expected = func.grad(compiled_linear)(z)
    same(compiled(z), compiled_linear(z))
    same(torch.compile(func.grad(compiled_linear), backend="aot_eager")(z), expected)
    same(compiled(z), compiled_linear(z))
