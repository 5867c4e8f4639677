"""Which entries of a batch are images, labels and masks, for :class:`fused_mixup.BatchMix`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checks import BLENDABLE, check_writable

Key = Any  # a key of a dict, or a position in a tuple or list

# Taken where the caller names none: of a dict the first (of masks, all) that is there.
IMAGES = ("image", "images", "pixel_values", "inputs", "x")
LABELS = ("label", "labels", "target", "targets", "y")
MASKS = ("mask", "masks", "segmentation")


@dataclass(frozen=True)
class Parts:
    """Where in a batch what is; None: by the usual names in a dict, else images, labels."""

    images: tuple[Key, ...] | None
    labels: tuple[Key, ...] | None
    masks: tuple[Key, ...] | None

    @staticmethod
    def of(images: Any, labels: Any, masks: Any) -> Parts:
        parts = Parts(_keys(images), _keys(labels), _keys(masks))
        if parts.labels is not None and len(parts.labels) != 1:
            raise ValueError(f"labels: expected one key or position, got {labels!r}")
        if parts.images == ():
            raise ValueError("images: expected at least one key or position, got none")
        return parts

    def find(self, batch: Any) -> tuple[tuple[Key, ...], Key, tuple[Key, ...]]:
        """The keys of images, labels and masks in ``batch``, all of them there."""
        if isinstance(batch, Mapping):
            images = _first("images", IMAGES, batch) if self.images is None else self.images
            labels = _first("labels", LABELS, batch) if self.labels is None else self.labels
            there = tuple(key for key in MASKS if key in batch)
        else:
            images = (0,) if self.images is None else self.images
            labels = (1,) if self.labels is None else self.labels
            there = ()
        masks = there if self.masks is None else self.masks
        for name, keys in (("images", images), ("labels", labels), ("masks", masks)):
            for key in keys:
                _check_there(name, key, batch)
        return images, labels[0], masks


def _keys(given: Any) -> tuple[Key, ...] | None:
    if given is None or isinstance(given, tuple):
        return given
    return tuple(given) if isinstance(given, list) else (given,)


def _first(name: str, usual: tuple[str, ...], batch: Mapping) -> tuple[Key, ...]:
    for key in usual:
        if key in batch:
            return (key,)
    raise ValueError(
        f"{name}: expected one of the keys {list(usual)}, got {list(batch)}; name it with "
        f"BatchMix(…, {name}=…)"
    )


def _check_there(name: str, key: Key, batch: Any) -> None:
    if isinstance(batch, Mapping):
        there = key in batch
    else:
        there = isinstance(key, int) and -len(batch) <= key < len(batch)
    if not there:
        got = list(batch) if isinstance(batch, Mapping) else f"{len(batch)} entries"
        raise ValueError(f"{name}: expected {key!r} in the batch, got {got}")


def writable_copy(batch: Any) -> Any:
    """A mapping (a dict of one that is read-only), or a list, of what is in ``batch``."""
    if not isinstance(batch, Mapping):
        return list(batch)
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return dict(batch)
    return copy.copy(batch)


def filled(batch: Any, out: Any, entries: dict[Key, Any]) -> Any:
    """``out``, a writable copy of ``batch``, with other entries and of the kind of ``batch``."""
    for key, value in entries.items():
        out[key] = value
    if isinstance(batch, (Mapping, list)):
        return out
    return type(batch)(*out) if hasattr(batch, "_fields") else tuple(out)


def same_memory(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    alike = a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
    if not alike or torch.compiler.is_compiling():  # what is traced has no address
        return False
    return a.data_ptr() == b.data_ptr() != 0


# ------------------------------------------------------------------ checks, before a step is taken


def check_images(
    named: Sequence[tuple[str, Any]], state: Tensor, batch_size: int, spatial_dims: int | None
) -> tuple[int, ...]:
    """The spatial sizes that all images share."""
    sizes: tuple[int, ...] = ()
    for i, (name, x) in enumerate(named):
        _check_batch(name, x, state, batch_size)
        if x.dtype not in BLENDABLE:
            raise TypeError(
                f"{name}: expected float16, bfloat16, float32, float64 or uint8, got {x.dtype}; "
                "name class maps as masks"
            )
        first = 2 if spatial_dims is None else x.ndim - spatial_dims
        if first < 1:
            raise ValueError(
                f"{name}: expected {spatial_dims} spatial dims behind [B], as spatial_dims says, "
                f"got {list(x.shape)}; give BatchMix a smaller spatial_dims"
            )
        if i and tuple(x.shape[first:]) != sizes:
            raise ValueError(
                f"{name}: expected sizes {list(sizes)} as {named[0][0]}, as they share their "
                f"boxes, got {list(x.shape[first:])}"
            )
        sizes = tuple(x.shape[first:])
    return sizes


def check_masks(
    named: Sequence[tuple[str, Any]],
    state: Tensor,
    batch_size: int,
    spatial: tuple[int, ...],
    blends: bool,
) -> None:
    for name, x in named:
        if blends:
            raise ValueError(
                f"{name}: expected a BatchMix that only pastes boxes beside masks, got one that "
                "may blend, which class maps cannot be; set mixup_alpha=0, or masks=() to leave "
                "them as they are"
            )
        _check_batch(name, x, state, batch_size)
        if tuple(x.shape[x.ndim - len(spatial) :]) != spatial:
            raise ValueError(
                f"{name}: expected its last sizes to be {list(spatial)} as those of the images, "
                f"got {list(x.shape)}"
            )
        check_writable(name, x, "detach it first")


def _check_batch(name: str, x: Any, state: Tensor, batch_size: int) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor [B, …], got {type(x).__name__}")
    if x.ndim < 1 or x.shape[0] != batch_size:
        raise ValueError(
            f"{name}: expected a batch of {batch_size}, as there are labels, got {list(x.shape)}"
        )
    check_device(name, x, state)


def check_device(name: str, x: Tensor, state: Tensor) -> None:
    if x.device != state.device:
        raise ValueError(
            f"{name}: expected it on {state.device} like this BatchMix, got {x.device}; move one "
            "of them with .to()"
        )
