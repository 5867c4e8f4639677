"""The values of a mixed batch, each in one pass of the package's ops.

Every function takes :class:`~fused_mixup.openmixup.pairs.Pairs`. Functions that end in ``_`` write
``pairs.images``, as OpenMixup's mixes that paste do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..codes import MASK_INVERT, MASK_SEPARABLE, MASK_STORED, MASK_THRESHOLD
from ..masks import MixMask
from ..mixing import mix, paste_
from ..plan import MixPlan
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
    return _blend_by(pairs, code, 0.0, map=mask.contiguous())


def blend_by_threshold(
    pairs: Pairs, rows: Tensor, columns: Tensor, threshold: float, *, partner_shows: bool = False
) -> Tensor:
    """x where Σ_k rows[k, y]·columns[k, x] > ``threshold``, its partner elsewhere, or the reverse.

    ``rows`` [R, H] and ``columns`` [R, W], one mask for all samples.
    """
    code = MASK_SEPARABLE + MASK_THRESHOLD + (MASK_INVERT if partner_shows else 0)
    tables = (t.float()[None].to(pairs.images.device) for t in (rows, columns))
    return _blend_by(pairs, code, threshold, *tables)


def blend_swapped(pairs: Pairs, mask: Tensor) -> Tensor:
    """m·x_partner + (1-m)·x, each weight as it is; at the price of a copy of the partners."""
    pool = pairs.images if pairs.other is None else pairs.other
    own = torch.arange(len(pairs.images), device=pairs.images.device)
    swapped = Pairs(pool[pairs.index], pairs.images, own, pairs.labels, pairs.shuffle)
    return blend_by_map(swapped, mask)


def _blend_by(
    pairs: Pairs,
    code: int,
    threshold: float,
    rows: Tensor | None = None,  # [1, R, H]
    columns: Tensor | None = None,  # [1, R, W]
    map: Tensor | None = None,  # [B or 1, h, w]
) -> Tensor:
    count = 1 if map is None else len(map)
    device = pairs.images.device
    codes = torch.full((count,), code, dtype=torch.int32, device=device)
    mask = MixMask(codes, torch.full((count,), threshold, device=device), rows, columns, map)
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
    pairs: Pairs, box: Box, mode: str, source: Box | None = None, *, exact: bool = False
) -> Tensor:
    """The partner, or its rectangle ``source``, resized into the box.

    ``exact``: by PyTorch's own function, whose bilinear values may differ in their last bit. With
    a ``source`` corners are aligned.
    """
    y0, x0, y1, x1 = box
    if y0 == y1 or x0 == x1:
        return pairs.images
    size = y1 - y0, x1 - x0
    small = _interpolated(pairs, size, mode, source)
    pairs.images[:, :, y0:y1, x0:x1] = small
    return pairs.images


def move_windows(x: Tensor, source: Tensor, to: Tensor, size: Tensor) -> Tensor:
    """A new tensor: x[i] with the window at ``source_i`` of x[B-1-i], placed at ``to_i``."""
    out = x.clone(memory_format=torch.contiguous_format)
    partner = x.flip(0)
    h, w = size.tolist()
    for i, ((y, x0), (v, u)) in enumerate(zip(to.tolist(), source.tolist(), strict=True)):
        out[i, :, y : y + h, x0 : x0 + w] = partner[i, :, v : v + h, u : u + w]
    return out


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
    own = torch.arange(len(pairs.images), device=pairs.images.device)
    theirs = pairs.images[pairs.index] if partners is None else partners
    images = pairs.images
    if moves is not None:
        images, theirs = (_moved(t, m) for t, m in zip((images, theirs), moves, strict=True))
    return blend_by_map(Pairs(images, theirs, own, pairs.labels, pairs.shuffle), mask)


def _moved(x: Tensor, index: Tensor) -> Tensor:
    """[B, C, H, W] of patches ``index`` [B, gh, gw] of x, zeros where it is below 0."""
    gh, gw = index.shape[1:]
    b, c, h, w = x.shape
    patches = x.view(b, c, gh, h // gh, gw, w // gw).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    flat = index.flatten(1)
    taken = patches[torch.arange(b, device=x.device)[:, None], flat.clamp(min=0)]
    taken = torch.where((flat >= 0)[:, :, None, None, None], taken, 0)
    grid = taken.view(b, gh, gw, c, h // gh, w // gw)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def box_mask(pairs: Pairs, box: Box) -> Tensor:
    """float32 [B, 1, H, W], expanded: 1 inside the box."""
    y0, x0, y1, x1 = box
    mask = torch.zeros((1, 1, *pairs.size), device=pairs.images.device)
    mask[:, :, y0:y1, x0:x1] = 1
    return mask.expand(len(pairs.images), -1, -1, -1)
