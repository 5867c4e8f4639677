"""Masks that are kept as maps: any map, sets of classes, patches, saliency."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_tensor, check_choice, check_number, integer, integer_tuple
from ..codes import MASK_IDENTITY, MASK_INVERT, MASK_SIGMOID, MASK_STORED, MASK_THRESHOLD
from .fields import (
    check_dims,
    check_host,
    check_same,
    float_table,
    image_size,
    integer_rows,
    mask_of,
)
from .mix_mask import MixMask

_FUNCTIONS = {"identity": MASK_IDENTITY, "sigmoid": MASK_SIGMOID, "threshold": MASK_THRESHOLD}


def stored_mask(
    map: Tensor,  # [B, 1, h, w] or [B, h, w]
    interpolation: str = "nearest",
    function: str = "identity",
    threshold: float = 0.5,
    complement: bool = False,
) -> MixMask:
    """A map of any size, interpolated to the images, then taken as it is or through a function.

    ``s = interpolate(map, (H, W))``; ``m = s``, ``1 / (1 + exp(-s))`` or ``[s > threshold]``; then
    perhaps ``1 - m``.

    Equivalent to (for nearest leave ``align_corners`` out)::

        s = F.interpolate(map.float(), (H, W), mode="bilinear", align_corners=False)
        m = {"identity": s, "sigmoid": s.sigmoid(), "threshold": (s > threshold).float()}[function]
        m = 1 - m if complement else m

    Args:
        map: [B, 1, h, w] or [B, h, w]; B = 1 holds for all samples of a batch. bool, uint8 of 0
            and 1, float16, bfloat16 or float32. Values in [0, 1] where the function is identity.
        interpolation: ``"nearest"`` or ``"bilinear"``.
        function: ``"identity"``, ``"sigmoid"`` of logits, or ``"threshold"``.
        threshold: of that function.
        complement: give the mask 1 - m: the map is the partner's.

    Returns:
        A mask of B samples that fits images of any size. It keeps the map, without a copy where
        rows are contiguous.

    Raises:
        TypeError: another dtype, or no tensor.
        ValueError: another shape, an unknown word; on the CPU also NaN, and values outside [0, 1]
            where the function is identity.

    Notes:
        The map is never made large: kernels interpolate where they mix. The function follows the
        interpolation. No gradient reaches the map.

    Source: Liu et al., AutoMix, 2022, arXiv 2103.13027 (sigmoid, bilinear); French et al., CowMix,
    2020, arXiv 2003.12022 (threshold).
    """
    values = as_tensor("map", map)
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 3:
        expected = "[B, 1, h, w] or [B, h, w]"
        raise ValueError(f"map: expected shape {expected}, got {list(values.shape)}")
    code = MASK_STORED + check_choice("function", function, _FUNCTIONS)
    code += MASK_INVERT if complement else 0
    level = check_number("threshold", threshold)
    if level != level:
        raise ValueError("threshold: expected a number, got NaN")
    return mask_of(code, values, level, map=values, interpolation=interpolation)


def class_mask(
    label_map: Tensor,  # [B, H, W]
    chosen: Tensor | Sequence[Sequence[int]],  # [B, n], or bool [B, K]
    complement: bool = False,
) -> MixMask:
    """Where the label of a pixel is one of the chosen classes of its sample.

    ``m[y, x] = 1`` where ``label_map[y, x]`` is chosen, else 0.

    Equivalent to::

        m = torch.stack([torch.isin(y, c) for y, c in zip(label_map, chosen)]).float()

    Args:
        label_map: [B, H, W] integers, of the sample whose pixels are kept: its own, or with
            ``complement=True`` the partner's, ``label_map[plan.partner]`` (copy-paste).
        chosen: [B, n] classes, filled up with a number that is no label; or bool [B, K], where K
            labels and more (255, say) are never chosen.
        complement: give the mask 1 - m.

    Returns:
        A mask of B samples, kept as bool [B, H, W]. Images of another size take the nearest pixel.

    Raises:
        TypeError: labels that are no integers, ``chosen`` that are neither integers nor bools.
        ValueError: shapes or devices that do not fit.

    Notes:
        No value is read from a device. ClassMix chooses half of the classes that are present.

    Source: Olsson et al., ClassMix, 2021, arXiv 2007.07936; Ghiasi et al., Simple copy-paste, 2021,
    arXiv 2012.07177.
    """
    labels = integer_rows("label_map", label_map, "B, H, W")
    classes = _chosen(chosen)
    check_dims("chosen", classes, "B, n")
    check_same("chosen", classes, "label_map", labels)
    if classes.dtype == torch.bool:
        k = classes.shape[1]
        if k == 0:
            raise ValueError("chosen: expected bool [B, K] with K of 1 and more, got K = 0")
        flat = labels.flatten(1)
        picked = classes.gather(1, flat.clamp(0, k - 1)) & (flat >= 0) & (flat < k)
        return stored_mask(picked.view(labels.shape), complement=complement)
    classes = integer_rows("chosen", classes, "B, n")
    hit = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    for c in classes.unbind(1):  # one at a time: all at once would take n maps
        hit |= labels == c[:, None, None]
    return stored_mask(hit, complement=complement)


def _chosen(chosen: Any) -> Tensor:
    """A tensor of the chosen classes; lists of several lengths make none."""
    if isinstance(chosen, (list, tuple)):
        lengths = {len(row) for row in chosen if isinstance(row, (list, tuple))}
        if len(lengths) > 1:
            raise ValueError(
                f"chosen: expected as many classes for each sample, got lists of {min(lengths)} to "
                f"{max(lengths)}; fill the short ones up with a number that is no label, -1 say"
            )
    return as_tensor("chosen", chosen)


def patch_mask(
    keep: Tensor,  # bool [B, gh·gw] or [B, gh, gw]
    grid: Sequence[int] | None = None,
    cell: int | None = None,
    size: Sequence[int] | None = None,
    complement: bool = False,
) -> MixMask:
    """Patches of a grid that the sample keeps; the partner has the others.

    ``m[y, x] = keep[floor(y · gh / H), floor(x · gw / W)]``, or with ``cell`` and ``size``
    ``keep[y // cell, x // cell]``, where the last cells are cut by the border.

    Equivalent to::

        m = F.interpolate(keep.view(B, 1, gh, gw).float(), (H, W), mode="nearest")

    Args:
        keep: bool [B, gh, gw], or [B, gh·gw], the tokens row by row.
        grid: (gh, gw) of flat tokens; the default is a square.
        cell: pixels of a side of a cell, where cells do not divide the image (MixPro).
        size: (H, W), together with ``cell``.
        complement: give the mask 1 - m: the patches are those that are pasted.

    Returns:
        A mask of B samples: gh·gw bytes a sample for images of any size, or H·W with ``cell``.

    Raises:
        TypeError: ``keep`` that is not bool.
        ValueError: shapes that do not fit, ``cell`` without ``size``, too few cells for the size.

    Notes:
        No value is read from a device.

    Source: Liu et al., TokenMix, 2022, arXiv 2207.08409; Walawalkar et al., Attentive CutMix, 2020,
    arXiv 2003.13048; Zhao et al., MixPro, 2023, arXiv 2304.12043.
    """
    kept = as_tensor("keep", keep)
    if kept.dtype != torch.bool:
        raise TypeError(f"keep: expected bool [B, gh, gw], got {kept.dtype}; compare, as keep > 0")
    if kept.ndim == 2:
        side = isqrt(kept.shape[1])
        shape = (side, side) if grid is None else integer_tuple("grid", grid)
        if len(shape) != 2 or min(shape) < 1 or shape[0] * shape[1] != kept.shape[1]:
            raise ValueError(
                f"grid: expected (gh, gw) of {kept.shape[1]} cells, 1 and more, got {list(shape)}"
            )
        kept = kept.view(-1, *shape) if kept.is_contiguous() else kept.reshape(-1, *shape)
    check_dims("keep", kept, "B, gh, gw")
    if (cell is None) != (size is None):
        raise ValueError("cell, size: expected both or neither, got one")
    if cell is not None and size is not None:
        side, sizes = integer("cell", cell), image_size(size)
        if side < 1 or any(g * side < n for g, n in zip(kept.shape[1:], sizes, strict=True)):
            raise ValueError(
                f"cell: expected {list(kept.shape[1:])} cells that cover {list(sizes)}, got cells "
                f"of {side} pixels"
            )
        y, x = (torch.arange(n, device=kept.device) // side for n in sizes)
        kept = kept[:, y][:, :, x]
    return stored_mask(kept, complement=complement)


def saliency_mask(
    own: Tensor,  # [B, 1, h, w] or [B, h, w]
    partner: Tensor,
    interpolation: str = "bilinear",
) -> MixMask:
    """Each pixel shares by saliency: ``m = S / (S + S_p)``, and ½ where both are 0.

    Equivalent to::

        m = own / (own + partner)

    Args:
        own: [B, 1, h, w] or [B, h, w] floats, 0 and more: the saliency of each sample.
        partner: the same of its partner, ``own[plan.partner]``.
        interpolation: of m to the images where the maps are smaller.

    Returns:
        A mask of B samples, kept as float32 [B, h, w].

    Raises:
        TypeError: no floats.
        ValueError: shapes or devices that differ; on the CPU also negative numbers and NaN.

    Notes:
        GuidedMixup blurs each map and divides it by its sum before. The label weight is
        ``mask.mean(size)``. No value is read from a device.

    Source: Kang and Kim, GuidedMixup, 2023, arXiv 2306.16612.
    """
    maps = []
    for name, value in (("own", own), ("partner", partner)):
        t = as_tensor(name, value)
        t = t[:, 0] if t.ndim == 4 and t.shape[1] == 1 else t
        t = float_table(name, t, "B, h, w").float()
        check_host(name, (t >= 0) & t.isfinite(), "finite numbers of 0 and more")
        maps.append(t)
    check_same("partner", maps[1], "own", maps[0])
    if maps[0].shape != maps[1].shape:
        shapes = [list(t.shape) for t in maps]
        raise ValueError(f"partner: expected shape {shapes[0]} as own, got {shapes[1]}")
    total = maps[0] + maps[1]
    share = torch.where(total > 0, maps[0] / total, 0.5)
    halves = maps[0] / 2, maps[1] / 2  # whose sum is finite
    share = torch.where(total.isinf(), halves[0] / (halves[0] + halves[1]), share)
    return stored_mask(share, interpolation)
