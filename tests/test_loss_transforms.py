"""The losses under torch.func and torch.compile: what PyTorch's own losses give there."""

from __future__ import annotations

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
    z[0, 0] = 0.0  # where |x| has no derivative
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
