"""Labels of a mixed batch that never become dense: :class:`MixedTarget`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import torch
from torch import Tensor

from .by_value import sent_by_value
from .plan import MixPlan
from .plan_checks import FLIP, ROLL, SELF, integer, is_host_row
from .tracing import is_plain

IGNORE_INDEX = -100  # PyTorch's default
NO_IGNORE = -(2**63)  # for ops: no label is ignored


def partner_rows(t: Tensor, partner: Tensor | None, pairing: int) -> Tensor:
    """``t[partner]`` along dim 0; ``partner`` is None where the pairing is a rule."""
    if pairing == FLIP:
        return t.flip(0)
    if pairing == ROLL:
        return t.roll(1, 0)
    if pairing == SELF or partner is None:
        return t
    # Clamped, as in the kernels: a partner tensor on a device cannot be checked on the host.
    return t.index_select(0, partner.clamp(0, max(t.shape[0] - 1, 0)))


def label_bounds(labels: Tensor) -> tuple[int, int]:
    """The smallest and the largest of labels on the CPU, of which there is one at least."""
    if labels.ndim == 1 and len(labels) <= 512 and is_plain():
        values = labels.tolist()  # for the labels of a batch half the time of the op
        return min(values), max(values)
    low, high = torch.aminmax(labels)
    return int(low), int(high)


def check_labels(labels: Tensor, num_classes: int, ignore_index: int = NO_IGNORE) -> bool:
    """TypeError or IndexError for labels that are no class indices (values: on the CPU only).

    True where all are known to be in [0, num_classes).
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(
            f"labels: expected an int64 tensor of class indices, got {got}; use .long()"
        )
    if labels.device.type != "cpu" or labels.numel() == 0 or torch.compiler.is_compiling():
        return False
    low, high = label_bounds(labels)
    if low >= 0 and high < num_classes:
        return True
    outside = labels[((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)]
    if outside.numel():
        legal = "" if ignore_index == NO_IGNORE else f" or {ignore_index}, which is ignored"
        raise IndexError(
            f"labels: expected class indices in [0, {num_classes}){legal}, got "
            f"{int(outside.amin() if outside.amin() < 0 else outside.amax())}; check num_classes"
        )
    return False


def check_num_classes(num_classes: int) -> int:
    num_classes = integer("num_classes", num_classes)
    if num_classes < 1:
        raise ValueError(f"num_classes: expected an int >= 1, got {num_classes}")
    return num_classes


def check_label_smoothing(label_smoothing: float) -> float:
    if not isinstance(label_smoothing, (int, float)):  # NumPy's numbers, or none at all
        try:
            label_smoothing = float(label_smoothing)
        except (TypeError, ValueError):
            got = f"{label_smoothing!r}"
            raise TypeError(f"label_smoothing: expected a number, got {got}") from None
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing}")
    return label_smoothing


def check_target_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"dtype: expected a floating dtype, got {dtype}")


def heads(name: str, values: Any, like_name: str = "", like: Any = None) -> dict[Any, Any]:
    """The heads of a dict, list or tuple by their key or index; the same ones as those of like."""
    found = dict(values.items() if isinstance(values, Mapping) else enumerate(values))
    if like is not None:
        keys = heads(like_name, like).keys()
        if found.keys() != keys or isinstance(values, Mapping) != isinstance(like, Mapping):
            raise ValueError(
                f"{name}: expected the heads of {like_name}, {sorted(map(str, keys))}, got "
                f"{sorted(map(str, found))}"
            )
    return found


