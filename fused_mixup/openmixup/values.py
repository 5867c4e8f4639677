"""The values of a mixed batch, each in one pass of the package's ops.

Every function takes :class:`~fused_mixup.openmixup.pairs.Pairs`. Functions that end in ``_`` write
``pairs.images``, as OpenMixup's mixes that paste do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..mixing import mix, paste_
from ..plan import MixPlan
from .draws import Box
from .pairs import Pairs


def blend(pairs: Pairs, lam: float) -> Tensor:
    """λ·x + (1-λ)·x_partner."""
    if pairs.other is None:
        plan = MixPlan.uniform(len(pairs.images), pairs.index, lam)
        return mix(pairs.images.detach(), plan)
    return lam * pairs.images + (1 - lam) * pairs.other[pairs.index]


def paste_box_(pairs: Pairs, box: Box) -> Tensor:
    """The partner inside the box."""
    y0, x0, y1, x1 = box
    if y0 == y1 or x0 == x1:
        return pairs.images
    if pairs.other is None:
        plan = MixPlan.uniform(len(pairs.images), pairs.index, 1.0, box)
        paste_(pairs.images.detach(), plan)
        return pairs.images
    pairs.images[:, :, y0:y1, x0:x1] = pairs.other[pairs.index, :, y0:y1, x0:x1]
    return pairs.images


def paste_resized_(pairs: Pairs, box: Box, mode: str, source: Box | None = None) -> Tensor:
    """The partner, or its rectangle ``source``, resized into the box."""
    y0, x0, y1, x1 = box
    if y0 == y1 or x0 == x1:
        return pairs.images
    partner = (pairs.images if pairs.other is None else pairs.other)[pairs.index]
    if source is not None:
        partner = partner[:, :, source[0] : source[2], source[1] : source[3]]
    corners = True if source is not None else None
    small = torch.nn.functional.interpolate(
        partner, size=(y1 - y0, x1 - x0), mode=mode, align_corners=corners
    )
    pairs.images[:, :, y0:y1, x0:x1] = small
    return pairs.images


def blend_by_mask(pairs: Pairs, mask: Tensor, partner_shows: bool = False) -> Tensor:
    """m·x + (1-m)·x_partner; with ``partner_shows``, ``mask`` [B or 1, h, w] is the partner's."""
    m = torch.nn.functional.interpolate(mask[:, None].float(), size=pairs.size, mode="nearest")
    partner = (pairs.images if pairs.other is None else pairs.other)[pairs.index]
    if partner_shows:
        return pairs.images * (1 - m) + partner * m
    return m * pairs.images + (1 - m) * partner


def box_mask(pairs: Pairs, box: Box) -> Tensor:
    """float32 [B, 1, H, W], expanded: 1 inside the box."""
    y0, x0, y1, x1 = box
    mask = torch.zeros((1, 1, *pairs.size), device=pairs.images.device)
    mask[:, :, y0:y1, x0:x1] = 1
    return mask.expand(len(pairs.images), -1, -1, -1)
