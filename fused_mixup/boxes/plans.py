"""The plans that boxes and keypoints can follow: those of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..checks import check_no_mask
from ..plan.mix_plan import MixPlan
from .checks import check_size


def check_image_plan(plan: MixPlan, size: Sequence[int]) -> None:
    """Raise for a plan that does not mix images of this size."""
    if not isinstance(plan, MixPlan):
        raise TypeError(f"plan: expected a MixPlan, got {type(plan).__name__}")
    check_no_mask(plan, "boxes and keypoints follow boxes and blends alone")
    sizes = check_size(size)
    if plan.spatial_dims not in (0, 2):
        raise ValueError(
            f"plan: expected boxes of 2 dims, as images have, got {plan.spatial_dims}; "
            "draw a plan for images"
        )
    if plan.spatial_dims and not torch.compiler.is_compiling():
        plan.check_boxes("an image of `size`", sizes)
