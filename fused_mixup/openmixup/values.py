"""The values of a mixed batch, each in one pass of the package's ops.

Every function takes :class:`~fused_mixup.openmixup.pairs.Pairs`. Functions that end in ``_`` write
``pairs.images``, as OpenMixup's mixes that paste do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..codes import MASK_INVERT, MASK_SEPARABLE, MASK_STORED, MASK_THRESHOLD
from ..collage.layouts import shifted_cutmix
from ..collage.patches import mix_patches
from ..collage.rectangles import mix_rectangles
from ..masks import MixMask
from ..masks.mix_mask import known_mask
from ..memory import recycled_scratch
from ..mixing import mix, paste_
from ..plan import MixPlan
from ..plan.patches import PatchPlan
from ..plan.rectangles import RectanglePlan
from .draws import Box
from .pairs import Pairs


def blend(pairs: Pairs, lam: float) -> Tensor:
    """λ·x + (1-λ)·x_partner."""
    return mix(pairs.images.detach(), _plan(pairs, float(lam)), other=pairs.other)


def blend_by_map(pairs: Pairs, mask: Tensor, *, partner_shows: bool = False) -> Tensor:
    """m·x + (1-m)·x_partner, m [B or 1, h, w] enlarged to the images, nearest.

    ``partner_shows``: m is the share of the partner.
    """
    code = MASK_STORED + (MASK_INVERT if partner_shows else 0)
    device, count = pairs.images.device, len(mask)
    codes = torch.full((count,), code, dtype=torch.int32, device=device)
    threshold = torch.zeros(count, device=device)
    return _blend_by(pairs, MixMask(codes, threshold, map=mask.contiguous()))


def blend_by_threshold(
    pairs: Pairs, rows: Tensor, columns: Tensor, threshold: float, *, partner_shows: bool = False
) -> Tensor:
    """x where Σ_k rows[k, y]·columns[k, x] > ``threshold``, its partner elsewhere, or the reverse.

    ``rows`` [R, H] and ``columns`` [R, W], one mask for all samples.
    """
    code = MASK_SEPARABLE + MASK_THRESHOLD + (MASK_INVERT if partner_shows else 0)
    return _blend_by_lines(pairs, code, threshold, rows, columns)


def blend_by_product(pairs: Pairs, rows: Tensor, columns: Tensor) -> Tensor:
    """The partner by k = rows[y]·columns[x], in [0, 1]: weights 1 - k and, of that, the rest to 1.

    ``rows`` [H] and ``columns`` [W], one mask for all samples.
    """
    code = MASK_SEPARABLE + MASK_INVERT
    return _blend_by_lines(pairs, code, 0.0, rows[None], columns[None])


def blend_swapped(pairs: Pairs, mask: Tensor) -> Tensor:
    """m·x_partner + (1-m)·x, each weight as it is; at the price of a copy of the partners."""
    pool = pairs.images if pairs.other is None else pairs.other
    own = torch.arange(len(pairs.images), device=pairs.images.device)
    swapped = Pairs(pool[pairs.index], pairs.images, own, pairs.labels, pairs.shuffle)
    return blend_by_map(swapped, mask)


def _blend_by_lines(
    pairs: Pairs, code: int, threshold: float, rows: Tensor, columns: Tensor
) -> Tensor:
    """By a separable mask, rows [R, H] and columns [R, W]."""
    device = pairs.images.device
    tables = (t.float()[None].contiguous().to(device) for t in (rows, columns))
    codes = torch.full((1,), code, dtype=torch.int32, device=device)
    mask = known_mask(codes, torch.full((1,), threshold, device=device), *tables)
    return _blend_by(pairs, mask)


def _blend_by(pairs: Pairs, mask: MixMask) -> Tensor:
    return mix(pairs.images.detach(), _plan(pairs).with_mask(mask), other=pairs.other)


def _plan(pairs: Pairs, lam: float = 1.0) -> MixPlan:
    pool = None if pairs.other is None else len(pairs.other)
    return MixPlan.uniform(len(pairs.images), pairs.index, lam, pool=pool)


# ------------------------------------------------------------------ boxes, in place


def paste_box_(pairs: Pairs, box: Box) -> Tensor:
    """The partner inside the box."""
    y0, x0, y1, x1 = box
    if y0 == y1 or x0 == x1:
        return pairs.images
    if pairs.other is None:
        plan = MixPlan.uniform(len(pairs.images), pairs.index, 1.0, box)
        paste_(pairs.images.detach(), plan)
    else:
        pairs.images[:, :, y0:y1, x0:x1] = pairs.other[pairs.index, :, y0:y1, x0:x1]
    return pairs.images


def paste_resized_(
    pairs: Pairs, box: Box, resample: str, source: Box | None = None, *, exact: bool = False
) -> Tensor:
    """The partner, or its rectangle ``source``, resized into the box.

    ``exact``: by PyTorch's own function, whose bilinear values may differ in their last bit. With
    a ``source`` corners are aligned.
    """
    y0, x0, y1, x1 = box
    if y0 == y1 or x0 == x1:
        return pairs.images
    size = y1 - y0, x1 - x0
    # PyTorch interpolates bytes in whole numbers.
    fused = resample == "bilinear" and not exact and pairs.images.is_floating_point()
    if resample == "nearest" or fused:
        small = _resized(pairs, size, resample, source)
    else:
        small = _interpolated(pairs, size, resample, source)
    pairs.images[:, :, y0:y1, x0:x1] = small
    return pairs.images


def _resized(pairs: Pairs, size: tuple[int, int], resample: str, source: Box | None) -> Tensor:
    """What the box will show, on a canvas of its size: no more of the images is read."""
    part = (0, 0, *pairs.size) if source is None else source
    way = resample if source is None else "bilinear_aligned"
    images, count = pairs.images.detach(), len(pairs.images)
    boxes = torch.tensor((part, (0, 0, *size)), dtype=torch.int32, device=images.device)
    source_box, box = boxes[:, None, None].expand(2, count, 1, 4)
    weight = torch.ones((), device=images.device).expand(count, 2)  # not read
    canvas = RectanglePlan(pairs.index[:, None], source_box, box, weight, way, fill=0.0, size=size)
    return mix_rectangles(images, canvas, pairs.other, _scratch(images, size))


def _scratch(images: Tensor, size: tuple[int, int]) -> Tensor | None:
    if not images.is_contiguous():
        return None
    return recycled_scratch(images, (*images.shape[:-2], *size))


def move_windows(x: Tensor, source: Tensor, to: Tensor, size: Tensor) -> Tensor:
    """A new tensor: x[i] with the window at ``source_i`` of x[B-1-i], placed at ``to_i``."""
    plan = shifted_cutmix(len(x), x.shape[-2:], torch.cat((to, to + size), 1), source, "flip")
    return mix_rectangles(x.detach(), plan)


def _interpolated(pairs: Pairs, size: tuple[int, int], mode: str, source: Box | None) -> Tensor:
    pool = pairs.images if pairs.other is None else pairs.other
    y0, x0, y1, x1 = (0, 0, *pairs.size) if source is None else source
    part = pool[pairs.index, :, y0:y1, x0:x1]
    aligned = True if source is not None else None
    return torch.nn.functional.interpolate(part, size=size, mode=mode, align_corners=aligned)


# ------------------------------------------------------------------ patches


def blend_patches(
    pairs: Pairs, mask: Tensor, moves: tuple[Tensor, Tensor] | None, partners: Tensor | None
) -> Tensor:
    """m·T(x) + (1-m)·T'(x_partner), m [B, mh, mw] and T, T' maps of patches, or none.

    ``partners``: [B, C, H, W] in place of ``pairs``' own.
    """
    first, second = (None, None) if moves is None else moves
    if partners is None:
        plan = PatchPlan(first, None, mask, pairs.index, second)
        return mix_patches(pairs.images.detach(), plan)
    images = pairs.images
    if moves is not None:
        images, partners = (
            mix_patches(t, PatchPlan(move))
            for t, move in zip((images, partners), moves, strict=True)
        )
    own = torch.arange(len(images), device=images.device)
    return blend_by_map(Pairs(images, partners, own, pairs.labels, pairs.shuffle), mask)


def box_mask(pairs: Pairs, box: Box) -> Tensor:
    """float32 [B, 1, H, W], expanded: 1 inside the box."""
    y0, x0, y1, x1 = box
    mask = torch.zeros((1, 1, *pairs.size), device=pairs.images.device)
    mask[:, :, y0:y1, x0:x1] = 1
    return mask.expand(len(pairs.images), -1, -1, -1)