@sent_by_value
@dataclass(frozen=True, eq=False)
class MixedTarget:
    """The labels of a mixed batch: two class indices and two weights per sample.

    It stands for ``t = Σ_k weight_k · ((1-ε) · onehot(label_k) + ε/K)``; where both labels are
    equal their weights add. :func:`fused_mixup.soft_target_cross_entropy` takes it as it is; for
    a loss that wants dense soft labels use :meth:`dense`, and for one that wants class indices
    :attr:`dominant` (which ignores the mix).

    Attributes:
        labels: int64 [B, …], classes of the samples themselves.
        partner_labels: int64 [B, …], classes of their partners.
        weight: float32 [B, 2], weights of the two. One expanded row on the CPU serves labels on
            any device, as in :class:`MixPlan`.
        num_classes: K.
        label_smoothing: ε in [0, 1].
        ignore_index: labels equal to it are legal, and their terms are left out.

    Equivalent to (:meth:`dense`, nothing ignored)::

        y = F.one_hot(labels, K) * (1 - ε) + ε / K
        z = F.one_hot(partner_labels, K) * (1 - ε) + ε / K
        y * weight[:, :1] + z * weight[:, 1:]

    Raises:
        TypeError, ValueError: a field of another dtype, shape or device, weights that are not
            finite or require grad.
        IndexError: a label outside [0, K) that is not ignored, where the labels live on the CPU.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """

    labels: Tensor
    partner_labels: Tensor
    weight: Tensor
    num_classes: int
    label_smoothing: float = 0.0
    ignore_index: int = IGNORE_INDEX
    # Whether all labels are known to be in [0, num_classes).
    labels_in_range: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_classes", check_num_classes(self.num_classes))
        object.__setattr__(self, "label_smoothing", check_label_smoothing(self.label_smoothing))
        object.__setattr__(self, "ignore_index", integer("ignore_index", self.ignore_index))
        own = check_labels(self.labels, self.num_classes, self.ignore_index)
        if self.labels.ndim < 1:
            raise ValueError("labels: expected shape [B, …], got a scalar")
        if (
            not isinstance(self.partner_labels, Tensor)
            or self.partner_labels.shape != self.labels.shape
            or self.partner_labels.dtype != torch.int64
            or self.partner_labels.device != self.labels.device
        ):
            raise ValueError(
                f"partner_labels: expected an int64 tensor of shape {list(self.labels.shape)} on "
                f"{self.labels.device} as labels"
            )
        if not isinstance(self.weight, Tensor) or self.weight.dtype != torch.float32:
            raise TypeError("weight: expected a float32 tensor; λ in half precision loses labels")
        if self.weight.shape != (self.labels.shape[0], 2):
            raise ValueError(
                f"weight: expected shape [{self.labels.shape[0]}, 2], got {list(self.weight.shape)}"
            )
        partner = check_labels(self.partner_labels, self.num_classes, self.ignore_index)
        object.__setattr__(self, "labels_in_range", own and partner)
        self._check_weight()

    def _check_weight(self) -> None:
        if self.weight.requires_grad:
            raise ValueError(
                "weight: expected a tensor that does not require grad, as no gradient reaches it; "
                "use .detach()"
            )
        if self.weight.device.type == "cpu" and not torch.compiler.is_compiling():
            rows = self.weight[:1] if is_host_row(self.weight) else self.weight
            if not bool(rows.isfinite().all()):
                raise ValueError("weight: expected finite numbers, got infinity or NaN")
        if self.weight.stride(-1) != 1:  # kernels step from row to row
            object.__setattr__(self, "weight", self.weight.contiguous())

    @overload
    @staticmethod
    def from_labels(
        labels: Tensor,
        plan: MixPlan,
        num_classes: int,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> MixedTarget: ...

    @overload
    @staticmethod
    def from_labels(
        labels: Mapping | Sequence,
        plan: MixPlan,
        num_classes: int | Mapping | Sequence,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> Any: ...

    @staticmethod
    def from_labels(
        labels: Any,
        plan: MixPlan,
        num_classes: Any,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> Any:
        """The target of a batch with class indices ``labels``, mixed by ``plan``.

        Args:
            labels: int64 [B, …], class indices in [0, num_classes); for a model of several heads
                a dict, list or tuple of such labels.
            plan: a plan for B samples.
            num_classes: K; of several heads one for all, or each its own in the structure of the
                labels.
            label_smoothing: ε in [0, 1].
            ignore_index: labels equal to it are legal, and their terms are left out.

        Returns:
            A target, or the targets of the heads in the structure of the labels.

        Raises:
            TypeError, IndexError, ValueError: labels that are no int64 indices in
                [0, num_classes), another batch size than the plan's, or another structure.
        """
        if isinstance(labels, (Mapping, list, tuple)):
            options = label_smoothing, ignore_index
            by_head = heads("labels", labels)
            if isinstance(num_classes, (Mapping, list, tuple)):
                counts = heads("num_classes", num_classes, "labels", labels)
            else:
                counts = dict.fromkeys(by_head, num_classes)
            each = {
                head: MixedTarget.from_labels(y, plan, counts[head], *options)
                for head, y in by_head.items()
            }
            return each if isinstance(labels, Mapping) else type(labels)(each.values())
        num_classes = check_num_classes(num_classes)
        if not isinstance(plan, MixPlan):
            raise TypeError(f"plan: expected a MixPlan, got {type(plan).__name__}")
        labels_in_range = check_labels(labels, num_classes, ignore_index)
        if labels.ndim < 1 or labels.shape[0] != plan.batch_size:
            raise ValueError(
                f"labels: expected shape [{plan.batch_size}, …] as in plan, "
                f"got {list(labels.shape)}"
            )
        partner = plan.partner_or_none
        partner_labels = partner_rows(labels, partner, plan.rule)
        weight = plan.weight
        if not labels_in_range or weight.stride(-1) != 1 or weight.requires_grad:
            return MixedTarget(
                labels, partner_labels, weight, num_classes, label_smoothing, ignore_index
            )
        # The partners' labels are among those just looked at, and the plan has seen its weights.
        target = object.__new__(MixedTarget)
        target.__dict__.update(
            labels=labels,
            partner_labels=partner_labels,
            weight=weight,
            num_classes=num_classes,
            label_smoothing=check_label_smoothing(label_smoothing),
            ignore_index=integer("ignore_index", ignore_index),
            labels_in_range=True,
        )
        return target

    @property
    def dominant(self) -> Tensor:
        """int64 [B, …]: the label with the larger weight (the sample's own on a tie)."""
        weight = self.weight.to(self.labels.device)
        own = (weight[:, 0] >= weight[:, 1]).view(-1, *[1] * (self.labels.ndim - 1))
        return torch.where(own, self.labels, self.partner_labels)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense soft labels [B, K, …] of a floating ``dtype`` that this target stands for."""
        from .reference import dense_target

        check_target_dtype(dtype)

        return dense_target(
            self.labels,
            self.partner_labels,
            self.weight,
            self.num_classes,
            self.label_smoothing,
            dtype,
            self.ignore_index,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MixedTarget:
        """The same target on ``device``."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("labels", "partner_labels", "weight")
        }
        return replace(self, **moved)

    def pin_memory(self) -> MixedTarget:
        """The same target in page-locked memory; a loader with ``pin_memory=True`` calls it."""
        return replace(
            self,
            labels=self.labels.pin_memory(),
            partner_labels=self.partner_labels.pin_memory(),
            weight=self.weight.contiguous().pin_memory(),
        )


def flattened(target: MixedTarget, shape: Sequence[int]) -> MixedTarget:
    """``target`` with labels […] of logits of ``shape`` […, K] as one with labels [rows]."""
    if target.labels.shape != tuple(shape[:-1]):
        raise ValueError(
            f"target: expected labels {list(shape[:-1])} for logits {list(shape)}, got "
            f"{list(target.labels.shape)}"
        )
    if len(shape) == 2:
        return target
    weight, rows = target.weight, target.labels.numel()
    if is_host_row(weight):
        weight = weight[:1].expand(rows, -1)  # stays a row that serves any device
    else:
        weight = weight.repeat_interleave(math.prod(shape[1:-1]), 0)
    labels, partner_labels = target.labels.reshape(-1), target.partner_labels.reshape(-1)
    return replace(target, labels=labels, partner_labels=partner_labels, weight=weight)
