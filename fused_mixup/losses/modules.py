"""The losses as modules, in place of nn.CrossEntropyLoss and nn.BCEWithLogitsLoss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import kind
from ..codes import IGNORE_INDEX
from ..target.checks import check_label_smoothing
from ..target.heads import heads
from .checks import check_coefficient, check_reduction, check_target_threshold
from .functional import soft_target_binary_cross_entropy, soft_target_cross_entropy


class SoftTargetCrossEntropy(nn.Module):
    """:func:`soft_target_cross_entropy` as a module, in place of ``nn.CrossEntropyLoss``.

    Equivalent to::

        nn.CrossEntropyLoss(weight, ignore_index=ignore_index, reduction=reduction,
                            label_smoothing=label_smoothing)(logits.float(), target)

    Args:
        weight: floating [K], or None; a buffer.
        ignore_index, reduction, label_smoothing, focal_gamma, z_loss, inplace_backward,
            grad_in_forward, validate: as the function's.
        size_average, reduce: PyTorch's own deprecated names, in their places; refused.
        head_weights: for a model of several heads, the weight of each head's loss, in the
            structure of the logits; default 1.

    Shapes:
        logits: [B, K, d1, …]; for a model of several heads a dict, list or tuple of such.
        target: a :class:`fused_mixup.MixedTarget`, dense probabilities or int64 class indices; for
            several heads in the structure of the logits (as ``MixedTarget.from_labels`` gives it).

    Returns:
        The loss, for several heads the sum of theirs.

    Raises:
        TypeError, ValueError, IndexError: as the function; heads that do not match.

    Source: Szegedy et al., 2016, arXiv 1512.00567; Zhang et al., mixup, 2018, arXiv 1710.09412.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        ignore_index: int = IGNORE_INDEX,
        reduce: None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        focal_gamma: float = 0.0,
        z_loss: float = 0.0,
        inplace_backward: bool = False,
        grad_in_forward: bool = False,
        validate: bool = False,
        head_weights: Mapping[Any, float] | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _refuse_legacy(size_average, reduce)
        check_reduction(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.focal_gamma = check_coefficient("focal_gamma", focal_gamma)
        self.z_loss = check_coefficient("z_loss", z_loss)
        self.inplace_backward = inplace_backward
        self.grad_in_forward = grad_in_forward
        self.validate = validate
        self.head_weights = head_weights

    def forward(self, logits: Any, target: Any) -> Tensor:
        return _sum_heads(self._loss, logits, target, self.head_weights)

    def _loss(self, logits: Tensor, target: Any) -> Tensor:
        return soft_target_cross_entropy(
            logits,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
            z_loss=self.z_loss,
            inplace_backward=self.inplace_backward,
            grad_in_forward=self.grad_in_forward,
            validate=self.validate,
        )

    def extra_repr(self) -> str:
        names = "ignore_index", "reduction", "label_smoothing"
        return _describe(self, names, ("focal_gamma", "z_loss"))


class SoftTargetBinaryCrossEntropy(nn.Module):
    """:func:`soft_target_binary_cross_entropy` as a module, for ``nn.BCEWithLogitsLoss``.

    Equivalent to::

        nn.BCEWithLogitsLoss(weight, reduction=reduction, pos_weight=pos_weight)(
            logits.float(), target)

    Args:
        weight, pos_weight: floating, or None; buffers. Shapes as the function's.
        reduction, target_threshold, focal_gamma, sum_classes, inplace_backward, grad_in_forward,
            validate: as the function's.
        size_average, reduce: PyTorch's own deprecated names, in their places; refused.
        head_weights: for a model of several heads, the weight of each head's loss, in the
            structure of the logits; default 1.

    Shapes:
        logits: [B, K, d1, …], or [B] for one logit a row; for a model of several heads a dict, list
            or tuple of such.
        target: a :class:`fused_mixup.MixedTarget`, dense targets or int64 class indices; for
            several heads in the structure of the logits.

    Returns:
        The loss, for several heads the sum of theirs.

    Raises:
        TypeError, ValueError, IndexError: as the function; heads that do not match.

    Source: Wightman et al., ResNet strikes back, 2021, arXiv 2110.00476.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: None = None,
        reduce: None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        *,
        target_threshold: float | None = None,
        focal_gamma: float = 0.0,
        sum_classes: bool = False,
        inplace_backward: bool = False,
        grad_in_forward: bool = False,
        validate: bool = False,
        head_weights: Mapping[Any, float] | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _refuse_legacy(size_average, reduce)
        check_reduction(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.reduction = reduction
        self.target_threshold = check_target_threshold(target_threshold)
        self.focal_gamma = check_coefficient("focal_gamma", focal_gamma)
        self.sum_classes = sum_classes
        self.inplace_backward = inplace_backward
        self.grad_in_forward = grad_in_forward
        self.validate = validate
        self.head_weights = head_weights

    def forward(self, logits: Any, target: Any) -> Tensor:
        return _sum_heads(self._loss, logits, target, self.head_weights)

    def _loss(self, logits: Tensor, target: Any) -> Tensor:
        return soft_target_binary_cross_entropy(
            logits,
            target,
            weight=self.weight,
            pos_weight=self.pos_weight,
            target_threshold=self.target_threshold,
            focal_gamma=self.focal_gamma,
            sum_classes=self.sum_classes,
            reduction=self.reduction,
            inplace_backward=self.inplace_backward,
            grad_in_forward=self.grad_in_forward,
            validate=self.validate,
        )

    def extra_repr(self) -> str:
        return _describe(self, ("reduction", "target_threshold", "sum_classes"), ("focal_gamma",))


def _refuse_legacy(size_average: None, reduce: None) -> None:
    for name, value in (("size_average", size_average), ("reduce", reduce)):
        if value is not None:
            raise ValueError(
                f"{name}: expected None, got {kind(value)}; PyTorch deprecates it: use reduction="
                "'mean', 'sum' or 'none'"
            )


def _describe(module: nn.Module, names: Sequence[str], unless_zero: Sequence[str]) -> str:
    shown = [*names, *(name for name in unless_zero if getattr(module, name))]
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in shown)


def _sum_heads(loss: Callable[..., Any], logits: Any, target: Any, head_weights: Any) -> Tensor:
    """The loss, or the weighted sum of the heads' losses, in the order of the logits."""
    if isinstance(logits, Tensor):
        if head_weights is not None:
            raise TypeError(
                "logits: expected a dict, list or tuple of heads, as head_weights is given, got a "
                "tensor"
            )
        return loss(logits, target)
    if not isinstance(logits, (Mapping, list, tuple)):
        raise TypeError(
            "logits: expected a tensor, or a dict, list or tuple of them, got "
            f"{type(logits).__name__}"
        )
    by_head = heads("logits", logits)
    if not by_head:
        raise ValueError("logits: expected at least one head, got none")
    if not isinstance(target, (Mapping, list, tuple)):
        raise TypeError(
            f"target: expected the heads of logits, got {type(target).__name__}; "
            "MixedTarget.from_labels takes a dict, list or tuple of labels"
        )
    targets = heads("target", target, "logits", logits)
    losses = [loss(z, targets[head]) for head, z in by_head.items()]
    if head_weights is not None:
        factors = heads("head_weights", head_weights, "logits", logits)
        losses = [value * factors[head] for head, value in zip(by_head, losses, strict=True)]
    if any(value.shape != losses[0].shape for value in losses):
        shapes = {head: list(value.shape) for head, value in zip(by_head, losses, strict=True)}
        raise ValueError(
            f"logits: expected heads whose losses have one shape, to be summed, got {shapes}; use "
            "reduction='mean' or 'sum', or call the function for each head"
        )
    return torch.stack(losses).sum(0)
