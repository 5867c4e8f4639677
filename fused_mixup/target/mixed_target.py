"""Labels of a mixed batch that never become dense: :class:`MixedTarget`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from .. import ops
from ..arguments import integer, kind
from ..codes import IGNORE_INDEX
from ..frozen import versions
from ..loading.by_value import send_by_value
from ..plan.checks import check_no_pool
from ..plan.mix_plan import MixPlan
from ..plan.rows import map_rows
from ..reference.dense import dense_target
from ..reference.masks import keep_masked, paste_rows
from ..reference.pairing import partner_rows
from .accelerate import extend_accelerate
from .checks import (
    check_label_smoothing,
    check_labels,
    check_num_classes,
    check_target_dtype,
    check_target_tensors,
)
from .heads import STRUCTURES, class_counts, heads, restore_structure
from .label_rows import LabelRows, split_labels


@send_by_value
class MixedTarget(LabelRows):
    """The labels of a mixed batch: two class indices and two weights per sample, or more.

    It stands for ``t = Σ_k weight_k · ((1-ε) · onehot(label_k) + ε/K)``; where both labels are
    equal their weights add. :func:`fused_mixup.soft_target_cross_entropy` takes it as it is; for
    a loss that wants dense soft labels use :meth:`dense`, and for one that wants class indices
    :attr:`dominant` (which ignores the mix).

    Attributes:
        labels: int64 [B, …], classes of the samples themselves; maps keep a narrower dtype.
        partner_labels: the same of their partners; [B, k-1, …] for k > 2 labels a row, which
            :meth:`of_labels` makes targets of.
        weight: float32 [B, 2], weights of the two, or [B, k]; they need not sum to one. One
            expanded row on the CPU serves labels on any device, as in :class:`MixPlan`.
        num_classes: K.
        label_smoothing: ε in [0, 1].
        ignore_index: labels equal to it are legal, and their terms are left out.

    Equivalent to (:meth:`dense`, nothing ignored)::

        y = F.one_hot(labels, K) * (1 - ε) + ε / K
        z = F.one_hot(partner_labels, K) * (1 - ε) + ε / K
        y * weight[:, :1] + z * weight[:, 1:]

    ``target[a:b]`` (and an index tensor, a list or a bool mask) is the target of those samples,
    ``len(target)`` is B, ``shape`` and ``size`` are those of the labels, ``split`` and ``chunk``
    work as those of tensors: gradient accumulation splits a batch with its target.

    Raises:
        TypeError, ValueError: a field of another dtype, shape or device, weights that are not
            finite or require grad.
        IndexError: a label outside [0, K) that is not ignored, where the labels live on the CPU.

    Notes:
        Immutable, and no dataclass: code that casts or shards the tensors of a batch meets a leaf
        with ``.to``, ``.cpu``, ``.cuda`` and ``.pin_memory``, which keep the dtypes. Two targets
        are equal where all their tensors and numbers are. ``torch.save`` takes it, and
        ``torch.load`` gives it back with ``weights_only=True``.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """

    __module__ = __package__  # the module in a saved target

    num_classes: int
    label_smoothing: float
    ignore_index: int
    _in_range: bool
    _versions: tuple[float, ...] | None

    def __init__(
        self,
        labels: Tensor,  # [B, …]
        partner_labels: Tensor,  # [B, …], or [B, k-1, …]
        weight: Tensor,  # [B, 2], or [B, k]
        num_classes: int,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        num_classes = check_num_classes(num_classes)
        label_smoothing = check_label_smoothing(label_smoothing)
        ignore_index = integer("ignore_index", ignore_index)
        own = check_labels(labels, num_classes, ignore_index)
        check_target_tensors(labels, partner_labels, weight)
        partner = check_labels(partner_labels, num_classes, ignore_index)
        weight = weight if weight.stride(-1) == 1 else weight.contiguous()
        tensors = labels, partner_labels, weight
        self._set(tensors, (num_classes, label_smoothing, ignore_index), own and partner)

    def _set(self, tensors: Sequence[Tensor], numbers: Sequence[Any], in_range: bool) -> None:
        extend_accelerate(MixedTarget)  # accelerate's loader may join and slice it
        labels, partner_labels, weight = tensors
        num_classes, label_smoothing, ignore_index = numbers
        self._fill(
            labels=labels,
            partner_labels=partner_labels,
            weight=weight,
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            ignore_index=ignore_index,
            _in_range=in_range,
            _versions=versions(labels, partner_labels),
        )

    def _replace(self, labels: Tensor, partner_labels: Tensor, weight: Tensor) -> MixedTarget:
        """The target with other tensors, whose values have been checked."""
        target = object.__new__(MixedTarget)
        target._set((labels, partner_labels, weight), self._numbers, self._in_range)
        return target

    @property
    def _numbers(self) -> tuple[int, float, int]:
        return self.num_classes, self.label_smoothing, self.ignore_index

    @property
    def labels_in_range(self) -> bool:
        """Whether all labels are known to be in [0, num_classes)."""
        if self._versions == versions(self.labels, self.partner_labels):
            return self._in_range
        own = check_labels(self.labels, self.num_classes, self.ignore_index)
        return check_labels(self.partner_labels, self.num_classes, self.ignore_index) and own

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedTarget, (self.labels, self.partner_labels, self.weight, *self._numbers)

    @overload
    @staticmethod
    def from_labels(
        labels: Tensor,  # [B, …]
        plan: MixPlan,
        num_classes: int,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> MixedTarget: ...

    @overload
    @staticmethod
    def from_labels(
        labels: Mapping[Any, Any] | Sequence[Any],
        plan: MixPlan,
        num_classes: int | Mapping[Any, Any] | Sequence[Any],
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
                a dict, list or tuple of such labels. Maps may be integers of any width.
                Maps [B, …, spatial] (labels of as many dims after [B] as a box has, or more) are
                cut where the image is cut: in a box a pixel has the partner's label, outside of it
                both, with the weights of the values. Other labels are mixed by the plan's
                ``weight``; so are maps with ``plan.for_labels()``.
            plan: a plan for B samples.
            num_classes: K; for several heads one for all, or one for each in the structure of the
                labels.
            label_smoothing: ε in [0, 1].
            ignore_index: labels equal to it are legal, and their terms are left out.

        Returns:
            A target, or the targets of the heads in the structure of the labels.

        Raises:
            TypeError, IndexError, ValueError: labels that are no int64 indices in
                [0, num_classes), another batch size than the plan's, or another structure.
        """
        if isinstance(labels, STRUCTURES):
            counts = class_counts(num_classes, "labels", labels)
            options = label_smoothing, ignore_index
            each = {
                head: MixedTarget.from_labels(y, plan, counts[head], *options)
                for head, y in heads("labels", labels).items()
            }
            return restore_structure(labels, each)
        num_classes = check_num_classes(num_classes)
        label_smoothing = check_label_smoothing(label_smoothing)
        ignore_index = integer("ignore_index", ignore_index)
        if not isinstance(plan, MixPlan):
            raise TypeError(f"plan: expected a MixPlan, got {kind(plan)}")
        in_range = check_labels(labels, num_classes, ignore_index)
        if labels.ndim < 1 or labels.shape[0] != plan.batch_size:
            raise ValueError(
                f"labels: expected shape [{plan.batch_size}, …] as in plan, "
                f"got {list(labels.shape)}"
            )
        check_no_pool(plan.pool, "use MixedTarget(labels, other_labels[plan.partner], …)")
        numbers = num_classes, label_smoothing, ignore_index
        return target_of_checked(labels, plan, numbers, in_range)

    @staticmethod
    def of_labels(
        labels: Tensor,  # [B, k, …]
        weight: Tensor,  # [B, k]
        num_classes: int,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ) -> MixedTarget:
        """The target of rows with k labels: mosaic and RICAP have four, Co-Mixup up to twenty.

        ``t = Σ_j weight_j · ((1-ε) · onehot(label_j) + ε/K)``; weights of equal labels add.

        Equivalent to (:meth:`dense`, nothing ignored)::

            ((F.one_hot(labels, K) * (1 - ε) + ε / K) * weight[:, :, None]).sum(1)

        Args:
            labels: int64 [B, k, …], class indices in [0, num_classes), k >= 1. Those of rows with
                fewer labels may be any, with a weight of 0.
            weight: float32 [B, k], which need not sum to one.
            num_classes: K.
            label_smoothing: ε in [0, 1].
            ignore_index: labels equal to it are legal, and their terms are left out.

        Returns:
            A target whose ``labels`` are the first labels of the rows. Of one or two labels it
            is that of two, with a second weight of 0 for one.

        Raises:
            TypeError, IndexError, ValueError: labels that are no int64 indices in
                [0, num_classes), weights of another shape or dtype.

        Notes:
            The losses read the k labels of a row beside one sweep over its logits: see
            :func:`soft_target_cross_entropy`.

        Source: Takahashi et al., RICAP, 2018, arXiv 1811.09030; Kim et al., Co-Mixup, 2021,
        arXiv 2102.03065.
        """
        tensors = split_labels(labels, weight)
        return MixedTarget(*tensors, num_classes, label_smoothing, ignore_index)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense soft labels [B, K, …] of a floating ``dtype`` that this target stands for."""
        check_target_dtype(dtype)
        return dense_target(
            *self.indices,
            self.weight,
            self.num_classes,
            self.label_smoothing,
            dtype,
            self.ignore_index,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MixedTarget):
            return NotImplemented
        names = "labels", "partner_labels", "weight"
        return self._numbers == other._numbers and all(
            torch.equal(getattr(self, name).cpu(), getattr(other, name).cpu()) for name in names
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        more = f"num_labels={self.num_labels}, " if self.num_labels > 2 else ""
        return (
            f"MixedTarget(shape={list(self.shape)}, {more}num_classes={self.num_classes}, "
            f"label_smoothing={self.label_smoothing}, ignore_index={self.ignore_index}, "
            f"device={str(self.device)!r})"
        )


# Loading calls the constructors of both, which check their arguments.
torch.serialization.add_safe_globals([MixPlan, MixedTarget])


def target_of_checked(
    labels: Tensor,  # [B, …]
    plan: MixPlan,
    numbers: tuple[int, float, int],
    in_range: bool,
    inplace: bool = False,
) -> MixedTarget:
    """The target of labels that have been checked; ``inplace`` pastes the boxes of maps in them.

    The partners' labels are among those that were checked, and the plan has checked its weights.
    """
    partner = plan.partner_or_none
    partner_labels = partner_rows(labels, partner, plan.rule)
    weight = plan.weight
    if plan.cuts_maps(labels):
        labels = labels if inplace else labels.clone()
        weight = map_rows(torch.Tensor.float, plan.blend)
        if plan.mask is None:
            ops.paste_(labels, partner, plan.box, plan.rule)
        else:
            labels.copy_(paste_rows(labels, partner_labels, plan.box, plan.mask.arguments))
            weight = keep_masked(weight, plan.mask.code)
    target = object.__new__(MixedTarget)
    target._set((labels, partner_labels, weight), numbers, in_range)
    return target
