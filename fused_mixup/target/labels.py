"""Labels of a mixed batch as tensors: float ones blended, indices made dense."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import implementation
from ..checks import check_batch, check_float_labels, check_plan
from ..codes import NO_IGNORE
from ..dtypes import FLOATING
from ..plan.checks import check_no_pool
from ..plan.mix_plan import MixPlan
from .checks import (
    check_label_smoothing,
    check_labels,
    check_num_classes,
    check_target_dtype,
)
from .mixed_target import MixedTarget


def mix_labels(values: Tensor, plan: MixPlan) -> Tensor:
    """Blend float labels by the plan's label weights, under MixUp and CutMix. Differentiable.

    ``out_i = weight_i0 · values_i + weight_i1 · values_partner_i``: multi-hot or soft labels,
    real-valued ones, teachers' logits. The boxes of CutMix do not affect them.

    Equivalent to::

        w = plan.weight.view(B, 2, *[1] * (values.ndim - 1))
        values * w[:, 0] + values[plan.partner] * w[:, 1]

    Args:
        values: [B, …], float16, bfloat16, float32 or float64.
        plan: a plan for B samples.

    Returns:
        A tensor like values.

    Raises:
        TypeError: values that are not floating: class indices make a :class:`MixedTarget`.
        ValueError: another batch size or device than the plan's.

    Notes:
        Numerics and gradients are those of :func:`mix`.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    check_float_labels(values)
    check_plan("values", values, plan)
    check_no_pool(plan.pool, "use mix(values, plan.for_labels(), other=…)")
    by_weight = plan.for_labels()
    check_batch("values", values, by_weight, FLOATING)
    row = by_weight.blend, by_weight.box
    return implementation().mix(values, plan.partner_or_none, *row, plan.rule)


def mix_targets(
    labels: Tensor,  # [B, …]
    plan: MixPlan,
    num_classes: int,
    label_smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Dense soft labels of a mixed batch, in one pass.

    ``t_i = Σ_k weight_ik · ((1-ε) · onehot(label_k) + ε/K)`` over the sample and its partner. The
    losses here take a :class:`MixedTarget` instead, which stays sparse.

    Equivalent to::

        y = F.one_hot(labels, num_classes) * (1 - label_smoothing) + label_smoothing / num_classes
        y * weight[:, :1] + y[partner] * weight[:, 1:]

    Args:
        labels: int64 [B, …], class indices in [0, num_classes). Maps are cut as
            :meth:`MixedTarget.from_labels` cuts them.
        plan: a plan for B samples.
        num_classes: K.
        label_smoothing: ε in [0, 1].
        dtype: a floating dtype; arithmetic is float32 or better.

    Returns:
        [B, K, …] of ``dtype``.

    Raises:
        TypeError: labels that are no int64, or a dtype that is not floating.
        IndexError: a label outside [0, num_classes) on the CPU. On a GPU its row becomes NaN.
        ValueError: another batch size or device than the plan's, ε outside [0, 1].

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """
    num_classes = check_num_classes(num_classes)
    label_smoothing = check_label_smoothing(label_smoothing)
    check_labels(labels, num_classes)
    check_target_dtype(dtype)
    check_plan("labels", labels, plan)
    check_no_pool(plan.pool, "make a MixedTarget of labels and those of the other samples")
    if plan.cuts_maps(labels):
        target = MixedTarget.from_labels(labels, plan, num_classes, label_smoothing, NO_IGNORE)
        return target.dense(dtype)
    return implementation().mix_targets(
        labels,
        plan.partner_or_none,
        plan.weight,
        plan.rule,
        num_classes,
        label_smoothing,
        dtype,
    )
