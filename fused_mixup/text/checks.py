"""Checks of ids, masks, embeddings and labels; errors name the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import kind
from ..dtypes import FLOATING
from ..tracing import has_host_values

# Arguments by which transformers and flash attention say that a row packs several sequences.
_PACKED = ("cu_seq", "seq_idx", "max_length_q", "max_length_k")
_ID_DTYPES = (torch.int32, torch.int64)


def check_embeddings(embeddings: Any) -> None:
    if not isinstance(embeddings, Tensor):
        raise TypeError(f"embeddings: expected a tensor [B, T, H], got {kind(embeddings)}")
    if embeddings.dtype not in FLOATING:
        raise TypeError(
            f"embeddings: expected floats [B, T, H], got {kind(embeddings)}; token ids cannot be "
            "blended: embed them first, with model.get_input_embeddings()(input_ids)"
        )
    if not embeddings.is_nested and embeddings.ndim != 3:
        raise ValueError(
            f"embeddings: expected shape [B, T, H], got {list(embeddings.shape)}; vectors of whole "
            "sequences [B, H] go to mix(x, plan)"
        )


def check_mask(attention_mask: Any, shape: Sequence[int], device: torch.device) -> None:
    """Raise unless it is a mask [B, T] by which each sequence has a valid token."""
    if not isinstance(attention_mask, Tensor):
        raise TypeError(f"attention_mask: expected a tensor [B, T], got {kind(attention_mask)}")
    if attention_mask.is_complex():
        raise TypeError(f"attention_mask: expected 0 and 1, got {attention_mask.dtype}")
    if tuple(attention_mask.shape) != tuple(shape):
        more = ""
        if attention_mask.ndim > 2:
            more = "; packed or 4-d masks are not merged: give the tokenizer's, one row a sequence"
        raise ValueError(
            f"attention_mask: expected shape {list(shape)}, got {list(attention_mask.shape)}{more}"
        )
    if attention_mask.device != device:
        raise ValueError(
            f"attention_mask: expected {device} as the sequences, got {attention_mask.device}; use "
            f".to({str(device)!r})"
        )
    if attention_mask.shape[0] and has_host_values(attention_mask):
        empty = int(((attention_mask != 0).sum(1) == 0).sum())
        if empty:
            raise ValueError(
                f"attention_mask: expected a valid token in each sequence, got none in {empty} of "
                f"{len(attention_mask)}; leave empty texts out of the batch"
            )


def check_ids(input_ids: Any) -> Tensor:
    if not isinstance(input_ids, Tensor):
        raise TypeError(f"input_ids: expected a tensor [B, T], got {kind(input_ids)}")
    if input_ids.is_nested:
        raise TypeError(
            "input_ids: expected padded ids [B, T], got a nested tensor; pad them with the "
            "tokenizer's padding=True and give its attention_mask"
        )
    if input_ids.dtype not in _ID_DTYPES:
        raise TypeError(
            f"input_ids: expected int64 token ids [B, T], got {kind(input_ids)}; embeddings go to "
            "mix_embeddings(embeddings, attention_mask, plan)"
        )
    if input_ids.ndim != 2:
        raise ValueError(
            f"input_ids: expected shape [B, T], got {list(input_ids.shape)}; choices [B, n, T] "
            "become rows by .flatten(0, 1)"
        )
    return input_ids


def check_inputs(
    model: nn.Module, input_ids: Any, attention_mask: Any, inputs: Mapping[str, Any]
) -> Tensor:
    """The ids of a call whose inputs are padded sequences that can be mixed place by place."""
    if inputs.get("inputs_embeds") is not None:
        raise ValueError(
            "inputs_embeds: expected None, as input_ids are mixed, got a value; embeddings of your "
            "own go to mix_embeddings(embeddings, attention_mask, plan)"
        )
    ids = check_ids(input_ids)
    for name, value in inputs.items():
        if value is not None and name.startswith(_PACKED):
            raise ValueError(
                f"{name}: expected one sequence in each row, got rows that pack several; collate "
                "with padding (DataCollatorWithPadding) in place of DataCollatorWithFlattening"
            )
    positions = inputs.get("position_ids")
    if isinstance(positions, Tensor) and has_host_values(positions):
        _check_positions(positions, attention_mask)
    if attention_mask is None:
        _check_unpadded(model, ids)
    else:
        check_mask(attention_mask, ids.shape, ids.device)
    return ids


def _check_positions(positions: Tensor, attention_mask: Any) -> None:
    steps = positions.diff(dim=-1)
    falls = (steps < 0).expand(*steps.shape)
    if isinstance(attention_mask, Tensor) and attention_mask.shape == positions.shape:
        valid = attention_mask != 0
        falls = falls & valid[:, 1:] & valid[:, :-1]
    elif isinstance(attention_mask, Tensor):
        return  # one row for all
    if bool(falls.any()):
        raise ValueError(
            "position_ids: expected one sequence in each row, got positions that start again, as "
            "of packed sequences; give each sequence a row of its own"
        )


def _check_unpadded(model: nn.Module, input_ids: Tensor) -> None:
    config = getattr(model, "config", None)
    pad = getattr(config, "pad_token_id", None)
    if not isinstance(pad, int) or pad == getattr(config, "eos_token_id", None):
        return
    if has_host_values(input_ids) and bool((input_ids == pad).any()):
        raise ValueError(
            "attention_mask: expected the tokenizer's mask [B, T], as input_ids hold the "
            "model's pad_token_id, got None"
        )


def check_last_token(model: nn.Module, attention_mask: Tensor | None) -> None:
    """Raise for right padding where a decoder's head takes the last token of each sequence.

    A mixed sequence has two ends, unless both lie in the last place.
    """
    if attention_mask is None or not pools_last_token(model):
        return
    if has_host_values(attention_mask) and not bool((attention_mask[:, -1] != 0).all()):
        raise ValueError(
            "attention_mask: expected left padding, as this model classifies by the last token of "
            "a sequence, got right padding, where the two of a pair end at different places; set "
            "tokenizer.padding_side = 'left'"
        )


def pools_last_token(model: nn.Module) -> bool:
    """Whether this is a decoder of transformers that classifies: all call their head ``score``.

    The head is linear, or what wraps it (PEFT).
    """
    return isinstance(getattr(model, "score", None), nn.Module) and hasattr(model, "config")
