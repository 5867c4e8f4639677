"""Label weights by how much of an attention map, or of a class map, is seen of each sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import check_number, kind
from ..losses.checks import check_logits, check_mixed_target
from ..target.mixed_target import MixedTarget
from .boxes import area_share, box_mass, pixel_of_cell
from .checks import (
    check_batch,
    check_box,
    check_floats,
    check_indices,
    check_integers,
    check_near,
    check_size,
    columns,
    square,
)

_TINY = 1e-8  # in the denominators of SnapMix and TokenMix


def _pair(share: Tensor) -> Tensor:
    """(λ, 1-λ) as float32 [B, 2]."""
    share = share.float()
    return torch.stack((share, 1.0 - share), 1)


def transmix_weights(
    attention: Tensor,  # [B, g²] or [B, h, w]
    box: Tensor,  # [B, 4]
    size: Sequence[int],  # (H, W)
    ratio: float = 0.5,
) -> Tensor:
    """TransMix: label weights half by area, half by the attention that each image gets.

    ``λ = ratio · (1 - area) + (1 - ratio) · Σ attention · (1 - M) / Σ attention``, where M is 1 for
    the tokens whose pixel ``(⌊i·H/h⌋, ⌊j·W/w⌋)`` lies in the box.

    Equivalent to (of one sample, on a grid of g²)::

        M = torch.zeros(1, 1, H, W)
        M[..., y0:y1, x0:x1] = 1
        M = F.interpolate(M, size=(g, g)).flatten()
        lam = ((y1 - y0) * (x1 - x0) / (H * W) + (attention * M).sum() / attention.sum()) / 2
        1 - lam, lam

    Args:
        attention: floats [B, g²] or [B, h, w], that of the class token to the others in the last
            block, averaged over heads, for the **mixed** images.
        box: int32 [B, 4], the pasted boxes (top, left, bottom, right) of a plan.
        size: (H, W) of the images.
        ratio: the share of the area, in [0, 1].

    Returns:
        float32 [B, 2]: (λ, 1 - λ).

    Raises:
        TypeError, ValueError: shapes that do not fit, tokens that are no square, a ratio outside
            [0, 1].

    Notes:
        No mask is built. Where the attention sums to 0 the area alone counts. No gradient flows.

    Source: Chen et al., TransMix, 2022, arXiv 2111.09833.
    """
    attention = square("attention", check_floats("attention", attention, "[B, g²]", (2, 3))).float()
    box = check_box("box", box, len(attention), 2)
    check_near("box", box, attention.device, "attention")
    sizes = check_size(size, 2)
    ratio = check_number("ratio", ratio)
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"ratio: expected a number in [0, 1], got {ratio}")
    edges = columns(box, attention.device)
    places = [
        pixel_of_cell(cells, pixels, attention.device)
        for cells, pixels in zip(attention.shape[1:], sizes, strict=True)
    ]
    area = area_share(edges, sizes)
    seen = box_mass(attention, edges, places) / attention.sum((1, 2))
    share = ratio * area + (1.0 - ratio) * torch.where(seen.isfinite(), seen, area)
    return _pair(share).flip(1)


def attention_weights(
    attention: Tensor,  # [B, g²] or [B, h, w]
    mask: Tensor,  # as attention
) -> Tensor:
    """Label weights by the attention that each image gets under any mask.

    ``λ = Σ attention · m / Σ attention`` with m the share of the sample itself in each token.

    Equivalent to::

        lam = (attention * mask).sum(1) / attention.sum(1)
        torch.stack((lam, 1 - lam), 1)

    Args:
        attention: floats [B, g²] or [B, h, w], as :func:`transmix_weights` takes them.
        mask: [B, …] or [1, …] of the shape of the attention: 1 where the sample itself is seen.

    Returns:
        float32 [B, 2]: (λ, 1 - λ).

    Raises:
        TypeError, ValueError: shapes that do not fit.

    Notes:
        Where the attention sums to 0, λ is the mean of the mask. No gradient flows.

    Source: Zhao et al., MixPro, 2023, arXiv 2304.12043.
    """
    attention = check_floats("attention", attention, "[B, g²] or [B, h, w]", (2, 3)).float()
    own = _check_mask(mask, attention, "attention").to(torch.float32)
    share = (attention * own).flatten(1).sum(1) / attention.flatten(1).sum(1)
    return _pair(torch.where(share.isfinite(), share, own.flatten(1).mean(1)))


def _check_mask(mask: object, maps: Tensor, like: str) -> Tensor:
    fits = isinstance(mask, Tensor) and (
        mask.shape[1:] == maps.shape[1:] and mask.ndim == maps.ndim and len(mask) in (1, len(maps))
    )
    if not isinstance(mask, Tensor) or not fits:
        raise ValueError(
            f"mask: expected shape {list(maps.shape)} as {like}, or of one row, got {kind(mask)}"
        )
    if mask.device != maps.device:
        raise ValueError(f"mask: expected it on {maps.device} like {like}, got {mask.device}")
    return mask.detach()


def mixpro_weights(
    attention: Tensor,  # [B, g²] or [B, h, w]
    mask: Tensor,  # as attention
    logits: Tensor,  # [B, K]
    target: MixedTarget,  # [B]
) -> Tensor:
    """MixPro: attention weighs the labels the more, the nearer the prediction is to the target.

    ``λ = c · λ_attention + (1 - c) · λ'`` with λ_attention of :func:`attention_weights`, λ' the
    target's own weight and ``c = cos(target, softmax(logits))``.

    Equivalent to::

        c = F.cosine_similarity(target.dense(), logits.softmax(1))
        lam = c * attention_weights(attention, mask)[:, 0] + (1 - c) * target.weight[:, 0]
        torch.stack((lam, 1 - lam), 1)

    Args:
        attention, mask: as :func:`attention_weights`; m is 1 for tokens of the sample itself.
        logits: [B, K], what the model says of the mixed batch.
        target: two labels a row with the weights by area, (λ', 1 - λ'), and its label smoothing.

    Returns:
        float32 [B, 2]: (λ, 1 - λ).

    Raises:
        TypeError, ValueError: shapes that do not fit, a target of more than two labels.

    Notes:
        The softmax [B, K] is held, once. No gradient flows.

    Source: Zhao et al., MixPro, 2023, arXiv 2304.12043.
    """
    check_logits(logits)
    if not isinstance(target, MixedTarget) or target.num_labels != 2 or logits.ndim != 2:
        got = kind(logits) if isinstance(target, MixedTarget) else kind(target)
        if isinstance(target, MixedTarget) and target.num_labels != 2:
            got = f"one of {target.num_labels} labels"
        raise ValueError(
            f"target: expected a MixedTarget of two labels a row for logits [B, K], got {got}"
        )
    check_mixed_target(logits, target)
    by_attention = attention_weights(attention, mask)
    check_batch("attention", by_attention, len(logits), "logits")
    p = logits.detach().float().softmax(1)
    c = torch.nn.functional.cosine_similarity(target.dense(), p)
    own = columns(target.weight, logits.device)[0]
    return _pair(c * by_attention[:, 0] + (1.0 - c) * own)


def tokenmix_weights(
    maps: Tensor,  # [B, h, w]
    mask: Tensor,  # [B, h, w] or [1, h, w]
    partner: Tensor,  # [B]
) -> Tensor:
    """TokenMix: each label has the share of its own map that is seen in the mix.

    ``λ_i = Σ S_i · m_i``, ``λ_p = Σ S_p · (1 - m_i)`` with each map S of sum 1: the two need not
    sum to one.

    Equivalent to::

        s = maps / (maps.sum((1, 2), keepdim=True) + 1e-8)
        torch.stack(((s * mask).sum((1, 2)), (s[partner] * (1 - mask)).sum((1, 2))), 1)

    Args:
        maps: floats [B, h, w] >= 0, how much of its class each token of the **unmixed** images
            shows: a teacher's label map, or attention.
        mask: 1 for tokens of the sample itself, 0 for those of its partner.
        partner: integers [B], as of a plan.

    Returns:
        float32 [B, 2].

    Raises:
        TypeError, ValueError: shapes that do not fit.

    Notes:
        The paper's code takes half of the label smoothing from each of the two weights; a target
        smooths in proportion to them. No gradient flows.

    Source: Liu et al., TokenMix, 2022, arXiv 2207.08409.
    """
    maps = check_floats("maps", maps, "[B, h, w]", (3,)).float()
    own = _check_mask(mask, maps, "maps").to(torch.float32)
    partner = check_integers("partner", partner, (len(maps),)).to(maps.device).long()
    check_indices("partner", partner, len(maps))
    maps = maps / (maps.sum((1, 2), keepdim=True) + _TINY)
    pasted = (maps[partner] * (1.0 - own)).sum((1, 2))
    return torch.stack(((maps * own).sum((1, 2)), pasted), 1)


def snapmix_weights(
    maps: Tensor,  # [B, h, w]
    box: Tensor,  # [B, 4]
    partner_box: Tensor,  # [B, 4]
    partner: Tensor,  # [B]
    labels: Tensor,  # [B]
) -> Tensor:
    """SnapMix: what a class map says the cut takes from the sample and brings from its partner.

    ``λ_i = 1 - Σ S_i[box] / ΣS_i``, ``λ_p = Σ S_p[partner_box] / ΣS_p``; where both have the same
    label each of them is the sum of both. They need not sum to one.

    Equivalent to (of one sample)::

        a = 1 - S[y0:y1, x0:x1].sum() / (S.sum() + 1e-8)
        b = S_p[v0:v1, u0:u1].sum() / (S_p.sum() + 1e-8)
        (a, b) if label != label_p else (a + b, a + b)

    Args:
        maps: floats [B, H, W], the class activation map of each unmixed image for its own label,
            upsampled to the size of the images, its minimum taken off.
        box: int32 [B, 4], where the patch goes (top, left, bottom, right).
        partner_box: int32 [B, 4], where it is taken from in the partner.
        partner: integers [B].
        labels: int64 [B].

    Returns:
        float32 [B, 2].

    Raises:
        TypeError, ValueError: shapes that do not fit.

    Notes:
        A weight that is NaN becomes that of the areas. Where a box is empty nothing is mixed, and
        the weights are (1, 0). The paper's code adds both weights of equal labels to both, so that
        they count twice in its loss; so does this. No gradient flows.

    Source: Huang et al., SnapMix, 2021, arXiv 2012.04846.
    """
    maps = check_floats("maps", maps, "[B, H, W]", (3,)).float()
    batch, *sizes = maps.shape
    boxes = [
        check_box(name, t, batch, 2) for name, t in (("box", box), ("partner_box", partner_box))
    ]
    for name, t in zip(("box", "partner_box"), boxes, strict=True):
        check_near(name, t, maps.device, "maps")
    partner = check_integers("partner", partner, (batch,)).to(maps.device).long()
    check_indices("partner", partner, len(maps))
    labels = check_integers("labels", labels, (batch,))
    places = [torch.arange(n, device=maps.device) for n in sizes]
    edges, taken = (columns(t, maps.device) for t in boxes)
    total = maps.sum((1, 2)) + _TINY
    area = area_share(edges, sizes)
    own = 1.0 - box_mass(maps, edges, places) / total
    # The partner's maps are gathered once; its box belongs to the row of the sample.
    other = box_mass(maps[partner], taken, places) / total[partner]
    same = labels == labels[partner]
    both = own + other
    own, other = (torch.where(same, both, x) for x in (own, other))
    own = torch.where(own.isnan(), 1.0 - area, own)
    other = torch.where(other.isnan(), area, other)
    mixed = (area > 0) & (area_share(taken, sizes) > 0)
    return torch.stack((torch.where(mixed, own, 1.0), torch.where(mixed, other, 0.0)), 1)
