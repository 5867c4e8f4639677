"""Soft-target losses and accuracy: functions, modules, their checks and gradients."""

from .accuracy import mixed_accuracy
from .criterion import mixed_criterion
from .functional import soft_target_binary_cross_entropy, soft_target_cross_entropy
from .linear import linear_soft_target_cross_entropy
from .modules import SoftTargetBinaryCrossEntropy, SoftTargetCrossEntropy

__all__ = [
    "SoftTargetBinaryCrossEntropy",
    "SoftTargetCrossEntropy",
    "linear_soft_target_cross_entropy",
    "mixed_accuracy",
    "mixed_criterion",
    "soft_target_binary_cross_entropy",
    "soft_target_cross_entropy",
]
