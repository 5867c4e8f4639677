"""Focal losses and z-losses by their formulas in float64, and how tests compare with them."""

from __future__ import annotations

import torch

from fused_mixup import MixedTarget


def mixed(shape, smoothing=0.0, ignored=False, device="cpu", classes=None):
    b, k, *inner = shape
    own, other = torch.randint(0, classes or k, (2, b, *inner))
    if ignored:
        own[::3], other[::4] = -100, -100
    weight = torch.rand(b, 1)
    weight[1::3] = 1.0
    weight = torch.cat((weight, 1 - weight), 1)
    return MixedTarget(own, other, weight, classes or k, smoothing).to(device)


def dense_of(target):
    return target.dense(torch.float64)


def focal(logits, target, gamma, z_loss, weight=None, eps=0.0):
    """Losses of rows by the formula, in float64; target dense."""
    z = logits.double()
    t = target.double() * (1 - eps) + eps / z.shape[1]
    if weight is not None:
        t = t * weight.double().view(-1, *[1] * (z.ndim - 2))
    log_p = z.log_softmax(1)
    each = -((1 - log_p.exp()) ** gamma) * log_p
    return torch.where(t == 0, 0, t * each).sum(1) + z_loss * z.logsumexp(1) ** 2


def reduced(logits, target, gamma, z_loss, weight=None, eps=0.0, reduction="mean"):
    rows = focal(logits, target, gamma, z_loss, weight, eps)
    return {"mean": rows.mean, "sum": rows.sum, "none": lambda: rows}[reduction]()


def gradient(loss, z, *arguments, **options):
    """The loss, and the gradient of its sum."""
    leaf = z.detach().clone().requires_grad_()
    value = loss(leaf * 1, *arguments, **options)
    return value.detach(), *torch.autograd.grad(value.sum(), leaf)


def close(got, want, dtype):
    rounding = 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps / 2
    eps = 1e-10 if dtype == torch.float64 else 1e-5
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=eps + 1.01 * rounding, atol=2 * eps)
