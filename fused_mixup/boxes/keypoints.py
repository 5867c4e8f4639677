"""``mix_keypoints``: the keypoints of a mixed batch, and which of them are seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..plan.mix_plan import MixPlan
from .plans import check_image_plan
from .points import checked_points


def mix_keypoints(
    points: Tensor | Sequence[Tensor],  # B of [n_i, …, 2 or 3], or [B, N, …, 2 or 3]
    plan: MixPlan,
    size: Sequence[int],
    *,
    count: Tensor | None = None,  # [B]
    name: str = "points",
) -> tuple[Any, ...]:
    """The keypoints of a mixed batch: those of each sample, then its partner's, and which are seen.

    A point lies in the pixel of its floor. With C the plan's box of row i, and b its blend::

        own point:        seen where its pixel is outside C, and b0 != 0
        partner's point:  seen where its pixel is inside C, or b1 != 0

    A sample that is its own partner keeps its points, once, all of them seen.

    Equivalent to (for MixUp, where every point is seen)::

        [torch.cat((points[i], points[p])) for i, p in enumerate(plan.partner)]

    Args:
        points: B tensors [n_i, …, 2] on the CPU; or [B, N, …, 2] on any device, padded. x, y in
            pixels. In a third column 0 says that a point is not labelled: it is not seen, and its
            place means nothing.
        plan: a plan for B samples; its boxes, if any, have two dims.
        size: (H, W) of the images.
        count: int64 or int32 [B] for padded points: how many of the N each sample has; by default
            all.
        name: what errors call the points.

    Returns:
        For lists (points, visible): B tensors each, [n_i + n_p, …, 2] and bool [n_i + n_p, …].
        For padded ones (points, visible, count): [B, 2·N, …, 2], bool [B, 2·N, …] and int32 [B];
        rows behind the count are 0 and False. No point is left out, so that indices of keypoints
        keep their meaning.

    Raises:
        TypeError, ValueError: as :func:`mix_boxes`; on the CPU, a point outside the image.

    Notes:
        Points that have to stay or go with their boxes: :class:`BatchMix` takes both. Padded points
        are mixed without synchronisation, and under torch.compile.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    check_image_plan(plan, size)
    rows = checked_points(points, plan.batch_size, size, count=count, name=name)
    mixed = rows.mix(plan)
    found = mixed.rows, mixed.visible[name]
    return found if mixed.counts is None else (*found, mixed.counts)
