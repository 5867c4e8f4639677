"""Checks of the entries of a batch, for :class:`fused_mixup.BatchMix`.

All run before a step is taken or anything is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..checks import check_memory, check_writable, shares_elements
from ..dtypes import BLENDABLE
from .entries import Entry, dotted
from .structure import same_memory


def check_batch_size(heads: Sequence[Tensor], entries: Sequence[Entry], state: Tensor) -> int:
    """The batch size that labels, images and masks share, on the device of ``state``."""
    batch_size = heads[0].shape[0] if heads else None
    first = [("labels", y) for y in heads]
    for name, value in (*first, *((entry.name, entry.value) for entry in entries)):
        if not isinstance(value, Tensor):
            value = _alike(name, value)
        check_memory(name, value)
        if batch_size is None and value.ndim:
            batch_size = value.shape[0]
        if value.ndim < 1 or value.shape[0] != batch_size:
            size = "…" if batch_size is None else batch_size
            raise ValueError(
                f"{name}: expected a batch of {size}, as the other entries, got {list(value.shape)}"
            )
        check_device(name, value, state)
    assert batch_size is not None
    return batch_size


def _alike(name: str, samples: Sequence[Any]) -> Tensor:
    """The first of one tensor for each sample, expanded to B; raises unless all are alike."""
    first = samples[0]
    for i, sample in enumerate(samples):
        if not isinstance(sample, Tensor):
            raise TypeError(f"{name}[{i}]: expected a tensor, got {type(sample).__name__}")
        if sample.shape != first.shape or sample.dtype != first.dtype:
            raise ValueError(
                f"{name}[{i}]: expected {list(first.shape)} {first.dtype} as the first sample's, "
                f"got {list(sample.shape)} {sample.dtype}; resize samples to one size first"
            )
    return first.expand(len(samples), *first.shape)


def check_device(name: str, x: Tensor, state: Tensor) -> None:
    if x.device != state.device:
        raise ValueError(
            f"{name}: expected it on {state.device} like this BatchMix, got {x.device}; move one "
            "of them with .to()"
        )


def check_values(entries: Sequence[Entry]) -> None:
    """Raise unless images are floats or uint8, and masks class maps or floats."""
    for entry in entries:
        first = entry.value
        if isinstance(first, (list, tuple)) and first:
            first = first[0]
        if not isinstance(first, Tensor):
            raise TypeError(f"{entry.name}: expected a tensor [B, …], got {type(first).__name__}")
        is_map = not (first.is_floating_point() or first.is_complex())
        if entry.kind == "class_map" and (is_map or first.dtype in BLENDABLE):
            continue
        if entry.kind == "class_map":
            raise TypeError(f"{entry.name}: expected class maps or floats, got {first.dtype}")
        if first.dtype not in BLENDABLE:
            raise TypeError(
                f"{entry.name}: expected float16, bfloat16, float32, float64 or uint8, as MixUp "
                f"blends {entry.kind}, got {first.dtype}; name class maps as masks"
            )


def check_tokens(entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.kind == "tokens":
            raise TypeError(
                f"{entry.name}: expected no token ids, which cannot be blended; mix their "
                "embeddings with mix(embed(ids), plan) by a plan of BatchMix.draw, or say "
                f"BatchMix(…, kinds={{{entry.path[-1]!r}: 'keep'}}) to leave them unmixed"
            )


def check_follows(
    follows: Mapping[Any, Any], labels: Sequence[Entry], values: Sequence[Entry]
) -> dict[Any, str]:
    """The entry that labels follow, by the path of the labels; ValueError for an unknown name."""
    names = [dotted(entry.path) for entry in values]
    found: dict[Any, str] = {}
    for label, name in follows.items():
        paths = [e.path for e in labels if label in (e.path[-1], dotted(e.path))]
        if not paths:
            known = [dotted(entry.path) for entry in labels]
            raise ValueError(f"follows: expected one of the labels {known}, got {kind(label)}")
        if name not in names:
            raise ValueError(
                f"follows: expected one of the mixed entries {names} for {kind(label)}, got "
                f"{kind(name)}"
            )
        found |= dict.fromkeys(paths, name)
    return found


def check_label_maps(heads: Sequence[Tensor], cut: tuple[int, ...]) -> None:
    """Raise where labels, which one weight a sample blends, have the sizes that boxes ``cut``."""
    for y in heads:
        if len(cut) > 1 and y.ndim > len(cut) and tuple(y.shape[y.ndim - len(cut) :]) == cut:
            raise TypeError(
                f"labels: expected one label a sample, got maps {list(y.shape)} of the images' "
                "sizes, which boxes cut; name them with masks="
            )


def check_masks(
    first: Entry, sizes: tuple[int, ...], boxes: Sequence[Entry], images: object
) -> None:
    """Raise for entries that no mask can mix, or that would not follow one."""
    if len(sizes) != 2:
        raise ValueError(
            f"{first.name}: expected two spatial dims for the masks of mix=, got {len(sizes)}; "
            "view a signal as x.unsqueeze(-2), or set spatial_dims=2"
        )
    if boxes:
        raise ValueError(
            f"{boxes[0].name}: expected no boxes, instance masks or keypoints beside masks of "
            "mix=, as what is seen of them has no box; leave mix= with mixup, cutmix and hmix, or "
            f"say BatchMix(…, kinds={{{boxes[0].path[-1]!r}: 'keep'}})"
        )
    if images is not None:
        raise ValueError(
            "mix: expected variants without masks (mixup, cutmix, hmix) in a pass that normalises "
            "images; mix by masks in the training step"
        )


def check_no_gradients(entries: Sequence[Entry]) -> None:
    for entry in entries:
        samples = entry.value if isinstance(entry.value, (list, tuple)) else [entry.value]
        if torch.is_grad_enabled() and any(x.requires_grad for x in samples):
            raise ValueError(
                f"{entry.name}: expected a tensor that does not require grad, as no gradient goes "
                "through the resized partners of 'resizemix'; use .detach(), or leave it out of "
                "mix="
            )


def check_in_place(entries: Sequence[Entry], warned: bool) -> bool:
    """Raise for tensors that may not be written; warn, once, of one that is part of a larger."""
    for i, entry in enumerate(entries):
        name, x = entry.name, entry.value
        for other in entries[:i]:
            if shares_elements(x, other.value) and not same_memory(x, other.value):
                raise ValueError(
                    f"{name}: expected memory of its own, as it is mixed in place, got a part of "
                    f"that of {other.name}; use .clone(), or inplace=False"
                )
        check_writable(name, x, "use inplace=False, which is differentiable")
        if warned or torch.compiler.is_compiling() or x.is_meta:
            continue
        if x.numel() * x.element_size() < x.untyped_storage().nbytes():
            warned = True
            warnings.warn(
                f"{name}: this batch is a view of a larger tensor, and is mixed there, in place; "
                "if that is a data set, its next epoch mixes mixtures. Give BatchMix(…, "
                "inplace=False), or the batch as .clone()",
                stacklevel=8,
            )
    return warned
