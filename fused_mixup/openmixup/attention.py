"""The mixes by feature maps and attention: attentivemix, transmix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments import integer_tuple, kind
from ..masks.fields import check_host
from .calls import check_call
from .draws import cut_share, draw_cut_box, draw_lam, outside_share
from .given import class_attention, image_maps
from .masks import attentive_cells, enlarged
from .numbers import check_lam, number, whole
from .pairs import Targets, pair
from .values import blend_by_map, box_mask, paste_box_


@torch.no_grad()
def attentivemix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    features: Tensor | None = None,
    grid_scale: float = 32,
    top_k: int | None = 6,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """AttentiveMix+: each sample keeps its most salient cells, the partner fills the others.

    ``m * img + (1 - m) * img[index]``, m 1 in the ``top_k`` cells of largest mean over channels.

    Args:
        img, gt_label: as :func:`mixup`.
        alpha, lam: a λ is drawn if none is given; it counts with ``top_k=None`` alone.
        features: [N, C, gh, gw], of a pre-trained network.
        grid_scale: not read; cells are as large as the images make them.
        top_k: how many cells; None for λ of them.
        return_mask: also return m, float32 [N, 1, H, W].

    Returns:
        A new tensor (float32 for half precision, as OpenMixup's), or ``(img, mask)``; and
        ``(y_a, y_b, lam)``, λ a float: the share that the first sample keeps.

    Source: Walawalkar et al., Attentive CutMix, 2020, arXiv 2003.13048.
    """
    compat = check_call(attentivemix, img, gt_label, dist_mode, compat, kwargs, ranks=False)
    features = image_maps("features", features, img, 4)
    cells = features.shape[-2] * features.shape[-1]
    if top_k is not None and whole("top_k", top_k, 0) > cells:
        raise ValueError(f"top_k: expected at most the {cells} cells of features, got {top_k}")
    lam = draw_lam(alpha, lam)
    top_k = min(max(1, int(cells * lam)), cells) if top_k is None else int(top_k)
    pairs = pair(img, gt_label, False, compat=bool(compat))
    mask = attentive_cells(features, top_k).to(img.device)
    out = blend_by_map(pairs.to_float32(), mask)
    if return_mask:
        full = enlarged(mask, pairs.size)
        return (out, full), (*pairs.labels, float(full[0, 0].mean()))
    return out, (*pairs.labels, _share(mask[:1], pairs.size, top_k))


def _share(mask: Tensor, size: tuple[int, int], count: int) -> float:
    """The mean of the enlarged ``mask`` [1, gh, gw] of ``count`` ones, as float32 division has it.

    Where cells are of one size, nothing is read from the device.
    """
    sides = [n / g for n, g in zip(size, mask.shape[1:], strict=True)]
    if all(side.is_integer() for side in sides):
        area = torch.tensor(count * sides[0] * sides[1], dtype=torch.float32)
        return float(area / (size[0] * size[1]))
    return float(enlarged(mask, size).mean())


@torch.no_grad()
def transmix(
    img: Tensor,
    gt_label: Any,
    dist_mode: bool = False,
    alpha: float = 1.0,
    mask: Tensor | None = None,
    lam: float | Tensor | None = None,
    attn: Tensor | None = None,
    patch_shape: tuple[int, int] | None = None,
    return_mask: bool = False,
    ratio: float = 0.5,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """TransMix: CutMix, with λ from the attention that each part of the mixed image gets.

    ``lam = ratio * lam0 + (1 - ratio) * lam1``, λ0 the share outside the box, λ1 the attention on
    patches outside it over all attention.

    Args:
        img, gt_label, alpha, dist_mode: as :func:`cutmix`.
        mask: [N or 1, 1, H, W], the partner's share of each pixel, in place of a drawn box.
        lam: λ0, given; without ``mask`` it also sizes the box.
        attn: [N, heads, 1 + T, 1 + T], attention of the mixed images' last block, class token
            first; see :mod:`fused_mixup.saliency`. None: λ is λ0.
        patch_shape: (gh, gw), the grid of the T patches.
        return_mask: also return the mask.
        ratio: weight of λ0.
        compat: λ0 of a given mask is mean(mask) / (H·W), and over processes λ1 is the partner's,
            as OpenMixup has them.

    Returns:
        ``img`` itself, written (with ``mask`` a new tensor), or ``(img, mask)``; and
        ``(y_a, y_b, lam)``, λ a tensor [N] where there is ``attn``.

    Source: Chen et al., TransMix, 2022, arXiv 2111.09833.
    """
    compat = check_call(transmix, img, gt_label, dist_mode, compat, kwargs)
    ratio = number("ratio", ratio, 0, 1)
    if mask is not None:
        mask = _given_mask(mask, img)
    if attn is not None:
        attention = class_attention(image_maps("attn", attn, img, 4))
        grid = _patch_grid(patch_shape, attention.shape[1])
    if mask is None:
        lam = None if lam is None else number("lam", lam)
        share = draw_lam(alpha, lam)
    elif not isinstance(lam, Tensor) or lam.shape != (len(img),):
        check_lam(alpha, 0.0 if lam is None else lam)
    pairs = pair(img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat))
    if mask is None:
        box = draw_cut_box(pairs.size, cut_share(share))
        out = paste_box_(pairs, box)
        lam0: Any = outside_share(box, pairs.size)
        mask = box_mask(pairs, box)
    else:
        out = blend_by_map(pairs.to_float32(), mask[:, 0].float(), partner_shows=True)
        mean = mask[0, 0].float().mean()
        own = mean / (pairs.size[0] * pairs.size[1]) if compat else 1 - mean
        lam0 = own if lam is None else lam
    lam1 = lam0
    if attn is not None:
        shown = _attention_outside(attention, mask, grid)
        lam1 = 1 - shown if compat and dist_mode else shown
    weight = lam0 * ratio + lam1 * (1 - ratio)
    return (out, mask) if return_mask else out, (*pairs.labels, weight)


def _given_mask(mask: Any, img: Tensor) -> Tensor:
    mask = image_maps("mask", mask, img, 4, rows=(1, len(img)), floating=False)
    if mask.shape[1:] != (1, *img.shape[-2:]):
        raise ValueError(
            f"mask: expected [N or 1, 1, {img.shape[-2]}, {img.shape[-1]}], got {list(mask.shape)}"
        )
    check_host("mask", (mask >= 0) & (mask <= 1), "numbers in [0, 1]")
    return mask


def _patch_grid(grid: Any, patches: int) -> tuple[int, int]:
    try:
        rows, columns = integer_tuple("patch_shape", grid)
    except (TypeError, ValueError):
        rows = columns = 0
    if min(rows, columns) < 1 or rows * columns != patches:
        shown = list(grid) if isinstance(grid, (tuple, list, torch.Size)) else kind(grid)
        raise ValueError(
            f"patch_shape: expected the grid (gh, gw) of {patches} patches, got {shown}"
        )
    return rows, columns


def _attention_outside(attention: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """[N]: the share of ``attention`` [N, T] on patches where ``mask`` [N or 1, 1, H, W] is < 1."""
    small = torch.nn.functional.interpolate(mask.float(), size=grid, mode="nearest")
    inside = small.reshape(len(mask), -1).int().to(attention.device)
    theirs, own = ((m * attention).sum(1) for m in (inside, 1 - inside))
    return own / (theirs + own)
