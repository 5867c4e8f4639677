"""Checks of what a :class:`fused_mixup.ManifoldMixup` is called with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..dtypes import BLENDABLE, FLOATING
from ..saliency.modes import find_logits
from ..target.heads import STRUCTURES, leaves

_LABELS = (torch.int64, *FLOATING)


def check_inputs(x: Any, labels: Any, mixes_input: bool, targets: Any, cuts: bool) -> int:
    """B, of a call whose arguments are as described."""
    size = check_labels(labels, targets, cuts)
    if x is not None:
        if not isinstance(x, Tensor) or x.ndim < 1:
            raise TypeError(
                f"x: expected a tensor [B, …], got {kind(x)}; give all inputs as keywords, or the "
                "one with the samples first"
            )
        if x.shape[0] != size:
            raise ValueError(f"labels: expected {x.shape[0]} samples as in x, got {size}")
    if mixes_input and (x is None or x.dtype not in BLENDABLE):
        got = "None" if x is None else str(x.dtype)
        raise TypeError(
            f"x: expected floating values or uint8, as include_input=True mixes them, got {got}; "
            "token ids cannot be mixed: set include_input=False, or hook the embeddings"
        )
    return size


def check_labels(labels: Any, targets: Any, cuts: bool = False) -> int:
    """B of the labels of all heads."""
    if labels is None:
        raise ValueError(
            "labels: expected labels [B], as the model is in training mode, got None; without "
            "labels call model.eval() first, or the model itself"
        )
    size: int | None = None
    maps = False
    for y in heads_of(labels):
        if not isinstance(y, Tensor) or y.ndim < 1:
            raise TypeError(
                f"labels: expected int64 class indices [B] or floats [B, …], got {kind(y)}"
            )
        if y.dtype not in _LABELS:
            remedy = ".float() to blend" if y.dtype == torch.bool else ".long()"
            raise TypeError(
                f"labels: expected int64 class indices [B] or floats [B, …], got {y.dtype}; use "
                f"{remedy}"
            )
        if size is not None and y.shape[0] != size:
            raise ValueError(f"labels: expected {size} samples in each head, got {y.shape[0]}")
        size = y.shape[0]
        maps = maps or (y.ndim > 1 and y.dtype == torch.int64)
    if size is None:
        raise ValueError(f"labels: expected those of one head or more, got {kind(labels)}")
    if maps and cuts:
        raise ValueError(
            "labels: expected one class a sample where cutmix > 0, as boxes are drawn in feature "
            "maps, not in class maps; set cutmix=0"
        )
    if targets.num_classes is not None and not maps:
        targets.check("labels", labels, targets.num_classes)
    return size


def heads_of(labels: Any) -> Iterable[Any]:
    return (labels,) if isinstance(labels, Tensor) else leaves(labels)


def classes_of(output: Any, labels: Any, name: str) -> int | None:
    """K, by the logits that the model returned; None where labels are floats."""
    if all(y.is_floating_point() for y in heads_of(labels)):
        return None
    if isinstance(labels, STRUCTURES):
        raise ValueError(
            "num_classes: expected the number of each head of labels, got None; give "
            f"{name}(…, num_classes={{…}})"
        )
    logits = find_logits(output)
    if logits is None or logits.ndim < 2:
        raise ValueError(
            f"num_classes: expected a number, as the model returns no logits [B, K], got "
            f"{kind(output)}; give {name}(…, num_classes=K)"
        )
    if isinstance(labels, Tensor) and labels.shape[1:] == logits.shape[1:-1] != logits.shape[2:]:
        raise ValueError(
            f"num_classes: expected logits [B, K, …], as the losses take them, got "
            f"{list(logits.shape)} for labels {list(labels.shape)}; give {name}(…, num_classes=K), "
            "and logits.movedim(-1, 1) to the loss"
        )
    return logits.shape[1]
