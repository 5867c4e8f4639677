"""Any criterion that takes class indices, on a mixed batch: :func:`mixed_criterion`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_plain_tensor, is_host_row, kind
from ..codes import IGNORE_INDEX, MEAN, NONE
from ..dtypes import arithmetic
from ..reference.blending import weight_columns
from ..reference.dense import label_columns
from ..target.label_rows import one_label_weight
from ..target.mixed_target import MixedTarget
from ..tracing import has_host_values
from .arguments import divide_or_nan
from .checks import check_reduction


def mixed_criterion(
    criterion: Callable[[Any, Tensor], Tensor],
    output: Any,
    target: Tensor | MixedTarget,  # [B, d1, …]
    reduction: str = "mean",
) -> Tensor:
    """A criterion for class indices on a mixed batch: its losses of a row's labels, weighted.

    ``loss_i = Σ_k weight_ik · criterion(output, label_k)_i``

    Equivalent to (two labels, nothing ignored)::

        w = weight.view(B, 2, *[1] * (labels.ndim - 1))
        (w[:, 0] * criterion(output, labels) + w[:, 1] * criterion(output, partner_labels)).mean()

    Args:
        criterion: called as ``criterion(output, labels)`` with int64 labels [B, d1, …]; returns the
            loss of each, of their shape: give it ``reduction="none"``. nn.MultiMarginLoss, margins
            of ArcFace, an ordinal loss, a loss of your own.
        output: what the criterion takes, such as logits [B, K, d1, …]; passed on as it is.
        target: a :class:`MixedTarget` without label smoothing, or int64 class indices, whose loss
            is the criterion's. The weights of a sample serve all its positions.
        reduction: ``"mean"`` (over the rows that count), ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or [B, d1, …] for ``"none"``; float32 or float64.

    Raises:
        TypeError, ValueError: a target of another kind, or with label smoothing; a criterion that
            returns anything but a loss for each label.
        IndexError: labels written to since the target was made that are out of range.

    Notes:
        A term whose label is the target's ``ignore_index`` is left out; a row of which nothing else
        is left has loss 0 and does not count, as in :func:`soft_target_cross_entropy`. In place of
        such a label, and of one whose weight is 0, the criterion gets the row's other label (class
        0 where there is none): it meets no ``ignore_index``, and no infinite loss of a label that
        is not used. It is called once for each label of a row, but for those whose weight is 0 in
        all rows, where rows share their weights. It is differentiated as it is; under torch.compile
        and torch.func it runs if it can.
        A loss that takes dense soft labels needs no help: ``criterion(output, target.dense())``.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412, whose code has it as mixup_criterion.
    """
    code = check_reduction(reduction)
    own, partner, weight, ignore_index = _label_pairs(target)
    labels = label_columns(own, partner)
    kept = [y != ignore_index for y in labels]
    columns = weight_columns(weight, own, torch.float32)
    used = [(w != 0) & k for w, k in zip(columns, kept, strict=True)]
    counts = torch.stack(kept).all(0) | torch.stack(used).any(0)
    other = torch.zeros_like(own)  # the first label that is used
    for u, y in zip(reversed(used), reversed(labels), strict=True):
        other = torch.where(u, y, other)
    labels = tuple(torch.where(u, y, other) for u, y in zip(used, labels, strict=True))
    rows: Tensor | None = None
    for k in _terms(weight):
        loss = _check_losses(criterion(output, labels[k]), own)
        acc = arithmetic(loss.dtype)
        w = weight_columns(weight, own, acc)[k]
        # A label that is not used has weight 0, and the loss of a label that is, or of class 0.
        part = torch.where(used[k], w * loss.to(acc), 0)
        rows = part if rows is None else rows + part
    assert rows is not None
    if code == NONE:
        return rows
    return divide_or_nan(rows.sum(), counts.sum()) if code == MEAN else rows.sum()


def _label_pairs(target: object) -> tuple[Tensor, Tensor, Tensor, int]:
    """Labels, partners' labels, weights and the label that is left out."""
    if isinstance(target, MixedTarget):
        if target.label_smoothing:
            raise ValueError(
                f"target: expected label_smoothing 0, got {target.label_smoothing}; a smoothed "
                "label has a term for each class: smooth in the criterion, or use "
                "soft_target_cross_entropy"
            )
        target.labels_in_range  # noqa: B018  IndexError where labels written to are out of range
        return *target.indices, target.weight, target.ignore_index
    check_plain_tensor("target", target)
    if not isinstance(target, Tensor) or target.dtype != torch.int64 or target.ndim == 0:
        remedy = ""
        if isinstance(target, Tensor) and target.is_floating_point():
            remedy = "; a criterion that takes soft labels needs no help: criterion(output, target)"
        raise TypeError(
            "target: expected a MixedTarget, or int64 class indices [B, …], got "
            f"{kind(target)}{remedy}"
        )
    # The criterion, which knows how many classes there are, checks the indices.
    return target, target, one_label_weight(len(target)), IGNORE_INDEX


def _terms(weight: Tensor) -> tuple[int, ...]:
    """Which of the terms have to be computed: all but those whose weight is 0 in every row."""
    each = range(weight.shape[1])
    if torch.compiler.is_compiling() or not is_host_row(weight) or not has_host_values(weight):
        return tuple(each)
    weighed = weight[:1].any(0).tolist()  # of no rows: False
    return tuple(k for k in each if weighed[k]) or (0,)


def _check_losses(loss: object, labels: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        raise TypeError(f"criterion: expected it to return floating losses, got {kind(loss)}")
    if loss.shape != labels.shape:
        remedy = "give it reduction='none'" if loss.ndim == 0 else "sum or average its other dims"
        raise ValueError(
            f"criterion: expected it to return a loss for each label, {list(labels.shape)}, got "
            f"shape {list(loss.shape)}; {remedy}"
        )
    if loss.device != labels.device:
        raise ValueError(
            f"target: expected it on {loss.device} like the criterion's losses, got labels on "
            f"{labels.device}; use target.to({str(loss.device)!r})"
        )
    return loss
