"""PuzzleMix: blocks chosen by a graph cut, and patches moved to where they show."""

# ruff: noqa: NPY002  (the legacy generator is the one that OpenMixup draws from)

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from ..arguments import kind
from .calls import check_call
from .numbers import check_lam, number, whole
from .pairs import Pairs, Targets, pair
from .puzzle_mask import block_saliency, cut_costs, graph_cut, solve
from .puzzle_transport import transport as plan_transport
from .values import blend_patches

_CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@torch.no_grad()
def puzzlemix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 0.5,
    lam: float | None = 0.5,
    dist_mode: bool = False,
    features: Tensor | None = None,
    block_num: int | tuple[int, int] = 2,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    neigh_size: int = 2,
    n_labels: int = 2,
    t_eps: float = 10.0,
    t_size: int = -1,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    transport: bool = True,
    noise: Tensor | None = None,
    adv_mask1: float = 0,
    adv_mask2: float = 0,
    t_batch_size: int | None = None,
    mp: int | None = None,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Tensor, Targets]:
    """PuzzleMix: ``m * T(img) + (1 - m) * T'(img[index])``.

    m is a mask of blocks that keeps what is salient in both, by a graph cut on the host; T and T'
    move patches to where m shows them. The blocks' values and the two moves are one pass.

    Args:
        img: [N, C, H, W].
        gt_label: [N, …].
        alpha: of Beta(α, α), from which the share λ that the cut aims at is drawn.
        lam: not read, as in OpenMixup.
        features: [N, H, W], how salient each pixel is, >= 0: the norm of the loss's gradient, as
            :func:`fused_mixup.saliency.input_gradient` has it.
        block_num: 2^k blocks along a side, k drawn from [1, block_num), or from these two bounds.
        beta, gamma, eta: weights of the smoothness of labels, of that of pixels, and of the prior.
        neigh_size: pixels that are averaged for the smoothness of pixels.
        n_labels: levels of m, 2, 3 or 4.
        t_eps: weight of the distance that a patch moves.
        t_size: pixels along a side of a patch; -1 for whole blocks.
        mean, std: [1, C, 1, 1], of the images; by default those of CIFAR below 64 pixels, else
            those of ImageNet.
        transport: move patches; else T and T' leave them.
        noise, adv_mask1, adv_mask2: noise added to the samples, or to their partners, where the
            number is 1; [N, C, H, W].
        t_batch_size: not read: nothing of the size of a plan is made.
        mp: processes for graph cuts, started and ended here.

    Returns:
        A new tensor (float32 for half precision, as OpenMixup's), and ``(y_a, y_b, lam)``, λ
        float32 [N], the mean of m.

    Raises:
        RuntimeError: no gco (``pip install gco-wrapper``).

    Source: Kim et al., Puzzle Mix, 2020, arXiv 2009.06962.
    """
    compat = check_call(
        puzzlemix, img, gt_label, dist_mode, compat, kwargs, ranks=False, views=False
    )
    n_labels = whole("n_labels", n_labels, 2, 4)
    low, high = _block_bounds(block_num, img)
    neigh_size, t_size = whole("neigh_size", neigh_size, 1), whole("t_size", t_size, -1)
    if t_size == 0:
        raise ValueError("t_size: expected pixels along a side of a patch, or -1, got 0")
    beta, gamma, eta = (
        number(*named) for named in (("beta", beta), ("gamma", gamma), ("eta", eta))
    )
    t_eps = number("t_eps", t_eps)
    mp = None if mp is None else whole("mp", mp, 1)
    saliency = _saliency(features, img)
    noisy = [number("adv_mask1", adv_mask1) == 1.0, number("adv_mask2", adv_mask2) == 1.0]
    if any(noisy):
        _check_noise(noise, img)
    center, spread = _statistics(img, mean, std)
    check_lam(alpha, None)
    graph_cut()
    share = np.random.beta(alpha, alpha)
    pairs = pair(img, gt_label, False).to_float32()
    blocks = 2 ** np.random.randint(low, high)
    size = pairs.size
    block = size[0] // blocks, size[1] // blocks
    near = min(neigh_size, *block)
    smoothness = beta / blocks / 16
    pooled = avg_pool2d(pairs.images * spread + center, near)
    own = block_saliency(saliency, block)
    theirs, pooled_theirs = pairs.partner_of(own), pairs.partner_of(pooled)
    cells = block[0] // near, block[1] // near
    costs = cut_costs((own, theirs), (pooled, pooled_theirs), cells, smoothness * gamma)
    without_own, without_theirs, *edges = (c.cpu().numpy() for c in costs)
    rows = zip(without_theirs, without_own, *edges, strict=True)
    mask = solve([(*row, share, smoothness, eta, n_labels) for row in rows], mp).to(img.device)

    moves = None
    if transport:
        if -1 != min(t_size, *block) < min(block):
            grid = size[0] // t_size, size[1] // t_size
            mask = interpolate(mask[:, None], size=grid)[:, 0]
            own = block_saliency(saliency, (t_size, t_size))
            theirs = pairs.partner_of(own)
        moves = plan_transport(mask, own, t_eps), plan_transport(1 - mask, theirs, t_eps)
    partners = None
    if any(noisy):
        pairs, partners = _add_noise(pairs, noise, noisy, center, spread)
    out = blend_patches(pairs, mask, moves, partners)
    full = interpolate(mask[:, None], size=size)
    return out, (*pairs.labels, full.reshape(len(out), -1).mean(-1))


