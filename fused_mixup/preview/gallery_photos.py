"""Two photographs to mix, and what replaces the maps that networks would give.

Saliency, attention and class activations are spectral residuals, label maps are brightness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..saliency import spectral_residual


class Photos(NamedTuple):
    """Two photographs, what is drawn for them, and what replaces the maps of networks."""

    images: Tensor  # float32 [2, 3, H, W] in [0, 1]
    saliency: Tensor  # float32 [2, H, W], of sum 1 each
    generator: torch.Generator

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    def integer(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``, both of them possible."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def places(self, sizes: Sequence[int]) -> list[int]:
        """(top, left) at which a rectangle of ``sizes`` lies inside."""
        return [self.integer(0, n - k) for n, k in zip(self.size, sizes, strict=True)]

    def cells(self, grid: int) -> Tensor:
        """Saliency [2, grid, grid]: the sum of 1 of each, cell by cell."""
        means = F.adaptive_avg_pool2d(self.saliency[:, None], grid)[:, 0]
        return means / means.sum((1, 2), keepdim=True)

    def box(self, share: float) -> list[int]:
        """A rectangle of that share of the area and the form of the image, somewhere inside."""
        sizes = [int(n * math.sqrt(share)) for n in self.size]
        start = self.places(sizes)
        return [*start, *(a + n for a, n in zip(start, sizes, strict=True))]


def residual_saliency(images: Tensor) -> Tensor:
    """float32 [B, H, W], of sum 1: the spectral residual of images [B, 3, H, W]."""
    side = min(images.shape[2:])
    found = spectral_residual(images, 2 * (side // 14) + 1, side / 20) + 1e-6
    return found / found.sum((1, 2), keepdim=True)
