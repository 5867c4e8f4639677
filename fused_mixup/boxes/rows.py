"""What the rows of a batch become: boxes, masks or points with all that belongs to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..reference.pairing import partner_rows


class MixedRows(NamedTuple):
    """Rows of a mixed batch: lists where lists came in, padded tensors otherwise."""

    rows: Any  # boxes or the like: B of [m_i, …], or [B, 2·N, …]
    fields: dict[str, Any]  # each B of [m_i, …], or [B, 2·N, …]
    weights: Any  # float32, B of [m_i], or [B, 2·N]
    visible: dict[str, Any]  # bool, for each field of keypoints: B of [m_i, …], or [B, 2·N, …]
    counts: Tensor | None  # int32 [B], or None for lists
    own: Any = None  # how many rows of each sample are its own: B ints; or bool [B, 2·N]


class PaddedRows:
    """Takes rows of padded tensors [B, N, …] by ``source`` [B, 2·N]; zeros where it is -1."""

    def __init__(self, partners: Tensor | None, pairing: int, source: Tensor, most: int) -> None:
        own = (torch.arange(source.shape[0], device=source.device) * most).unsqueeze(1)
        other = partner_rows(own, partners, pairing) - most
        self.missing = source < 0
        first = torch.where(source < most, own, other)
        self.rows = (first + source).clamp(min=0).flatten()
        self.shape = source.shape

    def __call__(self, t: Tensor) -> Tensor:
        rows = t.flatten(0, 1).index_select(0, self.rows)
        return self.blank(rows.view(*self.shape, *t.shape[2:]))

    def blank(self, t: Tensor) -> Tensor:
        missing = self.missing.view(*self.shape, *[1] * (t.ndim - 2))
        return t.masked_fill(missing, 0)
