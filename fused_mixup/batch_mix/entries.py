"""Which entries of a batch are images, labels and masks, for :class:`fused_mixup.BatchMix`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind, names

Key = Any  # a key of a dict, or a position in a tuple or list

# The keys where the caller names none: the first that a dict has (for masks, all of them).
IMAGES = ("image", "images", "pixel_values", "inputs", "x")
LABELS = ("label", "labels", "target", "targets", "y")
MASKS = ("mask", "masks", "segmentation")


@dataclass(frozen=True)
class Parts:
    """The keys of a batch's parts; None: the usual names in a dict, else images, labels."""

    images: tuple[Key, ...] | None
    labels: tuple[Key, ...] | None
    masks: tuple[Key, ...] | None

    @staticmethod
    def make(images: Any, labels: Any, masks: Any) -> Parts:
        parts = Parts(_keys(images), _keys(labels), _keys(masks))
        if parts.images == ():
            raise ValueError("images: expected at least one key or position, got none")
        return parts

    def find(self, batch: Any) -> tuple[tuple[Key, ...], tuple[Key, ...], tuple[Key, ...]]:
        """The keys of images, labels (perhaps none) and masks, each checked to be in ``batch``."""
        if isinstance(batch, Mapping):
            images = _first_key("images", IMAGES, batch) if self.images is None else self.images
            masks = tuple(key for key in MASKS if key in batch)
            masks = masks if self.masks is None else self.masks
        else:
            images = (0,) if self.images is None else self.images
            masks = () if self.masks is None else self.masks
        _check_keys("images", images, batch)
        _check_keys("masks", masks, batch)
        labels = _label_keys(batch, images + masks) if self.labels is None else self.labels
        _check_keys("labels", labels, batch)
        return images, labels, masks


def _label_keys(batch: Any, others: tuple[Key, ...]) -> tuple[Key, ...]:
    if isinstance(batch, Mapping):
        left = [key for key in batch if key not in others]
        found = [key for key in LABELS if key in left]
    else:
        taken = {key % len(batch) for key in others}
        left = [key for key in range(len(batch)) if key not in taken]
        found = [key for key in left if key == 1]
    # Unmixed labels with mixed images would be silently wrong.
    if not found and any(_may_be_labels(batch[key]) for key in left):
        if isinstance(batch, Mapping):
            expected = f"one of the keys {list(LABELS)}, got {names(batch)}"
        else:
            expected = f"them at position 1, which is taken, got {len(batch)} entries"
        raise ValueError(
            f"labels: expected {expected}; name them with BatchMix(…, labels=…), or labels=() if "
            "there are none"
        )
    return tuple(found[:1])


def _may_be_labels(entry: Any) -> bool:
    if isinstance(entry, (list, tuple)):
        return any(map(_may_be_labels, entry))
    return isinstance(entry, (Tensor, Mapping)) or hasattr(entry, "__array__")


def _keys(given: Any) -> tuple[Key, ...] | None:
    if given is None or isinstance(given, tuple):
        return given
    return tuple(given) if isinstance(given, list) else (given,)


def _first_key(name: str, usual: tuple[str, ...], batch: Mapping[Any, Any]) -> tuple[Key, ...]:
    for key in usual:
        if key in batch:
            return (key,)
    raise ValueError(
        f"{name}: expected one of the keys {list(usual)}, got {names(batch)}; name it with "
        f"BatchMix(…, {name}=…)"
    )


def _check_keys(name: str, keys: tuple[Key, ...], batch: Any) -> None:
    for key in keys:
        if isinstance(batch, Mapping):
            there = key in batch
        else:
            there = isinstance(key, int) and -len(batch) <= key < len(batch)
        if not there:
            got = names(batch) if isinstance(batch, Mapping) else f"{len(batch)} entries"
            raise ValueError(f"{name}: expected {kind(key)} in the batch, got {got}")


def writable_copy(batch: Any) -> Any:
    """A writable copy of ``batch``: a mapping (a dict for a read-only one), or a list."""
    if not isinstance(batch, Mapping):
        return list(batch)
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return dict(batch)
    return copy.copy(batch)


def fill(batch: Any, out: Any, entries: dict[Key, Any]) -> Any:
    """``out``, a writable copy of ``batch``, with ``entries`` set, as the type of ``batch``."""
    for key, value in entries.items():
        out[key] = value
    if isinstance(batch, (Mapping, list)):
        return out
    return type(batch)(*out) if hasattr(batch, "_fields") else tuple(out)


def same_memory(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    alike = a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
    if not alike or torch.compiler.is_compiling():  # traced tensors have no address
        return False
    return a.data_ptr() == b.data_ptr() != 0
