"""Extensions of Hugging Face accelerate's walks through batches for a :class:`MixedTarget`.

With ``dispatch_batches`` (accelerate's default for iterable data sets) the main process joins the
batches of all processes, sends them, and each process takes its slice; accelerate itself does so
for tensors, tuples, lists and mappings only. The extensions walk a target as its three tensors, and
weights stay float32.

:func:`extend_accelerate` installs them once, if a program has loaded accelerate. The package calls
it when a target is made, comes from a worker, or is announced to its receiver, a TargetParts.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..codes import IGNORE_INDEX
from ..frozen import Frozen
from .label_rows import LabelRows

_TENSORS = ("labels", "partner_labels", "weight")
_WALKS = {"recursively_apply": "func data", "concatenate": "data", "find_batch_size": "data"}
_extended: ModuleType | None = None


class _Settings(NamedTuple):
    target_class: type[LabelRows]  # MixedTarget, whose module imports this one
    num_classes: int
    label_smoothing: float
    ignore_index: int


class TargetParts:
    """A target whose parts are not tensors yet, but accelerate's descriptions of their shapes."""

    def __init__(self, parts: list[Any], settings: _Settings) -> None:
        self.parts, self.settings = parts, settings

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        extend_accelerate(self.settings.target_class)


def extend_accelerate(target_class: type[LabelRows]) -> None:
    """Make accelerate, if it is loaded, join, send and slice a MixedTarget as its tensors."""
    global _extended
    if torch.compiler.is_compiling():
        return
    operations = sys.modules.get("accelerate.utils.operations")
    # A module is in sys.modules while it is still being imported, too.
    if operations is None or operations is _extended or not hasattr(operations, "concatenate"):
        return
    _extended = operations
    before = {name: getattr(operations, name, None) for name in _WALKS}
    try:
        for name, arguments in _WALKS.items():
            walk: Any = before[name]
            if [*inspect.signature(walk).parameters][: len(arguments.split())] != arguments.split():
                raise TypeError(f"{name} has other arguments")
            setattr(operations, name, _EXTENSIONS[name](walk))
        _try_walks(operations, target_class)
    except Exception as error:
        for name, walk in before.items():
            if walk is not None:
                setattr(operations, name, walk)
        version = getattr(sys.modules.get("accelerate"), "__version__", "of unknown version")
        warnings.warn(
            f"accelerate {version} walks through batches in a way that fused_mixup does not know "
            f"({type(error).__name__}: {error}), so a MixedTarget does not pass dispatch_batches; "
            "set dispatch_batches=False, or sparse_targets=False for dense targets",
            stacklevel=3,
        )


def _try_walks(operations: ModuleType, target_class: type[LabelRows]) -> None:
    """Run the steps of a dispatched batch on a small one; raise where one does not work."""
    labels = torch.arange(2, device="cpu")
    weight = torch.ones(2, 2, dtype=torch.float32, device="cpu")
    one = _make_target([labels, 1 - labels, weight], _Settings(target_class, 2, 0.0, IGNORE_INDEX))
    (two,) = operations.concatenate([(one,), (one,)])
    empty = operations.initialize_tensors(operations.get_data_structure([two]))
    (half,) = operations.slice_tensors(empty, slice(0, 2))
    if not isinstance(half, target_class) or operations.find_batch_size([two]) != 4:
        raise TypeError(f"a slice of a MixedTarget became {type(half).__name__}")


# ------------------------------------------------------------------ the walks, extended


def _extend_apply(walk: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(walk)
    def recursively_apply(func: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(data, LabelRows):
            # Contiguous: an expanded row could not be sent.
            parts, settings = [t.contiguous() for t in _tensors(data)], _settings(data)
        elif isinstance(data, TargetParts):
            parts, settings = data.parts, data.settings
        else:
            return walk(func, data, *args, **kwargs)
        results = [walk(func, part, *args, **kwargs) for part in parts]
        if not all(isinstance(result, Tensor) for result in results):
            return TargetParts(results, settings)
        if isinstance(data, TargetParts):  # uninitialised memory may hold any value
            results = [result.zero_() for result in results]
        return _make_target(results, settings)

    return recursively_apply


def _extend_concatenate(walk: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(walk)
    def concatenate(data: Any, dim: int = 0) -> Any:
        first = data[0]
        if isinstance(first, Frozen) and not isinstance(first, LabelRows):
            raise TypeError(
                "batch: expected tensors and a MixedTarget where batches of several processes are "
                "joined, got a MixPlan, whose partners lie in its own batch; set "
                "dispatch_batches=False, or mix before the batch is dispatched"
            )
        if not isinstance(first, LabelRows):
            return walk(data, dim)
        settings = {_settings(target) for target in data}
        if len(settings) > 1:
            raise ValueError(
                "batch: expected targets of one num_classes, label_smoothing and ignore_index to "
                f"be joined, got {len(settings)} different ones"
            )
        columns = zip(*map(_tensors, data), strict=True)
        return _make_target([torch.cat(column, dim) for column in columns], *settings)

    return concatenate


def _extend_batch_size(walk: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(walk)
    def find_batch_size(data: Any) -> int:
        return walk(data.labels if isinstance(data, LabelRows) else data)

    return find_batch_size


_EXTENSIONS: dict[str, Callable[[Any], Any]] = {
    "recursively_apply": _extend_apply,
    "concatenate": _extend_concatenate,
    "find_batch_size": _extend_batch_size,
}


def _tensors(target: LabelRows) -> list[Tensor]:
    return [getattr(target, name) for name in _TENSORS]


def _settings(target: LabelRows) -> _Settings:
    numbers = (getattr(target, name) for name in _Settings._fields[1:])
    return _Settings(type(target), *numbers)


def _make_target(tensors: list[Tensor], settings: _Settings) -> LabelRows:
    make: Any = settings.target_class
    return make(*tensors, *settings[1:])
