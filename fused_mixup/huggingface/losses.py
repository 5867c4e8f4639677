"""The loss of mixed labels, by the rule by which Transformers' heads choose theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..arguments import kind
from ..losses.functional import soft_target_binary_cross_entropy, soft_target_cross_entropy
from ..target.mixed_target import MixedTarget

REGRESSION, MANY_LABELS = "regression", "multi_label_classification"


def logits_of(outputs: Any) -> Tensor:
    """The logits of what a model returned: by name, or the first entry of a tuple."""
    if isinstance(outputs, Tensor):
        return outputs
    logits = None
    if isinstance(outputs, Mapping):
        logits = outputs.get("logits")
    elif isinstance(outputs, (tuple, list)) and len(outputs):
        logits = outputs[0]
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"outputs: expected a model that returns logits, got {kind(outputs)} without; give "
            "mixing_loss=, a function of (outputs, target)"
        )
    return logits


def mixed_loss(outputs: Any, target: Any, indices: bool, problem: str | None) -> Tensor:
    """The mean loss of a mixed batch.

    Args:
        outputs: what the model returned.
        target: a :class:`MixedTarget`, or floats [B], [B, K].
        indices: the labels were class indices before they were mixed.
        problem: the model's ``config.problem_type``.
    """
    logits = logits_of(outputs)
    if isinstance(target, MixedTarget):
        return soft_target_cross_entropy(logits, target)
    if not isinstance(target, Tensor):
        raise TypeError(
            f"labels: expected one tensor of them, got {kind(target)}; give mixing_loss=, a "
            "function of (outputs, target), for a model of several heads"
        )
    if indices or problem == "single_label_classification":
        return soft_target_cross_entropy(logits, target)
    if problem == REGRESSION or (problem is None and logits.shape[1:].numel() == 1):
        return F.mse_loss(logits.reshape(target.shape), target.to(logits.dtype))
    return soft_target_binary_cross_entropy(logits, target)
