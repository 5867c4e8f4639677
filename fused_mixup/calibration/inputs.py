"""Predictions and labels as rows: probabilities, and which rows count."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import check_plain_tensor, integer, kind
from ..checks import check_memory
from ..codes import NO_IGNORE
from ..dtypes import FLOATING, arithmetic
from ..target.checks import check_labels
from ..tracing import has_host_values


class Rows(NamedTuple):
    """One row for each sample and position."""

    probabilities: Tensor  # [N, K], or [N] of class 1; float32 or float64
    labels: Tensor  # int64 [N]
    counts: Tensor | None  # bool [N]: rows whose label is not ignored; None for all


def rows_of(
    predictions: Tensor, labels: Tensor, from_logits: bool | None, ignore_index: int | None
) -> Rows:
    """The rows of predictions [B, K, d1, …] or, of two classes, [B, d1, …]."""
    _check_predictions(predictions)
    _check_labels(predictions, labels)
    binary = predictions.shape == labels.shape
    skipped = NO_IGNORE if ignore_index is None else integer("ignore_index", ignore_index)
    check_labels(labels, 2 if binary else predictions.shape[1], skipped)
    if from_logits is not None and not isinstance(from_logits, bool):
        raise TypeError(f"from_logits: expected True, False or None, got {kind(from_logits)}")
    values = predictions.detach()
    values = values.to(arithmetic(values.dtype))
    values = values.flatten() if binary else values.movedim(1, -1).flatten(0, -2)
    labels = labels.flatten().long()
    counts = None if ignore_index is None else labels != skipped
    return Rows(_normalized(values, counts, from_logits), labels, counts)


def _normalized(values: Tensor, counts: Tensor | None, from_logits: bool | None) -> Tensor:
    if from_logits is False:
        _check_probabilities(values, counts)
        return values
    if from_logits is None:
        # A NaN lies nowhere, so it counts as outside.
        outside = _any_counted(~((values >= 0) & (values <= 1)), counts)
        if has_host_values(outside):
            return _softmax(values) if bool(outside) else values
        return torch.where(outside, _softmax(values), values)
    return _softmax(values)


def _softmax(values: Tensor) -> Tensor:
    return values.sigmoid() if values.ndim == 1 else values.softmax(-1)


def _any_counted(found: Tensor, counts: Tensor | None) -> Tensor:
    if counts is not None:
        found = found & (counts if found.ndim == 1 else counts.unsqueeze(1))
    return found.any()


def _check_probabilities(values: Tensor, counts: Tensor | None) -> None:
    # The comparisons are false for NaN, which comes out as NaN.
    outside = (values < 0) | (values > 1)
    if has_host_values(values) and bool(_any_counted(outside, counts)):
        raise ValueError(
            "predictions: expected probabilities in [0, 1] as from_logits is False, got values "
            "outside; give from_logits=True for logits"
        )


def _check_predictions(predictions: Any) -> None:
    check_plain_tensor("predictions", predictions)
    if not isinstance(predictions, Tensor) or predictions.dtype not in FLOATING:
        raise TypeError(
            "predictions: expected a floating tensor [B, K, …] of probabilities or logits, got "
            f"{kind(predictions)}"
        )
    check_memory("predictions", predictions)
    if predictions.ndim == 0:
        raise ValueError("predictions: expected shape [B, K, …] or [B, …], got []")


def _check_labels(predictions: Tensor, labels: Any) -> None:
    check_plain_tensor("labels", labels)
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        raise TypeError(
            f"labels: expected an int64 tensor of class indices, got {kind(labels)}; calibration "
            "compares with the true class, so measure it on data that is not mixed"
        )
    shape = predictions.shape
    many = shape[:1] + shape[2:]
    if labels.shape == shape or (labels.shape == many and predictions.ndim > 1 and shape[1] > 1):
        if labels.device != predictions.device:
            raise ValueError(
                f"labels: expected them on {predictions.device} like predictions, got "
                f"{labels.device}"
            )
        return
    if labels.shape == many and predictions.ndim > 1:
        raise ValueError(
            f"predictions: expected K >= 2 classes in dim 1, got shape {list(shape)}; the "
            "probability of class 1 alone has the shape of labels: .squeeze(1)"
        )
    raise ValueError(
        f"labels: expected shape {list(many)} for predictions [B, K, …], or {list(shape)} for the "
        f"probability of class 1, got {list(labels.shape)}"
    )
