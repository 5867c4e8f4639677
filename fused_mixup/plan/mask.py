"""What a plan asks of its mask, which :class:`fused_mixup.masks.MixMask` is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..arguments import kind
from ..frozen import Frozen
from ..schemas import MaskArguments

if TYPE_CHECKING:
    from typing_extensions import Self


class PlanMask(Frozen):
    """The interface of a mask, for the plan that holds it: importing plans imports no ops."""

    code: Tensor  # [B]

    @property
    def arguments(self) -> MaskArguments:
        """The mask as the ops take it."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self.code.device

    @property
    def batch_size(self) -> int:
        """B."""
        return self.code.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        raise NotImplementedError

    def expand(self, batch_size: int) -> Self:
        raise NotImplementedError

    def resize(self, size: Sequence[int]) -> Self:
        raise NotImplementedError

    def take(self, rows: slice | Tensor) -> Self:
        """The mask of some of the samples."""
        raise NotImplementedError

    def check(self, name: str, x: Tensor) -> None:
        raise NotImplementedError


def check_mask(mask: PlanMask | None, box: Tensor) -> PlanMask | None:
    """The mask of a plan with this ``box`` [B, 2·D], expanded to its batch."""
    batch_size = len(box)
    if mask is None:
        return None
    if not isinstance(mask, PlanMask):
        raise TypeError(f"mask: expected a MixMask, got {kind(mask)}; see fused_mixup.masks")
    if mask.batch_size not in (1, batch_size):
        raise ValueError(f"mask: expected {batch_size} samples or one, got {mask.batch_size}")
    if box.shape[1] not in (0, 4):
        raise ValueError(
            f"mask: expected a plan whose boxes have 2 dims, or none, as a mask covers images, got "
            f"boxes of {box.shape[1] // 2}"
        )
    return mask.expand(batch_size)
