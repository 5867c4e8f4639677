"""Labels and class maps of a batch, checked and made targets, for :class:`fused_mixup.BatchMix`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import integer, names
from ..codes import IGNORE_INDEX, NO_IGNORE
from ..dtypes import FLOATING
from ..plan.mix_plan import MixPlan
from ..target.checks import (
    MAP_DTYPES,
    check_label_smoothing,
    check_labels,
    check_num_classes,
)
from ..target.heads import STRUCTURES, class_counts, heads, restore_structure
from ..target.label_rows import one_label_weight
from ..target.labels import mix_labels, mix_targets
from ..target.mixed_target import MixedTarget, target_of_checked

# Pastes what a plan does not say: called with the mixed values and the original ones.
Paste = Callable[[Tensor, Tensor], Tensor]


class Targets:
    """Make class indices a MixedTarget or dense targets, and float labels a blend of floats.

    ``num_classes``: an int, None, or a dict, list or tuple of those, for several heads.
    """

    def __init__(
        self, num_classes: Any, label_smoothing: float, ignore_index: int | None, dense: bool
    ) -> None:
        self.num_classes = _counts(num_classes)
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.ignore_index = None if ignore_index is None else integer("ignore_index", ignore_index)
        self.dense = dense

    def counts_of(self, keys: Sequence[Any]) -> dict[Any, Any]:
        """num_classes of each entry of a batch that is labels or a class map."""
        counts = self.num_classes
        if isinstance(counts, list) and len(keys) > 1:
            if len(counts) != len(keys):
                raise ValueError(
                    f"num_classes: expected {len(keys)} numbers for the labels {list(keys)}, got "
                    f"{len(counts)}"
                )
            return dict(zip(keys, counts, strict=True))
        by_key = isinstance(counts, Mapping)
        return {key: counts[key] if by_key and key in counts else counts for key in keys}

    # ---------------------------------------------------------------- labels

    def check(self, name: str, labels: Any, count: Any) -> None:
        """Raise unless each head is class indices or floats."""

        def check(name: str, y: Any, count: Any) -> None:
            _check_kind(name, y)
            if not y.is_floating_point():
                self._check_classes(name, y, count)

        _by_head(name, labels, count, check)

    def mix(self, labels: Any, plan: MixPlan, count: Any) -> Any:
        def mix_one(_: str, y: Tensor, count: Any) -> Tensor | MixedTarget:
            if y.is_floating_point():
                return mix_labels(y, plan)
            if self.dense and self.ignore_index is None and y.ndim == 1:
                return mix_targets(y, plan, count, self.label_smoothing)
            options = count, self.label_smoothing, self.ignored
            return self._as_configured(MixedTarget.from_labels(y, plan, *options))

        return _by_head("labels", labels, count, mix_one)

    def keep(self, labels: Any, count: Any) -> Any:
        """The target of labels that are not mixed, without smoothing."""

        def keep_one(_: str, y: Tensor, count: Any) -> Tensor | MixedTarget:
            if y.is_floating_point():
                return y
            weight = one_label_weight(len(y))
            return self._as_configured(MixedTarget(y, y, weight, count, 0.0, self.ignored))

        return _by_head("labels", labels, count, keep_one)

    @property
    def ignored(self) -> int:
        return IGNORE_INDEX if self.ignore_index is None else self.ignore_index

    def _as_configured(self, target: MixedTarget) -> Tensor | MixedTarget:
        return target.dense() if self.dense else target

    def _check_classes(self, name: str, y: Tensor, count: Any) -> bool:
        if not isinstance(count, int):
            got = "None" if count is None else f"one for {names(heads('num_classes', count))}"
            raise ValueError(
                f"num_classes: expected a number for the class indices in {name}, got {got}; give "
                "BatchMix(num_classes=K)"
            )
        try:
            return check_labels(
                y, count, NO_IGNORE if self.ignore_index is None else self.ignore_index
            )
        except IndexError as error:
            said = str(error).removeprefix("labels")
            raise IndexError(f"{name}{said}, or give BatchMix(…, ignore_index=…)") from None

    # ---------------------------------------------------------------- class maps

    def check_map(self, name: str, maps: Any, count: Any) -> bool:
        """Raise unless class maps, a tensor or one for each sample, are indices or ignored.

        Returns True where all are known to be in [0, num_classes).
        """
        if isinstance(maps, Tensor):
            return self._check_classes(name, as_integers(maps), count)
        return min(
            (self._check_classes(name, as_integers(y[None]), count) for y in maps), default=True
        )

    def mix_map(
        self,
        maps: Tensor,
        plan: MixPlan,
        count: Any,
        in_range: bool,
        inplace: bool,
        paste: Paste | None = None,
    ) -> Tensor | MixedTarget:
        """The target of checked class maps, whose boxes are pasted in them if ``inplace``."""
        numbers = count, self.label_smoothing, self.ignored
        maps = as_integers(maps)
        if paste is not None:
            target = target_of_checked(maps, plan, numbers, in_range)
            labels = paste(target.labels, maps)
            rows = labels, target.partner_labels, target.weight
            return self._as_configured(MixedTarget(*rows, *numbers))
        return self._as_configured(target_of_checked(maps, plan, numbers, in_range, inplace))


def _counts(n: Any) -> Any:
    """The numbers of classes as ints, in the same dicts and lists."""
    if isinstance(n, Mapping):
        return {key: _counts(each) for key, each in n.items()}
    if isinstance(n, (list, tuple)):
        return [_counts(each) for each in n]
    return None if n is None else check_num_classes(n)


def is_class_map(mask: Any) -> bool:
    """Whether a mask, or the first of one for each sample, has integers or bools."""
    if isinstance(mask, (list, tuple)) and mask:
        mask = mask[0]
    return isinstance(mask, Tensor) and not (mask.is_floating_point() or mask.is_complex())


def as_integers(maps: Tensor) -> Tensor:
    """Maps of bools as uint8 in the same memory; unsigned ones wider than that as int64."""
    if maps.dtype == torch.bool:
        return maps.view(torch.uint8)
    return maps if maps.dtype in MAP_DTYPES else maps.long()


def as_labels(labels: Any, by_sample: bool) -> Any:
    """Labels of samples that are not collated as a tensor; other labels as they are.

    A list of ints has one for each sample. One of tensors has, where the images are such a list
    (``by_sample``); else it has the labels of several heads.
    """
    if not isinstance(labels, (list, tuple)) or not labels or hasattr(labels, "_fields"):
        return labels
    if all(type(y) is int for y in labels):
        return torch.tensor(labels, dtype=torch.int64)
    if by_sample and all(isinstance(y, Tensor) and y.shape == labels[0].shape for y in labels):
        return torch.stack(tuple(labels))
    return labels


def _by_head(name: str, labels: Any, count: Any, apply: Callable[[str, Any, Any], Any]) -> Any:
    """Call ``apply`` on the labels of each head, with its num_classes; keep their structure."""
    if not isinstance(labels, STRUCTURES):
        return apply(name, labels, count)
    counts = class_counts(count, name, labels)
    made = {
        head: _by_head(f"{name}[{head!r}]", y, counts[head], apply)
        for head, y in heads(name, labels).items()
    }
    return restore_structure(labels, made)


def _check_kind(name: str, y: Any) -> None:
    expected = f"{name}: expected int64 class indices [B] or floats [B, …]"
    if not isinstance(y, Tensor):
        raise TypeError(f"{expected}, got {type(y).__name__}; make a tensor of them")
    if y.ndim < 1:
        raise TypeError(f"{expected}, got a scalar")
    if y.dtype in FLOATING or (y.ndim == 1 and y.dtype == torch.int64):
        return
    if y.is_complex():
        remedy = "use torch.view_as_real"
    elif y.is_floating_point():
        remedy = "use .float()"
    elif y.ndim == 1:
        remedy = "use .long()" if y.dtype != torch.bool else "use .long(), or .float() to blend"
    elif y.ndim == 2 and y.shape[1] == 1:
        remedy = "use .squeeze(1)" + ("" if y.dtype == torch.int64 else ".long()")
    elif y.ndim == 2:
        remedy = "of one-hot labels take .argmax(1), of multi-hot ones .float()"
    else:
        remedy = "name class maps with masks="
    raise TypeError(f"{expected}, got {y.dtype} {list(y.shape)}; {remedy}")
