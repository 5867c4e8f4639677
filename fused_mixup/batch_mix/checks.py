"""Checks of the entries of a batch, for :class:`fused_mixup.BatchMix`.

All run before a step is taken or anything is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import check_memory, check_writable
from ..dtypes import BLENDABLE


def check_batch_size(
    heads: Sequence[Tensor], named: Sequence[tuple[str, Any]], state: Tensor
) -> int:
    """The batch size that labels, images and masks share, on the device of ``state``."""
    batch_size = heads[0].shape[0] if heads else None
    for name, x in (*(("labels", y) for y in heads), *named):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a tensor [B, …], got {type(x).__name__}")
        check_memory(name, x)
        if batch_size is None and x.ndim:
            batch_size = x.shape[0]
        if x.ndim < 1 or x.shape[0] != batch_size:
            size = "…" if batch_size is None else batch_size
            raise ValueError(
                f"{name}: expected a batch of {size}, as the other entries, got {list(x.shape)}"
            )
        check_device(name, x, state)
    assert batch_size is not None
    return batch_size


def check_device(name: str, x: Tensor, state: Tensor) -> None:
    if x.device != state.device:
        raise ValueError(
            f"{name}: expected it on {state.device} like this BatchMix, got {x.device}; move one "
            "of them with .to()"
        )


def check_images(
    named: Sequence[tuple[str, Tensor]], spatial_dims: int | None, cuts: bool
) -> tuple[int, ...]:
    """The spatial sizes that all images share; those of the first where no box is cut."""
    sizes: tuple[int, ...] = ()
    for i, (name, x) in enumerate(named):
        if x.dtype not in BLENDABLE:
            raise TypeError(
                f"{name}: expected float16, bfloat16, float32, float64 or uint8, got {x.dtype}; "
                "name class maps as masks"
            )
        first = 2 if spatial_dims is None else x.ndim - spatial_dims
        if (cuts or i == 0) and first < 1:
            raise ValueError(
                f"{name}: expected {spatial_dims} spatial dims after [B], as spatial_dims says, "
                f"got {list(x.shape)}; give BatchMix a smaller spatial_dims, or cutmix_alpha=0"
            )
        if i == 0:
            sizes = tuple(x.shape[first:])
        elif cuts and tuple(x.shape[first:]) != sizes:
            raise ValueError(
                f"{name}: expected sizes {list(sizes)} as {named[0][0]}, as they share their "
                f"boxes, got {list(x.shape[first:])}; set cutmix_alpha=0 for MixUp alone"
            )
    return sizes


def check_masks(named: Sequence[tuple[str, Any]]) -> None:
    for name, x in named:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a tensor [B, …], got {type(x).__name__}")
        if x.is_complex() or (x.is_floating_point() and x.dtype not in BLENDABLE):
            raise TypeError(f"{name}: expected class maps or floats, got {x.dtype}")


def check_cut(
    heads: Sequence[Tensor], masks: Sequence[tuple[str, Tensor]], cut: tuple[int, ...]
) -> None:
    """Raise unless masks have the sizes that boxes ``cut`` (() for none), and labels have not."""
    for name, x in masks:
        if tuple(x.shape[x.ndim - len(cut) :]) != cut:
            raise ValueError(
                f"{name}: expected its last sizes to be {list(cut)} as those of the images, "
                f"got {list(x.shape)}"
            )
    for y in heads:  # blended by one weight a sample
        if len(cut) > 1 and y.ndim > len(cut) and tuple(y.shape[y.ndim - len(cut) :]) == cut:
            raise TypeError(
                f"labels: expected one label a sample, got maps {list(y.shape)} of the images' "
                "sizes, which boxes cut; name them with masks="
            )


def check_in_place(named: Sequence[tuple[str, Tensor]], warned: bool) -> bool:
    """Raise for tensors that may not be written; warn, once, of one that is part of a larger."""
    for name, x in named:
        check_writable(name, x, "use inplace=False, which is differentiable")
        if warned or torch.compiler.is_compiling() or x.is_meta:
            continue
        if x.numel() * x.element_size() < x.untyped_storage().nbytes():
            warned = True
            warnings.warn(
                f"{name}: this batch is a view of a larger tensor, and is mixed there, in place; "
                "if that is a data set, its next epoch mixes mixtures. Give BatchMix(…, "
                "inplace=False), or the batch as .clone()",
                stacklevel=6,
            )
    return warned
