"""Which points a mixed image shows.

No kernel: these are a handful of elementwise ops on a few kilobytes, which take less than the image
of one sample, and plain PyTorch gives the same bools on every device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..reference.pairing import partner_rows


class ShownWhere(NamedTuple):
    """Where images are seen that points belong to; its tensors broadcast to the points."""

    in_cut: Tensor  # bool: the image that the point belongs to is seen in the cut
    outside: Tensor  # bool: so it is elsewhere
    cut: tuple[Tensor, ...]  # y0, x0, y1, x1

    @staticmethod
    def of_rows(
        partner: Tensor | None,  # [B]
        pairing: int,
        blend: Tensor,  # [B, 2]
        box: Tensor,  # [B, 0 or 4]
        device: torch.device,
    ) -> ShownWhere:
        """For each sample and its partner, [B, 2]; the cut of each sample, [B]."""
        index = torch.arange(len(blend), device=device)
        itself = partner_rows(index, partner, pairing) == index
        # The dtype in which images are blended: a weight too small for it shows nothing.
        shown = blend.to(device, torch.float32) != 0
        in_cut = torch.stack((itself, torch.ones_like(itself)), 1)
        box = box.to(device)
        cut = box.unbind(1) if box.shape[1] else (torch.zeros_like(index),) * 4
        return ShownWhere(in_cut, shown | itself.unsqueeze(1), cut)

    def of_runs(self, run: Tensor) -> ShownWhere:
        """For int64 [T] of 2·i for points of sample i, 2·i + 1 for those of its partner."""
        sample = run // 2
        cut = tuple(t[sample] for t in self.cut)
        return ShownWhere(self.in_cut.flatten()[run], self.outside.flatten()[run], cut)

    def of_padded(self, own: Tensor) -> ShownWhere:
        """For bool [B, N]: whether the points of a row are the sample's, or its partner's."""
        in_cut, outside = (torch.where(own, t[:, :1], t[:, 1:]) for t in self[:2])
        return ShownWhere(in_cut, outside, tuple(t.unsqueeze(1) for t in self.cut))


def visible_points(points: Tensor, shown: ShownWhere) -> Tensor:
    """bool […]: which of points […, 2 or 3] are seen and labelled."""
    # Half types do not hold every whole number of a large image.
    at = points.float() if points.dtype in (torch.float16, torch.bfloat16) else points
    x, y = at[..., 0], at[..., 1]

    def spread(t: Tensor) -> Tensor:
        return t.view(*t.shape, *[1] * (x.ndim - t.ndim))

    # The pixel of a point is its floor; whole numbers compare with both alike.
    y0, x0, y1, x1 = map(spread, shown.cut)
    inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    seen = torch.where(inside, spread(shown.in_cut), spread(shown.outside))
    return seen if points.shape[-1] == 2 else seen & (points[..., 2] != 0)
