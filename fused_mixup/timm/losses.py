"""timm's losses, on the fused ops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codes import NO_IGNORE
from ..losses.arguments import flatten_target
from ..losses.functional import soft_target_binary_cross_entropy, soft_target_cross_entropy
from ..target.mixed_target import MixedTarget
from .checks import class_indices


class SoftTargetCrossEntropy(nn.Module):
    """Cross-entropy with soft targets, averaged: ``mean_i -Σ_c t_ic log_softmax(x_i)_c``.

    Equivalent to::

        (-target * F.log_softmax(x, dim=-1)).sum(-1).mean()

    Shapes:
        x: [..., C] logits.
        target: [..., C] dense (leading dims broadcast with those of x), or a
        :class:`fused_mixup.MixedTarget` with labels [...].

    Returns:
        A scalar of the dtype that x and target promote to (weights of a MixedTarget are float32).

    Raises:
        TypeError, ValueError: class indices, or shapes that do not fit.

    Notes:
        Equal to timm's to float32 rounding, in half precision nearer the exact value. A target of 0
        drops its term, so a logit of -inf there gives no NaN.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """

    def forward(self, x: Tensor, target: Tensor | MixedTarget) -> Tensor:
        return _cross_entropy(x, target, 0.0)


class LabelSmoothingCrossEntropy(nn.Module):
    """Cross-entropy with smoothed labels: ``mean_i (1-s) nll_i + s mean_c(-log_softmax(x_i)_c)``.

    Equivalent to::

        F.cross_entropy(x, target, label_smoothing=smoothing)

    Args:
        smoothing: s in [0, 1).

    Shapes:
        x: [..., C] logits.
        target: [...] class indices. Soft ones, a :class:`fused_mixup.MixedTarget` or dense
        [..., C], are taken too (timm's takes none) and smoothed on top of what smoothing they have.

    Returns:
        A scalar of the dtype of x (promoted with that of soft targets).

    Raises:
        AssertionError: smoothing outside [0, 1).
        IndexError: a class index outside [0, C) on the CPU.
        TypeError, ValueError: other bad input.

    Notes:
        Equal to timm's to float32 rounding. For x of more than two dims timm's result is
        wrong; here it is the mean over all rows.

    Source: Szegedy et al., 2016, arXiv 1512.00567.
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        _check_smoothing(smoothing)
        self.smoothing = smoothing
        self.confidence = 1.0 - smoothing

    def forward(self, x: Tensor, target: Tensor | MixedTarget) -> Tensor:
        if isinstance(target, MixedTarget) or target.is_floating_point():
            return _cross_entropy(x, target, self.smoothing)
        if target.shape != x.shape[:-1]:
            raise ValueError(
                f"target: expected class indices {list(x.shape[:-1])} for logits {list(x.shape)}, "
                f"got {list(target.shape)}"
            )
        loss = soft_target_cross_entropy(
            x.reshape(-1, x.shape[-1]),
            target.long().reshape(-1),
            ignore_index=NO_IGNORE,  # timm's loss ignores no label
            label_smoothing=self.smoothing,
        )
        return loss.to(_softmax_dtype(x))


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of each class: ``-t log σ(x) - (1-t) log(1 - σ(x))``, reduced.

    Args:
        smoothing: s in [0, 1); class indices become one-hot with off = s/C and on = 1-s+off.
        target_threshold: targets above it count as 1, others as 0.
        weight: [C] (or broadcastable), scales the loss of each class; a buffer.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        sum_classes: sum over the classes, then average; ``reduction`` is not used.
        pos_weight: [C] or a number, scales the positive term; a buffer.
        smooth_dense: smooth dense targets too, ``t (1-s) + s/2``.

    Shapes:
        x: [B, ..., C] logits.
        target: dense, of the shape of x; class indices [B] (for x [B, C]); or a
        :class:`fused_mixup.MixedTarget`, taken as the dense target that it stands for.

    Returns:
        A scalar, or [B, ..., C] for ``"none"``.

    Raises:
        AssertionError: smoothing outside [0, 1); another batch size than that of x.
        TypeError: class indices with fractions (timm truncates them), on the CPU.
        ValueError: targets that are neither dense nor one class index for each row; class indices
            of a single logit (timm takes class 0 for a positive, and raises for class 1).

    Notes:
        Bit-equal to timm's for dense targets and class indices. A MixedTarget of logits [B, C] is
        never made dense (unless smooth_dense smooths it): its loss is equal to float32 rounding.

    Source: Wightman et al., ResNet strikes back, 2021, arXiv 2110.00476.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        smoothing: float = 0.1,
        target_threshold: float | None = None,
        weight: Tensor | None = None,
        reduction: str = "mean",
        sum_classes: bool = False,
        pos_weight: Tensor | float | None = None,
        smooth_dense: bool = False,
    ) -> None:
        super().__init__()
        _check_smoothing(smoothing)
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
        self.smoothing = smoothing
        self.target_threshold = target_threshold
        self.reduction = "none" if sum_classes else reduction
        self.sum_classes = sum_classes
        self.register_buffer("weight", weight)
        if pos_weight is not None and not isinstance(pos_weight, Tensor):
            pos_weight = torch.tensor(pos_weight)
        self.register_buffer("pos_weight", pos_weight)
        self.smooth_dense = smooth_dense

    def forward(self, x: Tensor, target: Tensor | MixedTarget) -> Tensor:
        smooths = self.smooth_dense and self.smoothing
        if isinstance(target, MixedTarget) and x.ndim == 2 and not smooths:
            return soft_target_binary_cross_entropy(
                x,
                target,
                weight=self.weight,
                pos_weight=self.pos_weight,
                target_threshold=self.target_threshold,
                sum_classes=self.sum_classes,
                reduction="mean" if self.sum_classes else self.reduction,
            )
        t = self._target(x, target)
        if self.target_threshold is not None:
            t = (t > self.target_threshold).to(t.dtype)
        loss = F.binary_cross_entropy_with_logits(
            x, t, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )
        return loss.sum(-1).mean() if self.sum_classes else loss

    def _target(self, x: Tensor, target: Tensor | MixedTarget) -> Tensor:
        """The dense target [B, ..., C], smoothed."""
        if isinstance(target, MixedTarget):
            target = target.dense()
        if target.shape[:1] != x.shape[:1]:
            raise AssertionError(
                f"target: expected batch size {len(x)} as x, got shape {list(target.shape)}"
            )
        if target.shape == x.shape:
            dense = self.smooth_dense and self.smoothing
            return target * (1.0 - self.smoothing) + 0.5 * self.smoothing if dense else target
        if x.ndim != 2 or target.numel() != len(x) or x.shape[1] == 1:
            raise ValueError(
                f"target: expected dense targets {list(x.shape)} as x, or class indices "
                f"[{len(x)}] for x [B, C] of at least two classes, got {list(target.shape)} for x "
                f"{list(x.shape)}; for one logit give target[:, None].float()"
            )
        off = self.smoothing / x.shape[1]
        labels = class_indices(target).view(-1, 1)
        return torch.full_like(x, off, requires_grad=False).scatter_(
            1, labels, 1.0 - self.smoothing + off
        )


