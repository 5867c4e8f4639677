"""Which points a mixed image shows.

No kernel: these are a handful of elementwise ops on a few kilobytes, which take less than the image
of one sample, and plain PyTorch gives the same bools on every device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..plan.mix_plan import MixPlan
from ..plan.pairing import partner_rows


class PlanRows(NamedTuple):
    """What decides whether a point is seen: tensors whose dims are the first dims of the points."""

    shows_own: Tensor  # bool: the sample is seen outside the cut
    shows_other: Tensor  # bool: so is its partner
    itself: Tensor  # bool: the two are one
    cut: tuple[Tensor, ...]  # y0, x0, y1, x1

    @staticmethod
    def of_plan(plan: MixPlan, device: torch.device) -> PlanRows:
        """The rows of a plan, each [B]."""
        index = torch.arange(plan.batch_size, device=device)
        itself = partner_rows(index, plan.partner_or_none, plan.rule) == index
        # The dtype in which images are blended: a weight too small for it shows nothing.
        blend = plan.blend.to(device, torch.float32) != 0
        box = plan.box.to(device)
        cut = box.unbind(1) if box.shape[1] else (torch.zeros_like(index),) * 4
        return PlanRows(blend[:, 0], blend[:, 1], itself, cut)

    def of_samples(self, sample: Tensor) -> PlanRows:
        """The rows of these samples, int64 […]."""
        shows_own, shows_other, itself = (t[sample] for t in self[:3])
        return PlanRows(shows_own, shows_other, itself, tuple(t[sample] for t in self.cut))

    def of_padded(self) -> PlanRows:
        """The rows, each [B, 1], for points [B, N, …]."""
        shows_own, shows_other, itself = (t.unsqueeze(1) for t in self[:3])
        return PlanRows(shows_own, shows_other, itself, tuple(t.unsqueeze(1) for t in self.cut))


def visible_points(points: Tensor, rows: PlanRows, own: Tensor) -> Tensor:
    """bool […]: which of points […, 2 or 3] are seen and labelled.

    ``own`` says for the first dims whether a point is the sample's own, or its partner's.
    """
    # Half types do not hold every whole number of a large image.
    at = points.float() if points.dtype in (torch.float16, torch.bfloat16) else points
    x, y = at[..., 0], at[..., 1]

    def spread(t: Tensor) -> Tensor:
        return t.view(*t.shape, *[1] * (x.ndim - t.ndim))

    y0, x0, y1, x1 = map(spread, rows.cut)
    # The pixel of a point is its floor; whole numbers compare with both alike.
    inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    own = spread(own)
    seen = torch.where(
        own, ~inside & spread(rows.shows_own), inside | spread(rows.shows_other)
    ) | spread(rows.itself)
    return seen if points.shape[-1] == 2 else seen & (points[..., 2] != 0)
