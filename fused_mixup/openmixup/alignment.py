"""AlignMix: features of two samples, brought into line by optimal transport, then blended."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from .calls import check_call
from .draws import draw_lam
from .numbers import number, whole
from .pairs import Targets, pair

_CHUNK = 1 << 24  # elements of differences at a time


def alignmix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    eps: float = 0.1,
    max_iter: int = 100,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Tensor, Targets]:
    """AlignMix: ``λ·f + (1-λ)·f_p·Pᵀ``, or by a coin ``λ·f·P + (1-λ)·f_p``.

    f [C, HW] are the features of a sample, P its transport plan to those of its partner. The plan
    is a constant; gradients flow through the features.

    Args:
        img: features [N, C, H, W], floating.
        gt_label: [N, …].
        alpha, lam: as :func:`mixup`.
        eps: weight of the plan's entropy.
        max_iter: Sinkhorn's iterations, at most; it stops where the mean change is below 0.1.

    Returns:
        A new tensor, and ``(y_a, y_b, lam)``, λ a float.

    Notes:
        Differences of features are summed some rows of P at a time, so that [N, HW, HW, C] is not
        made; results are OpenMixup's.

    Source: Venkataramanan et al., AlignMixup, 2022, arXiv 2103.15375.
    """
    compat = check_call(
        alignmix, img, gt_label, dist_mode, compat, kwargs, ranks=False, views=False
    )
    if not img.is_floating_point():
        raise TypeError(f"img: expected floating features, got {img.dtype}; use .float()")
    if not number("eps", eps) > 0:
        raise ValueError(f"eps: expected a number above 0, got {eps}")
    max_iter = whole("max_iter", max_iter, 0)
    lam = draw_lam(alpha, lam)
    pairs = pair(img, gt_label, False, compat=bool(compat))
    own = pairs.images
    theirs = (own if pairs.other is None else pairs.other)[pairs.index]
    shape = own.shape
    flat, flat_theirs = own.flatten(2), theirs.flatten(2)  # [N, C, HW]
    cost = squared_distances(flat.detach().mT, flat_theirs.detach().mT)
    plan = sinkhorn(cost, eps, max_iter) * flat.shape[2]
    if random.randint(0, 1) == 0:
        mixed = own * lam + torch.matmul(flat_theirs, plan.mT).view(shape) * (1 - lam)
    else:
        mixed = torch.matmul(flat, plan).view(shape) * lam + theirs * (1 - lam)
    return mixed, (*pairs.labels, lam)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """[N, P, Q] of points x [N, P, C] and y [N, Q, C]."""
    n, points, channels = x.shape
    step = max(1, _CHUNK // max(1, n * y.shape[1] * channels))
    parts = [
        ((x[:, i : i + step, None] - y[:, None]).abs() ** 2).sum(-1) for i in range(0, points, step)
    ]
    return torch.cat(parts, 1)


@torch.no_grad()
def sinkhorn(cost: Tensor, eps: float, max_iter: int) -> Tensor:
    """The plan [N, P, Q] between equal masses that costs least, with an entropy term."""
    points = cost.shape[1], cost.shape[2]
    mass = [
        torch.log(cost.new_full((len(cost), n), 1.0 / n, dtype=torch.float32) + 1e-8)
        for n in points
    ]
    u, v = (torch.zeros_like(m) for m in mass)

    def scaled() -> Tensor:
        return (-cost + u[..., None] + v[:, None]) / eps

    for _ in range(max_iter):
        before = u
        u = eps * (mass[0] - torch.logsumexp(scaled(), -1)) + u
        v = eps * (mass[1] - torch.logsumexp(scaled().mT, -1)) + v
        if float((u - before).abs().sum(-1).mean()) < 0.1:
            break
    return torch.exp(scaled())
