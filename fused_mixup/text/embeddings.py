"""Embeddings of padded sequences, mixed with their masks: :func:`mix_embeddings`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import implementation
from ..checks import check_batch
from ..codes import TENSOR
from ..dtypes import FLOATING
from ..mixing import mix
from ..plan.checks import check_no_pool
from ..plan.mix_plan import MixPlan
from ..reference.pairing import partner_indices, partner_rows
from .checks import check_embeddings, check_mask


def mix_embeddings(
    embeddings: Tensor,  # [B, T, H]
    attention_mask: Tensor | None,  # [B, T]
    plan: MixPlan,
) -> tuple[Tensor, Tensor | None]:
    """Blend padded sequences, with padding counted as zero, and merge their masks.

    ``out_it = blend_i0 · m_it · e_it + blend_i1 · m_jt · e_jt`` and ``mask_it = max(m_it, m_jt)``,
    with j the partner of i: a mixed sequence is as long as the longer of the two.

    Equivalent to::

        e = embeddings * (attention_mask != 0)[..., None]
        w = plan.blend.to(e.dtype).view(B, 2, 1, 1)
        e * w[:, 0] + e[partner] * w[:, 1], torch.maximum(attention_mask, attention_mask[partner])

    Args:
        embeddings: [B, T, H], float16, bfloat16, float32 or float64, any strides.
        attention_mask: [B, T], 0 where padded; bool, integers or floats. None: nothing is padded.
        plan: a plan for B samples that blends, without boxes and masks.

    Returns:
        The mixed embeddings, a tensor like ``embeddings``, and the merged mask in the dtype of
        ``attention_mask``, or None.

    Raises:
        TypeError: token ids, or no floating tensor.
        ValueError: shapes, devices or a plan that do not fit; on the CPU, a sequence that has no
            valid token.

    Notes:
        One pass, by the kernels of :func:`mix` with a row for each token: the same numerics,
        gradients and double backward. Values at padded places are never read into the result, NaN
        neither, and their gradient is 0. A partner whose weight is exactly 0 leaves the mask alone
        too, so a plan that does not mix changes nothing but the padding.

    Source: Guo et al., Augmenting Data with Mixup for Sentence Classification, 2019,
    arXiv 1905.08941 (zero-padded sequences).
    """
    check_embeddings(embeddings)
    check_batch("embeddings", embeddings, plan, FLOATING)
    check_blends(plan)
    if attention_mask is None:
        return mix(embeddings, plan), None
    check_mask(attention_mask, embeddings.shape[:2], embeddings.device)
    own, other, merged = _masks(attention_mask, plan)
    weight = _blend_on(attention_mask.device, plan)[:, None]  # [B, 1, 2]
    places = torch.stack((own, other), 2)
    size, length, width = embeddings.shape
    rows = torch.where(places, weight, 0.0).view(-1, 2)  # [B·T, 2]
    box = torch.empty(size * length, 0, dtype=torch.int32, device=embeddings.device)
    # Each token is a row with weights of its own; a weight of 0 drops the padded side.
    x = embeddings.reshape(size * length, width)
    partner = _token_partners(plan, size, length, embeddings.device)
    mixed = implementation().mix(x, partner, rows, box, TENSOR)
    return mixed.view(size, length, width), merged


def merge_masks(attention_mask: Tensor, plan: MixPlan) -> Tensor:
    """The mask of each sample and its partner's, where both have a weight; checked before."""
    return _masks(attention_mask, plan)[2]


def check_blends(plan: MixPlan) -> None:
    """Raise ValueError unless the plan has nothing but blend weights."""
    check_no_pool(plan.pool)
    if plan.spatial_dims or plan.mask is not None:
        got = "a mask" if plan.mask is not None else "boxes"
        raise ValueError(
            f"plan: expected one that blends whole sequences, got one with {got}; draw it with "
            "cutmix_alpha=0, or use mix(x, plan) for your own layout"
        )


def _masks(attention_mask: Tensor, plan: MixPlan) -> tuple[Tensor, Tensor, Tensor]:
    """Which places of the sample and of its partner are valid, bool; the merged mask."""
    partner = plan.partner_or_none
    if partner is not None:
        partner = partner.to(attention_mask.device)
    others = partner_rows(attention_mask, partner, plan.rule)
    used = _blend_on(attention_mask.device, plan) != 0  # [B, 2]
    nothing = attention_mask.new_zeros(())
    own = torch.where(used[:, :1], attention_mask, nothing)
    other = torch.where(used[:, 1:], others, nothing)
    return own != 0, other != 0, torch.maximum(own, other)


def _blend_on(device: torch.device, plan: MixPlan) -> Tensor:
    return plan.blend.to(device, non_blocking=True)


def _token_partners(plan: MixPlan, size: int, length: int, device: torch.device) -> Tensor:
    """int32 [B·T]: the token of the partner at the same place."""
    partner = plan.partner_or_none
    if partner is None:
        partner = partner_indices(plan.rule, size, device)
    place = torch.arange(length, dtype=torch.int32, device=device)
    return (partner[:, None] * length + place).view(-1)
