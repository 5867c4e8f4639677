"""``mix_boxes``: the bounding boxes of a mixed batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..plan.mix_plan import MixPlan
from .follow import checked_boxes
from .plans import check_image_plan
from .rows import MixedRows


def follow_boxes(
    boxes: Any,
    fields: Mapping[str, Any],
    plan: MixPlan,
    size: Sequence[int],
    **options: Any,
) -> MixedRows:
    """Boxes that a mixed batch shows, and the rows of all fields that belong to them.

    Args:
        boxes, fields, size: as for :func:`checked_boxes`.
        plan: a plan for B samples.
        options: ``points``, ``format``, ``min_visible``, ``count`` and ``name`` of it.

    Returns:
        A :class:`MixedRows`; ``visible`` says of keypoints which the mixed image shows.

    Raises:
        TypeError, ValueError: as :func:`mix_boxes` and :func:`mix_keypoints`.
    """
    check_image_plan(plan, size)
    return checked_boxes(boxes, fields, plan.batch_size, size, **options).mix(plan)


def mix_boxes(
    boxes: Tensor | Sequence[Tensor],  # B of [n_i, 4], or [B, N, 4]
    labels: Tensor | Sequence[Tensor] | None,  # B of [n_i, …], or [B, N, …]
    plan: MixPlan,
    size: Sequence[int],
    *,
    format: str = "xyxy",
    min_visible: float = 0.1,
    count: Tensor | None = None,  # [B]
) -> tuple[Any, ...]:
    """The bounding boxes that a mixed batch shows, with their labels and weights.

    Sample i keeps the boxes that are seen of its own, then gets those of its partner. With C the
    plan's box of row i, b its blend, and |·| an area::

        own A:        seen share (|A| - |A ∩ C|) / |A|, dropped where b0 = 0; weight b0; becomes
                      the smallest box around A without C
        partner's P,  b1 != 0:  seen as a whole, stays as it is; weight s + (1 - s) · b1 with
                                s = |P ∩ C| / |P|
                      b1 = 0:   seen share |P ∩ C| / |P|; weight 1; becomes P ∩ C

    A box stays where its seen share is at least ``min_visible``, and not 0. A sample that is its
    own partner keeps its boxes as they are, once, with weight 1.

    Equivalent to (for MixUp, where every box is seen)::

        [torch.cat((boxes[i], boxes[p])) for i, p in enumerate(plan.partner)]

    Args:
        boxes: B tensors [n_i, 4] on the CPU; or [B, N, 4] on any device, padded. Floats or
            integers, in pixels of the images, not clipped to them: parts outside count as seen.
        labels: rows that belong to the boxes, of any dtype and shape, as boxes are given; None for
            none.
        plan: a plan for B samples; its boxes, if any, have two dims.
        size: (H, W) of the images.
        format: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``, of what comes and of what is returned.
        min_visible: the least share of a box that has to be seen, in [0, 1].
        count: int64 or int32 [B] for padded boxes: the first count_i rows of sample i are boxes;
            by default all are.

    Returns:
        For lists (boxes, labels, weights): B tensors each, [m_i, 4], [m_i, …] and float32 [m_i].
        For padded ones (boxes, labels, weights, count): [B, 2·N, 4], [B, 2·N, …], float32
        [B, 2·N] and int32 [B]; rows behind the count are 0.

    Raises:
        TypeError: no tensors, dtypes that differ in a list, or boxes that are no numbers.
        ValueError: another number of samples than the plan's, of labels than boxes, of columns
            than 4; boxes on the CPU that are reversed, infinite or NaN; lists on a device; a plan
            whose boxes do not fit ``size``.

    Notes:
        Arithmetic is float64 for float64, int32 and int64, else float32; results have the dtype of
        ``boxes``, integers rounded half to even ("xyxy" stays exact). A box that is not cut keeps
        its bits. Boxes without area are seen unless they lie inside the closed cut, and seen of the
        partner if they do. Padded boxes are mixed without synchronisation, and under torch.compile;
        on a device, values are not checked: a box that is reversed or NaN counts as one without
        area, a count is clamped. Deterministic; no gradient reaches boxes.

    Source: Zhang et al., Bag of Freebies for Training Object Detection Neural Networks, 2019,
    arXiv 1902.04103 (MixUp); Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    fields = {} if labels is None else {"labels": labels}
    mixed = follow_boxes(
        boxes, fields, plan, size, format=format, min_visible=min_visible, count=count
    )
    found = mixed.rows, mixed.fields.get("labels"), mixed.weights
    return found if mixed.counts is None else (*found, mixed.counts)
