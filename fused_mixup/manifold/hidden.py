"""The hidden state in what a layer returns: a tensor, a tuple, a dict or a dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..batch_mix.structure import New, items, replace
from ..dtypes import FLOATING

LAST = "last_hidden_state"


class Axes:
    """Where samples and channels lie in the hidden states of layers."""

    def __init__(self, batch_dim: int, channel_dim: int | None) -> None:
        if batch_dim < 0:
            raise ValueError(f"batch_dim: expected 0 or more, got {batch_dim}")
        self.batch_dim, self.channel_dim = batch_dim, channel_dim

    def spatial(self, name: str, hidden: Tensor) -> list[int]:
        """The dims of ``hidden`` that boxes live in."""
        dims = [d for d in range(hidden.ndim) if d != self.batch_dim]
        if self.channel_dim is None and len(dims) == 2:
            raise ValueError(
                f"channel_dim: expected -1 for tokens [B, N, C] or 1 for signals [B, C, T], as "
                f"CutMix needs to know which dim of {name!r} is cut, got None"
            )
        channel = 1 if self.channel_dim is None else self.channel_dim
        if not -hidden.ndim <= channel < hidden.ndim or channel % hidden.ndim == self.batch_dim:
            raise ValueError(
                f"channel_dim: expected a dim of what {name!r} returns, beside batch_dim="
                f"{self.batch_dim}, got {channel} for a hidden state of shape {list(hidden.shape)}"
            )
        channel %= hidden.ndim
        dims = [d for d in dims if d != channel]
        if not 1 <= len(dims) <= 3:
            raise ValueError(
                f"layers: expected 1 to 3 spatial dims for CutMix in {name!r}, got a hidden state "
                f"of shape {list(hidden.shape)}; leave this layer out (include_input=False for "
                "the input), or set cutmix=0"
            )
        return dims

    def order(self, spatial: Sequence[int], hidden: Tensor) -> list[int] | None:
        """The dims of ``hidden`` as :func:`mix` takes them; None where they lie so."""
        others = [d for d in range(hidden.ndim) if d != self.batch_dim and d not in spatial]
        order = [self.batch_dim, *others, *spatial]
        return None if order == list(range(hidden.ndim)) else order


def hidden_key(name: str, output: Any) -> Any:
    """The key of the hidden state in the structure ``output``."""
    entries = items(output)
    if entries is None:
        raise TypeError(
            f"layers: expected {name!r} to return a tensor, or a tuple, dict or dataclass with "
            f"one, got {kind(output)}; hook another layer"
        )
    keys = dict(entries)
    if LAST in keys:
        return LAST
    first = next(iter(keys), None)
    if first is None:
        raise TypeError(f"layers: expected {name!r} to return a hidden state, got an empty output")
    return first


def get_hidden(output: Any, key: Any) -> Any:
    if isinstance(output, Mapping):
        return output[key]
    if isinstance(output, (tuple, list)) and isinstance(key, int):
        return output[key]
    return getattr(output, key)


def replaced(output: Any, key: Any, hidden: Tensor) -> Any:
    """``output`` with another hidden state, as its type."""
    return replace(output, {(key,): New(hidden)})


def check_hidden(name: str, hidden: Any, batch_size: int, batch_dim: int) -> Tensor:
    if not isinstance(hidden, Tensor):
        raise TypeError(
            f"layers: expected {name!r} to return a hidden state first, got {kind(hidden)}; hook "
            "another layer"
        )
    if hidden.dtype not in FLOATING:
        raise TypeError(
            f"layers: expected {name!r} to return a floating hidden state, got {hidden.dtype}; "
            "hook a layer behind the embedding or in front of the quantisation"
        )
    if torch.compiler.is_compiling():
        return hidden
    if hidden.ndim <= batch_dim or hidden.shape[batch_dim] != batch_size:
        others = [d for d in range(hidden.ndim) if hidden.shape[d] == batch_size]
        remedy = (
            f"set batch_dim={others[0]}"
            if others
            else (
                "hook a layer that keeps the batch (nn.DataParallel splits it: use "
                "DistributedDataParallel)"
            )
        )
        raise ValueError(
            f"layers: expected {batch_size} samples in dim {batch_dim} of what {name!r} returns, "
            f"as in the input, got shape {list(hidden.shape)}; {remedy}"
        )
    return hidden
