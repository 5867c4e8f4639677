"""Pairings: the partner of each sample, by rule or by a tensor of indices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..codes import FLIP, ROLL, SELF
from ..tracing import is_plain


def partner_indices(pairing: int, batch_size: int, device: torch.device | str = "cpu") -> Tensor:
    """int32 [B]: the partner of every sample under the rule FLIP, ROLL or SELF."""
    i = torch.arange(batch_size, dtype=torch.int32, device=device)
    if pairing == FLIP:
        return i.flip(0)
    return i.roll(1) if pairing == ROLL else i


def partner_rows(t: Tensor, partner: Tensor | None, pairing: int) -> Tensor:
    """``t[partner]`` along dim 0; ``partner`` is None where the pairing is a rule."""
    if pairing == FLIP:
        return t.flip(0)
    if pairing == ROLL:
        return t.roll(1, 0)
    if pairing == SELF or partner is None:
        return t
    # Clamped, as in the kernels: a partner tensor on a device cannot be checked on the host.
    return t.index_select(0, partner.clamp(0, max(t.shape[0] - 1, 0)))


def transpose_pairing(partner: Tensor) -> tuple[Tensor, Tensor]:
    """int32 ``sources`` [B], ``offsets`` [B+1]: j is partner of sources[offsets[j]:offsets[j+1]].

    No value is read from a device, and this also runs under torch.compile.
    """
    count = partner.shape[0]
    clamped = partner.clamp(0, max(count - 1, 0))  # as the kernels do
    if count and partner.is_cpu and is_plain() and _is_permutation(clamped):
        # Tokens have many rows, and to sort them takes as long as to mix them.
        places = torch.arange(count + 1, dtype=torch.int32)
        return torch.empty_like(places[1:]).scatter_(0, clamped.long(), places[:-1]), places
    ordered, sources = torch.sort(clamped, stable=True)
    bounds = torch.arange(partner.shape[0] + 1, dtype=partner.dtype, device=partner.device)
    offsets = torch.searchsorted(ordered, bounds, out_int32=True)
    return sources.int(), offsets


def _is_permutation(partner: Tensor) -> bool:
    return bool((torch.bincount(partner, minlength=partner.shape[0]) == 1).all())
