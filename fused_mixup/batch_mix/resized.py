"""Partners that are resized into a place of their sample: ResizeMix in a BatchMix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..collage.layouts import resize_into
from ..collage.rectangles import mix_rectangles
from ..plan.mix_plan import MixPlan


class Resized:
    """Where the whole partner goes, for entries of any size; an empty box pastes nothing."""

    def __init__(self, box: Tensor, plan: MixPlan, size: Sequence[int]) -> None:
        self.box, self.plan, self.size = box, plan, tuple(size)

    def paste(self, mixed: Tensor, x: Tensor) -> Tensor:
        """``mixed`` with partners of x pasted, by nearest pixels: labels and images alike."""
        height, width = x.shape[-2:]
        box = self.box
        if (height, width) != self.size:  # as MixPlan.resize maps boxes
            scale = zip(self.size * 2, (height, width) * 2, strict=True)
            bounds = [
                (2 * new * box[:, k].long() + n) // (2 * n) for k, (n, new) in enumerate(scale)
            ]
            box = torch.stack(bounds, 1).to(torch.int32)
        partner, weight = self.plan.partner, self.plan.weight
        plan = resize_into(len(x), (height, width), box, partner, weight=weight)
        return mix_rectangles(mixed, plan, other=x)
