"""Pairings: the partner of each sample, by rule or by a tensor of indices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..codes import FLIP, ROLL, SELF


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

    No value is read on the host, so this also runs on a device and under torch.compile.
    """
    clamped = partner.clamp(0, max(partner.shape[0] - 1, 0))  # as the kernels do
    ordered, sources = torch.sort(clamped, stable=True)
    bounds = torch.arange(partner.shape[0] + 1, dtype=partner.dtype, device=partner.device)
    offsets = torch.searchsorted(ordered, bounds, out_int32=True)
    return sources.int(), offsets