def _block_bounds(block_num: Any, img: Tensor) -> tuple[int, int]:
    """Bounds of k in [low, high), for 2^k blocks along a side."""
    pair_of = block_num if isinstance(block_num, (tuple, list)) else (1, block_num)
    if len(pair_of) != 2:
        raise ValueError(f"block_num: expected a number or two bounds, got {kind(block_num)}")
    low, high = (whole("block_num", n, 0) for n in pair_of)
    if low >= high:
        raise ValueError(f"block_num: expected more than {low}, the first bound, got {high}")
    if high > 32 or min(img.shape[-2:]) < 2 ** (high - 1):
        raise ValueError(
            f"block_num: expected at most {min(img.shape[-2:])} blocks along a side of "
            f"{list(img.shape[-2:])} pixels, got 2**{high - 1}; give a smaller one"
        )
    return low, high


def _saliency(features: Any, img: Tensor) -> Tensor:
    expected = (len(img), *img.shape[-2:])
    if not isinstance(features, Tensor) or features.shape != expected:
        raise ValueError(
            f"features: expected a saliency map {list(expected)}, got {kind(features)}; "
            "fused_mixup.saliency.input_gradient makes one"
        )
    if not features.is_floating_point():
        raise TypeError(f"features: expected floats, got {features.dtype}; use .float()")
    return features


def _check_noise(noise: Any, img: Tensor) -> None:
    if not isinstance(noise, Tensor) or noise.shape != img.shape:
        raise ValueError(f"noise: expected a tensor like img, got {kind(noise)}")


def _statistics(img: Tensor, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    default = _CIFAR if img.shape[-1] < 64 else _IMAGENET
    found = []
    for name, given, values in (("mean", mean, default[0]), ("std", std, default[1])):
        if given is None:
            if img.shape[1] != len(values):
                raise ValueError(f"{name}: expected a tensor [1, {img.shape[1]}, 1, 1], got None")
            given = torch.tensor(values, device=img.device).view(1, -1, 1, 1)
        elif not isinstance(given, Tensor) or given.shape != (1, img.shape[1], 1, 1):
            raise ValueError(
                f"{name}: expected a tensor [1, {img.shape[1]}, 1, 1], got {kind(given)}"
            )
        found.append(given)
    return found[0], found[1]


def _add_noise(
    pairs: Pairs, noise: Any, noisy: list[bool], mean: Tensor, std: Tensor
) -> tuple[Pairs, Tensor]:
    """Noise on the samples, or on their partners, of pixels in [0, 1]; and the partners, apart."""
    sides = [(pairs.images, noise), (pairs.images[pairs.index], noise[pairs.index])]
    for k, (images, extra) in enumerate(sides):
        if noisy[k]:
            shifted = torch.clamp(images * std + mean + extra, 0, 1)
            sides[k] = (shifted - mean) / std, extra
    own = Pairs(sides[0][0], None, pairs.index, pairs.labels, pairs.shuffle)
    return own, sides[1][0]
