"""Focal losses and the z-loss: derivatives, transforms, modules, the linear loss, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from focal_truth import dense_of, focal, mixed

import fused_mixup as fm

# ------------------------------------------------------------------ derivatives, transforms


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["mixed", "dense", "smoothed"])
def test_first_and_second_derivatives(kind, gamma):
    torch.manual_seed(0)
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    target = mixed((3, 4), 0.1 if kind == "smoothed" else 0.0)
    inputs = (z,)
    if kind == "dense":
        dense = torch.rand(3, 4, dtype=torch.float64)
        dense[:, 0] = 0
        inputs = (z, dense.requires_grad_())
    w = torch.rand(4, dtype=torch.float64)
    for reduction in ("mean", "none"):

        def loss(z, t=target, reduction=reduction):
            options = {"focal_gamma": gamma, "z_loss": 0.1, "weight": w, "reduction": reduction}
            return fm.soft_target_cross_entropy(z, t, **options)

        def binary(z, t=target, reduction=reduction):
            return fm.soft_target_binary_cross_entropy(
                z, t, focal_gamma=gamma, pos_weight=w, reduction=reduction
            )

        for function in (loss, binary):
            assert torch.autograd.gradcheck(function, inputs)
            assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("kind", ["mixed", "smoothed"])
def test_transforms(kind):
    torch.manual_seed(0)
    z = torch.randn(4, 6, dtype=torch.float64)
    target = mixed((4, 6), 0.1 if kind == "smoothed" else 0.0)

    def loss(z):
        return fm.soft_target_cross_entropy(z, target, focal_gamma=1.5, z_loss=0.1)

    def by_hand(z):
        return focal(z, dense_of(target), 1.5, 0.1).mean()

    for transform in (torch.func.grad, torch.func.hessian, torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(loss)(z), transform(by_hand)(z))
    several = torch.stack((z, z * 2))
    torch.testing.assert_close(torch.func.vmap(loss)(several), torch.func.vmap(by_hand)(several))

    def binary(z):
        return fm.soft_target_binary_cross_entropy(z, target, focal_gamma=1.5)

    got = torch.func.hessian(binary)(z).reshape(24, 24).diagonal().view(4, 6)
    first = torch.func.grad(lambda x: torch.func.grad(binary)(x).sum())(z)
    torch.testing.assert_close(got, first)


def test_gradient_of_a_dense_target_where_it_is_zero():
    """The transforms run plain PyTorch; a target of 0 has a gradient like any other."""
    z, t = torch.randn(3, 4, dtype=torch.float64), torch.eye(3, 4, dtype=torch.float64)
    for gamma in (0.0, 2.0):
        got = torch.func.jacrev(
            lambda t, gamma=gamma: fm.soft_target_cross_entropy(
                z, t, focal_gamma=gamma, reduction="sum"
            )
        )(t)
        log_p = z.log_softmax(1)
        torch.testing.assert_close(got, -((1 - log_p.exp()) ** gamma) * log_p)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_compiled_whole(smoothing):
    z = torch.randn(8, 10, requires_grad=True)
    target = mixed((8, 10), smoothing)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(z, target):
        loss = fm.soft_target_cross_entropy(z, target, focal_gamma=2.0, z_loss=0.1)
        return loss + fm.soft_target_binary_cross_entropy(z, target, focal_gamma=2.0)

    got = step(z, target)
    want = fm.soft_target_cross_entropy(z, target, focal_gamma=2.0, z_loss=0.1)
    want = want + fm.soft_target_binary_cross_entropy(z, target, focal_gamma=2.0)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(x, z)[0] for x in (got, want)))


# ------------------------------------------------------------------ modules, linear, refusals


def test_modules_pass_them_on():
    z, target = torch.randn(4, 6), mixed((4, 6))
    module = fm.SoftTargetCrossEntropy(focal_gamma=2.0, z_loss=0.1)
    want = fm.soft_target_cross_entropy(z, target, focal_gamma=2.0, z_loss=0.1)
    assert module(z, target) == want and "focal_gamma=2.0, z_loss=0.1" in repr(module)
    module = fm.SoftTargetBinaryCrossEntropy(focal_gamma=2.0)
    want = fm.soft_target_binary_cross_entropy(z, target, focal_gamma=2.0)
    assert module(z, target) == want and "focal_gamma=2.0" in repr(module)
    assert "focal" not in repr(fm.SoftTargetCrossEntropy())


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kind", ["mixed", "smoothed", "dense"])
def test_the_linear_loss_has_both(kind, reduction):
    torch.manual_seed(0)
    x, layer = torch.randn(9, 5, requires_grad=True), torch.nn.Linear(5, 7)
    target = mixed((9, 7), 0.1 if kind == "smoothed" else 0.0)
    given = target.dense() if kind == "dense" else target
    options = {"focal_gamma": 1.5, "z_loss": 0.1, "reduction": reduction}
    got = fm.linear_soft_target_cross_entropy(
        x, layer.weight, layer.bias, given, chunk_rows=4, **options
    )
    want = fm.soft_target_cross_entropy(layer(x), given, **options)
    torch.testing.assert_close(got, want)
    leaves = x, layer.weight, layer.bias
    pair = (torch.autograd.grad(loss.sum(), leaves) for loss in (got, want))
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("name", ["focal_gamma", "z_loss"])
@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan, "2", None, torch.ones(2)])
def test_coefficients_that_mean_nothing(name, value):
    z, target = torch.randn(4, 6), mixed((4, 6))
    error = ValueError if isinstance(value, float) else TypeError
    with pytest.raises(error, match=f"{name}: expected a"):
        fm.soft_target_cross_entropy(z, target, **{name: value})
    with pytest.raises(error, match=f"{name}: expected a"):
        fm.SoftTargetCrossEntropy(**{name: value})
    if name == "focal_gamma":
        with pytest.raises(error, match=f"{name}: expected a"):
            fm.soft_target_binary_cross_entropy(z, target, focal_gamma=value)
