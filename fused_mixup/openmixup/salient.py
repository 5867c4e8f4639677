"""The mixes whose labels weigh by a saliency map: snapmix, guidedmix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import kind
from ..saliency.activation import class_activation
from ..saliency.filters import gaussian_blur
from .calls import check_call
from .draws import Box, cut_share, draw_cut_box, draw_lam, outside_share
from .numbers import bounds, choice, number, whole
from .pairs import Pairs, pair
from .values import blend_by_map, paste_resized_

FourTargets = tuple[Any, Any, Tensor, Tensor]


@torch.no_grad()
def snapmix(
    img: Tensor,
    gt_label: Tensor,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    features: Tensor | tuple[Tensor, Tensor, Tensor] | None = None,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Tensor, FourTargets]:
    """SnapMix: a box of the partner, resized into a box of the sample, in place.

    Labels weigh by the class activation that is left, ``1 - Σ S[box] / Σ S``, and that comes,
    ``Σ S_p[box'] / Σ S_p``; they need not sum to one. Samples of one class get both.

    Args:
        img: [N, C, H, W].
        gt_label: class indices [N].
        alpha: of Beta(α, α), from which both boxes are drawn.
        lam: the size of both boxes, given.
        features: maps S [N, H, W], or ``(hidden, weight, bias)``, features of a network and its
            classifier, as OpenMixup's model hands them over: S is then
            :func:`fused_mixup.saliency.class_activation`.

    Returns:
        ``img`` itself, written, and ``(y_a, y_b, lam_a, lam_b)``, weights [N]. Where a box is
        empty, images stay.

    Source: Huang et al., SnapMix, 2021, arXiv 2012.04846.
    """
    compat = check_call(snapmix, img, gt_label, dist_mode, compat, kwargs, ranks=False, views=False)
    if gt_label.ndim != 1:
        raise ValueError(f"gt_label: expected class indices [N], got {list(gt_label.shape)}")
    if isinstance(features, tuple) and len(features) == 3:
        features = class_activation(*features, gt_label, img.shape[-2:])
    maps = _map("features", features, img)
    theirs_lam = lam
    lam = draw_lam(alpha, lam)
    theirs_lam = draw_lam(alpha, theirs_lam)
    pairs = pair(img, gt_label, False)
    box, source = (draw_cut_box(pairs.size, cut_share(s)) for s in (lam, theirs_lam))
    if not (_area(box) and _area(source)):
        ones = torch.ones(len(img), device=img.device)
        return img, (*pairs.labels, ones, 1 - ones)
    paste_resized_(pairs, box, "bilinear", source, exact=bool(compat))
    maps_theirs = pairs.partner_of(maps)
    lam_a, lam_b = 1 - _mass(maps, box), _mass(maps_theirs, source)
    same = pairs.labels[0] == pairs.labels[1]
    together = lam_a + lam_b
    outside = float(outside_share(box, pairs.size))
    weights = []
    for own, share in ((lam_a, outside), (lam_b, 1 - outside)):
        weight = torch.where(same, together, own)
        weights.append(torch.where(weight.isnan(), share, weight))
    return img, (*pairs.labels, weights[0], weights[1])


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _mass(maps: Tensor, box: Box) -> Tensor:
    """[N]: the share of a map's sum that lies in the box."""
    y0, x0, y1, x1 = box
    return maps[:, y0:y1, x0:x1].sum(2).sum(1) / (maps.sum(2).sum(1) + 1e-8)


@torch.no_grad()
def guidedmix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    features: Tensor | None = None,
    guided_type: str = "ap",
    condition: str = "greedy",
    distance_metric: str = "l2",
    size: tuple[int, int] = (7, 7),
    sigma: tuple[float, float] = (3, 3),
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, FourTargets]:
    """GuidedMixup: each pixel is shared by how salient it is in both images.

    ``m * img + (1 - m) * img[index]``, ``m = S / (S + S[index])`` with S blurred and of sum 1;
    partners are those of a cycle through the batch along which maps differ much.

    Args:
        img: [N, C, H, W], or two views.
        gt_label: [N, …].
        alpha, lam: a λ is drawn if none is given, and not used.
        features: saliency maps S [N, H, W], >= 0.
        guided_type: how the caller made them; not read.
        condition: ``"greedy"``.
        distance_metric: ``"l2"``, ``"l1"``, ``"cosine"`` or ``"cosine_abs"``, of two maps.
        size, sigma: of the blur, (width, height).
        return_mask: also return m, [N, 3, H, W].
        compat: partners are a drawn permutation, and the cycle is not used, as in OpenMixup.

    Returns:
        A new tensor (float32 for half precision, as OpenMixup's), or ``(img, mask)``; and
        ``(y_a, y_b, lam, 1 - lam)``, λ [N, 1], the mean of m. Where both maps are 0, m is ½
        (NaN in OpenMixup).

    Source: Kang and Kim, GuidedMixup, 2023, arXiv 2306.16612.
    """
    compat = check_call(guidedmix, img, gt_label, dist_mode, compat, kwargs, ranks=False)
    choice("condition", condition, ("greedy",))
    choice("distance_metric", distance_metric, ("l2", "l1", "cosine", "cosine_abs"))
    maps = _map("features", features, img)
    maps = gaussian_blur(maps, _two("size", size, whole), _two("sigma", sigma, number))
    draw_lam(alpha, lam)
    pairs = pair(img, gt_label, False, compat=bool(compat))
    maps = maps / maps.sum((-1, -2), keepdim=True)
    if not compat:
        cycle = torch.from_numpy(far_cycle(map_distances(maps, distance_metric)))
        pairs = _with_partners(pairs, cycle.to(img.device), gt_label)
    theirs = pairs.partner_of(maps)
    total = maps + theirs
    m = torch.where(total > 0, maps / total, 0.5)
    out: Any = blend_by_map(pairs.to_float32(), m.float())
    share = m.mean((-1, -2))[:, None]
    if return_mask:
        out = out, torch.stack([m] * 3, 1)
    return out, (*pairs.labels, share, 1 - share)


