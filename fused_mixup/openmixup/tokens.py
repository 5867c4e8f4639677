"""The mixes on a grid of tokens: tokenmix, mixpro, smmix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..masks.fields import check_host
from .calls import check_call
from .draws import TOKENS, draw_blocks, draw_kept_cells, draw_lam, draw_side, draw_tokens
from .given import class_attention, image_maps
from .masks import enlarged
from .numbers import check_lam, choice, number, whole
from .pairs import Pairs, Targets, pair
from .values import blend_by_map, move_windows


@torch.no_grad()
def tokenmix(
    img: Tensor,
    gt_label: Any,
    attn: Tensor | None = None,
    alpha: float = 1.0,
    dist_mode: bool = False,
    mask_type: str = "block",
    minimum_tokens: int = 14,
    lam: float | None = None,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, tuple[Any, Any, Tensor, Tensor]]:
    """TokenMix: the partner fills blocks of a 14 × 14 grid; labels weigh by attention.

    ``(1 - m) * img + m * img[index]``; ``score_a = Σ (1 - m) * a``, ``score_b = Σ m * a[index]``,
    a the attention of the class token.

    Args:
        img, gt_label: as :func:`mixup`.
        attn: [N, heads, 197, 197], of the images before they are mixed, class token first. None:
            scores are shares of the area.
        alpha, lam: int((1-λ)·196) + ``minimum_tokens`` cells go to the partner.
        mask_type: ``"block"``, rectangles, or ``"random"``, single cells.
        return_mask: also return m, float32 [N, 1, H, W].
        compat: attention is summed on the wrong sides, Σ m·a and Σ (1-m)·a[index], and the mask is
            [1, 1, 14, 14], as in OpenMixup.

    Returns:
        A new tensor (float32 for half precision, as OpenMixup's), or ``(img, mask)``; and
        ``(y_a, y_b, score_a, score_b)``, scores [N].

    Source: Liu et al., TokenMix, 2022, arXiv 2207.08409.
    """
    compat = check_call(tokenmix, img, gt_label, dist_mode, compat, kwargs, ranks=False)
    choice("mask_type", mask_type, ("block", "random"))
    minimum_tokens = whole("minimum_tokens", minimum_tokens, 0)
    if attn is not None:
        attention = class_attention(image_maps("attn", attn, img, 4), TOKENS * TOKENS)
    lam = draw_lam(alpha, lam)
    pairs = pair(img, gt_label, False, compat=bool(compat))
    cells = (draw_blocks if mask_type == "block" else draw_tokens)(lam, minimum_tokens)
    mask = torch.from_numpy(cells)[None].to(img.device)  # [1, 14, 14]
    out: Any = blend_by_map(pairs.to_float32(), mask, partner_shows=True)
    if return_mask:
        full = enlarged(mask, pairs.size).expand(len(out), -1, -1, -1)
        out = out, mask[None] if compat else full
    flat = mask.view(1, -1)
    if attn is None:
        ones = torch.ones(len(pairs.images), device=img.device)
        return out, (*pairs.labels, ones * (1 - flat.mean()), ones * flat.mean())
    flat = flat.to(attention.device)
    theirs = pairs.partner_of(attention)
    sides = (flat, 1 - flat) if compat else (1 - flat, flat)
    score_a, score_b = ((m * a).sum(1) for m, a in zip(sides, (attention, theirs), strict=True))
    return out, (*pairs.labels, score_a, score_b)


@torch.no_grad()
def mixpro(
    img: Tensor,
    gt_label: Any,
    attn: Tensor | None = None,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    num_classes: int = 100,
    smoothing: float = 0.1,
    mask_patch_size: int = 64,
    model_patch_size: int = 16,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Tensor, Targets, Tensor, Tensor]:
    """MixPro: each sample keeps a drawn share λ of large cells.

    ``m * img + (1 - m) * img[index]``, m 1 in ceil(λ·g) of the g cells, drawn for each sample.

    Args:
        img, gt_label: as :func:`mixup`.
        attn: [N, heads, 1 + T, 1 + T], of the images before they are mixed, class token first.
            None: the attention share is the share of the cells (OpenMixup mixes nothing, and
            raises).
        num_classes, smoothing: of the soft labels.
        mask_patch_size: pixels along a side of a cell.
        model_patch_size: pixels along a side of a patch of ``attn``.
        return_mask: not read, as in OpenMixup.
        compat: soft labels weigh classes, not samples, with N = ``num_classes``, as in OpenMixup,
            which raises for any other N.

    Returns:
        A new tensor; ``(y_a, y_b, lam)``, λ float32 [N], the share of cells; the share of
        attention on what the sample keeps, [N]; soft labels float32 [N, num_classes].

    Source: Zhao et al., MixPro, 2023, arXiv 2304.12043.
    """
    compat = check_call(mixpro, img, gt_label, dist_mode, compat, kwargs, ranks=False)
    sizes = mask_patch_size, model_patch_size = (
        whole("mask_patch_size", mask_patch_size, 1),
        whole("model_patch_size", model_patch_size, 1),
    )
    grid = [n // model_patch_size for n in img.shape[-2:]]
    if attn is not None:
        if sizes[0] % sizes[1]:
            raise ValueError(
                f"mask_patch_size: expected a multiple of model_patch_size, {sizes[1]}, got "
                f"{sizes[0]}"
            )
        attention = class_attention(image_maps("attn", attn, img, 4), grid[0] * grid[1])
    num_classes, smoothing = whole("num_classes", num_classes, 1), number("smoothing", smoothing)
    _check_classes(gt_label, num_classes)
    lam = draw_lam(alpha, lam)
    pairs = pair(img, gt_label, False, compat=bool(compat))
    # Of two views, the first of another row: the labels' partner.
    pairs = Pairs(pairs.images, None, pairs.shuffle, pairs.labels, pairs.shuffle)
    h, w = pairs.size
    cells = math.ceil(h / mask_patch_size), math.ceil(w / mask_patch_size)
    kept, share = draw_kept_cells(len(pairs.images), cells, lam)
    rows, columns = (torch.arange(n) // mask_patch_size for n in (h, w))
    if h % mask_patch_size or w % mask_patch_size:  # the last cells are cut off
        mask = kept[:, rows][:, :, columns]
    else:
        mask = kept
    out = blend_by_map(pairs.as_float(), mask.to(img.device))
    ratio = torch.full((len(out),), share, device=out.device)
    kept_attention = ratio
    if attn is not None:
        repeat = mask_patch_size // model_patch_size
        fine = kept.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)
        small = fine[:, : grid[0], : grid[1]].reshape(len(out), -1).to(attention.device)
        own, theirs = ((m * attention).sum(1) for m in (small, 1 - small))
        kept_attention = own / (own + theirs)
    y_a, y_b = pairs.labels
    soft_a, soft_b = (_smooth(y, num_classes, smoothing, out.device) for y in (y_a, y_b))
    weight = ratio if compat and len(out) == num_classes else ratio[:, None]
    soft = soft_a * weight + soft_b * (1.0 - weight)
    return out, (y_a, y_b, ratio), kept_attention, soft


def _check_classes(y: Tensor, num_classes: int) -> None:
    if y.ndim != 1 or y.is_floating_point():
        raise ValueError(f"gt_label: expected class indices [N], got {y.dtype} {list(y.shape)}")
    check_host("gt_label", (y >= 0) & (y < num_classes), f"classes below num_classes={num_classes}")


def _smooth(y: Tensor, num_classes: int, smoothing: float, device: torch.device) -> Tensor:
    """float32 [N, num_classes]: one-hot labels, smoothed."""
    low = smoothing / num_classes
    soft = torch.full((len(y), num_classes), low, device=device)
    return soft.scatter_(1, y.long().view(-1, 1).to(device), 1.0 - smoothing + low)


@torch.no_grad()
def smmix(
    img: Tensor,
    gt_label: Any,
    attn: Tensor | None = None,
    return_mask: bool = False,
    dist_mode: bool = False,
    lam: float | None = None,
    side: int = 14,
    min_side_ratio: float = 0.25,
    max_side_ratio: float = 0.75,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> Any:
    """SMMix: the partner's window of most attention replaces the sample's window of least.

    The partner of sample i is sample N-1-i; windows are squares of one drawn side.

    Args:
        img: [N, C, H, W].
        gt_label: [N, …].
        attn: [N, heads, 1 + side², 1 + side²], of these images, class token first.
        return_mask: also return ``(kept, pasted)``, [N, 1, H, W] in the dtype of ``attn``.
        lam: returned in place of the share outside the window.
        side: patches along a side of the images.
        min_side_ratio, max_side_ratio: bounds of the window's side over ``side``.
        compat: pixels beyond the last whole patch become 0, as in OpenMixup.

    Returns:
        A new tensor, ``(y_a, y_b, lam)``, and perhaps the masks: two or three values.

    Source: Chen et al., SMMix, 2023, arXiv 2212.12977.
    """
    compat = check_call(smmix, img, gt_label, dist_mode, compat, kwargs, ranks=False, views=False)
    side = whole("side", side, 1, min(img.shape[-2:]))
    low = number("min_side_ratio", min_side_ratio, 0, 1)
    if int(side * low) < 1:
        raise ValueError(
            f"min_side_ratio: expected windows of a patch or more of {side}, got {low}"
        )
    high = number("max_side_ratio", max_side_ratio, low, 1)
    check_lam(1.0, lam)
    attn = image_maps("attn", attn, img, 4)
    attention = class_attention(attn, side * side).reshape(-1, 1, side, side)
    window = draw_side(side, low, high)
    if lam is None:
        lam = (side**2 - window * window) / side**2
    # Sums in the order of OpenMixup's: windows may tie to the last bit.
    sums = torch.nn.functional.unfold(attention, (window, window)).sum(1)
    places = side - window + 1
    least, most = sums.argmin(1), sums.argmax(1).flip(0)
    patch = img.shape[-2] // side, img.shape[-1] // side
    steps = torch.tensor(patch, device=img.device)
    to, source = (
        torch.stack((at // places, at % places), 1).to(img.device) * steps for at in (least, most)
    )
    size = steps * window
    out = move_windows(img, source, to, size)
    if compat:
        out[..., patch[0] * side :, :] = 0
        out[..., patch[1] * side :] = 0
    target = gt_label, gt_label.flip(0), lam
    if not return_mask:
        return out, target
    pasted = _window_mask(to, size, img, attn.dtype)
    if compat:
        pasted = pasted[..., : patch[0] * side, : patch[1] * side]
    return out, target, (1 - pasted, pasted)


def _window_mask(start: Tensor, size: Tensor, img: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, 1, H, W]: 1 inside each sample's window."""
    lines = []
    for axis, n in enumerate(img.shape[-2:]):
        at = torch.arange(n, device=img.device) - start[:, axis, None]
        lines.append((at >= 0) & (at < size[axis]))
    return (lines[0][:, None, :, None] & lines[1][:, None, None, :]).to(dtype)
