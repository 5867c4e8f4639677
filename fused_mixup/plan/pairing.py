"""Pairings: who is whose partner, by rule or by a tensor of indices."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import has_host_values, integer, integers, kind
from ..codes import FLIP, PAIRINGS, ROLL, SELF


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


def pairing_of(
    batch_size: int, partner: str | Tensor, device: torch.device | str | None
) -> tuple[str, int, Tensor | None]:
    """The name of the pairing, B, and where it is no rule partner int32 [B] on ``device``."""
    batch_size = integer("batch_size", batch_size)
    if batch_size < 0:
        raise ValueError(f"batch_size: expected an int >= 0, got {batch_size}")
    if isinstance(partner, str):
        if partner not in ("flip", "roll", "self"):
            raise ValueError(
                f"partner: expected 'flip', 'roll', 'self' or integers [B], got {kind(partner)}"
            )
        return partner, batch_size, None
    index = integers("partner", partner, device)
    if index.shape != (batch_size,):
        raise ValueError(
            f"partner: expected shape [{batch_size}], got {list(index.shape)}; "
            "give one index for each sample"
        )
    check_partner_values(index, batch_size)  # before int32 can wrap a huge index around
    # A copy: what the caller writes to its tensor later must not reach into the plan.
    index = index.to(device=device or index.device, dtype=torch.int32, copy=True)
    return "tensor", batch_size, index.contiguous()


def check_partner_values(partner: Tensor, batch_size: int) -> None:
    if has_host_values(partner) and partner.numel():
        low, high = (int(v) for v in torch.aminmax(partner))
        if low < 0 or high >= batch_size:
            raise IndexError(
                f"partner: expected indices in [0, {batch_size}), got {low if low < 0 else high}"
            )


def check_rule(pairing: str, partner: Tensor) -> None:
    """ValueError for a partner tensor on the host that is not what the rule says."""
    if not has_host_values(partner):
        return
    check_partner_values(partner, partner.shape[0])
    wrong = (partner != partner_indices(PAIRINGS[pairing], partner.shape[0])).nonzero()
    if len(wrong):
        raise ValueError(
            f"partner: expected what pairing {pairing!r} says, got another partner for sample "
            f"{int(wrong[0])}; use pairing='tensor'"
        )


def is_permutation(partner: Tensor | None) -> bool | None:
    """Of a rule (no tensor) True; None where values cannot be read."""
    if partner is None:
        return True
    if not has_host_values(partner):
        return None
    return bool(torch.bincount(partner, minlength=partner.shape[0]).le(1).all())


def transpose_pairing(partner: Tensor) -> tuple[Tensor, Tensor]:
    """int32 ``sources`` [B], ``offsets`` [B+1]: j is partner of sources[offsets[j]:offsets[j+1]].

    No value is read on the host, so this also runs on a device and under compile.
    """
    clamped = partner.clamp(0, max(partner.shape[0] - 1, 0))  # as the kernels do
    ordered, sources = torch.sort(clamped, stable=True)
    bounds = torch.arange(partner.shape[0] + 1, dtype=partner.dtype, device=partner.device)
    offsets = torch.searchsorted(ordered, bounds, out_int32=True)
    return sources.int(), offsets
