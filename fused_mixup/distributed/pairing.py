"""Who mixes with whom in a batch that lies on several ranks: partners of the samples of one rank.

The samples of rank 0 come first in the whole batch, then those of rank 1, and so on.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..codes import DRAWN_PAIRINGS, MAX_BATCH, PER, SETTINGS


class Pairs(NamedTuple):
    """Indices in the whole batch, for the n samples of one rank."""

    partner: Tensor  # int64 [n]
    taker: Tensor  # int64 [n], the sample whose partner each is


def pairs_of(
    pairing: str,
    per: str,
    start: int,
    stop: int,
    total: int,
    state: Tensor,  # [4]
    labels: Tensor | None,  # [total], for "cross_class"
) -> Pairs:
    """The partners of samples ``start`` to ``stop`` of ``total``, as ``draw_plan`` pairs them all.

    A rule is computed for these samples alone; the other pairings sort the whole batch.
    """
    i = torch.arange(start, stop)
    if pairing == "flip":
        return Pairs(total - 1 - i, total - 1 - i)
    if pairing == "roll":
        return Pairs((i - 1) % max(total, 1), (i + 1) % max(total, 1))
    if total > MAX_BATCH:
        raise ValueError(
            f"pairing: expected 'flip' or 'roll' for {total:,} samples in a block of ranks, got "
            f"{pairing!r}, which sorts up to {MAX_BATCH:,}; set neighbours= to the ranks of a node"
        )
    nothing_is_mixed = torch.zeros(SETTINGS, dtype=torch.float64)
    rules = PER[per], DRAWN_PAIRINGS[pairing], False, False
    partner = ops.draw_plan(state.clone(), nothing_is_mixed, labels, None, total, [], *rules)[0]
    taker = torch.empty_like(partner).scatter_(0, partner.long(), torch.arange(total).int())
    return Pairs(partner[start:stop].long(), taker[start:stop].long())