def _cross_entropy(x: Tensor, target: Tensor | MixedTarget, smoothing: float) -> Tensor:
    """Soft-target cross-entropy over the last dim of x [..., C], averaged over the others."""
    if isinstance(target, MixedTarget):
        dtype = torch.float32
        rows: Tensor | MixedTarget = flatten_target(target, x.shape)
    else:
        dtype = target.dtype
        if target.shape != x.shape and not target.is_floating_point():
            raise TypeError(
                f"target: expected soft labels {list(x.shape)} as x, got {dtype} "
                f"{list(target.shape)}; for class indices LabelSmoothingCrossEntropy(0.0)"
            )
        if target.shape == x.shape and not target.is_floating_point():
            target, dtype = target.to(x.dtype), x.dtype  # one-hot, multi-label
        if target.shape != x.shape and target.is_floating_point():
            leading = torch.broadcast_shapes(x.shape[:-1], target.shape[:-1])
            x, target = x.expand(*leading, -1), target.expand(*leading, -1)
        rows = target.reshape(-1, target.shape[-1]) if x.ndim != 2 else target
    loss = soft_target_cross_entropy(x.reshape(-1, x.shape[-1]), rows, label_smoothing=smoothing)
    return loss.to(torch.promote_types(_softmax_dtype(x), dtype))


def _softmax_dtype(x: Tensor) -> torch.dtype:
    """The dtype of log_softmax(x): under autocast (not the CPU's) float32 for half types."""
    half, device = x.dtype in (torch.float16, torch.bfloat16), x.device.type
    widens = half and device != "cpu" and torch.is_autocast_enabled(device)
    return torch.float32 if widens else x.dtype


def _check_smoothing(smoothing: float) -> None:
    if not 0.0 <= smoothing < 1.0:
        raise AssertionError(f"smoothing: expected a number in [0, 1), got {smoothing!r}")