def _with_partners(pairs: Pairs, index: Tensor, gt_label: Tensor) -> Pairs:
    """The pairs with other partners; a second view stays with its first."""
    if pairs.other is not None:
        return pairs
    return Pairs(pairs.images, None, index, (gt_label, gt_label[index.to(gt_label.device)]), index)


def map_distances(maps: Tensor, metric: str) -> np.ndarray:
    """[N, N]: how far the maps [N, H, W] of two images lie apart."""
    flat = maps.flatten(1)
    if metric in ("l1", "l2"):
        p = 1.0 if metric == "l1" else 2.0
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(flat, flat, p=p, compute_mode=mode).cpu().numpy()
    unit = flat / flat.norm(dim=1, keepdim=True)
    similar = unit @ unit.T
    return (1 - (similar.abs() if metric == "cosine_abs" else similar)).cpu().numpy()


def far_cycle(distance: np.ndarray) -> np.ndarray:
    """int64 [N]: the partner of each image on one cycle through all.

    The cycle starts with the two images that lie farthest apart; from each on it goes to the
    farthest that is not on it yet.
    """
    distance = distance.copy()
    np.fill_diagonal(distance, -np.inf)
    start, at = np.unravel_index(distance.argmax(), distance.shape)
    partner = np.zeros(len(distance), np.int64)
    partner[start] = at
    distance[:, start] = -np.inf
    for _ in range(len(distance) - 2):
        distance[:, at] = -np.inf
        partner[at] = distance[at].argmax()
        at = partner[at]
    partner[at] = start
    return partner


def _two(name: str, values: Any, check: Callable[[str, Any, int], Any]) -> tuple[Any, Any]:
    values = bounds(name, values)
    return check(name, values[0], 0), check(name, values[1], 0)


def _map(name: str, maps: Any, img: Tensor) -> Tensor:
    expected = (len(img), *img.shape[-2:])
    if not isinstance(maps, Tensor) or maps.shape != expected:
        raise ValueError(
            f"{name}: expected maps {list(expected)}, got {kind(maps)}; fused_mixup.saliency makes "
            "them"
        )
    if not maps.is_floating_point():
        raise TypeError(f"{name}: expected floats, got {maps.dtype}; use .float()")
    return maps
