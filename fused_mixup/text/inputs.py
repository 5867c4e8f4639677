"""What goes into a model of transformers beside embeddings: positions and token types."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import kind
from ..plan.mix_plan import MixPlan
from ..reference.pairing import partner_rows

_BY_PLACE = "token_type_ids", "position_ids"


def embedding_of(model: nn.Module) -> nn.Module:
    """The module that embeds token ids."""
    find = getattr(model, "get_input_embeddings", None)
    found = find() if callable(find) else None
    if not isinstance(found, nn.Module):
        raise TypeError(
            f"model: expected one of transformers, with get_input_embeddings(), got {kind(model)}; "
            "call mix_embeddings(embeddings, attention_mask, plan) in a model of your own"
        )
    return found


def samples_dim(model: nn.Module) -> int:
    """The dim of samples in hidden states: XLNet's are [T, B, H]."""
    return int(getattr(getattr(model, "config", None), "model_type", None) == "xlnet")


def position_padding(model: nn.Module) -> int | None:
    """The padding index of positions that count valid tokens (RoBERTa's line, MPNet), or None.

    Those models take the positions from the ids, and from embeddings count on through padding.
    """
    for module in model.modules():
        positions = getattr(module, "position_embeddings", None)
        if isinstance(positions, nn.Embedding) and positions.padding_idx is not None:
            return positions.padding_idx
    return None


def counted_positions(mask: Tensor, padding: int) -> Tensor:
    """int64 [B, T]: the number of valid tokens up to each place, behind ``padding``."""
    valid = (mask != 0).long()
    return valid.cumsum(1) * valid + padding


def mixed_inputs(
    inputs: dict[str, Any], attention_mask: Tensor | None, plan: MixPlan
) -> dict[str, Any]:
    """Token types and positions of mixed sequences: their own, and their partner's past their end.

    They are indices, and cannot be blended.
    """
    made = dict(inputs)
    for name in _BY_PLACE:
        ids = inputs.get(name)
        if not isinstance(ids, Tensor) or attention_mask is None:
            continue
        if ids.shape != attention_mask.shape:
            continue  # one row for all
        partner = plan.partner_or_none
        if partner is not None:
            partner = partner.to(ids.device)
        others = partner_rows(ids, partner, plan.rule)
        made[name] = torch.where(attention_mask != 0, ids, others)
    return made
