"""What the layers share: where a drawn box lies, and the values of a mixed batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..codes import MAX_CHANNELS
from ..dtypes import NORMALIZED
from ..loading.erasing import Erasing
from ..loading.normalizing import mix_normalize
from ..mixing import mix
from ..plan.mix_plan import MixPlan
from .installed import keras

HALVES = "float16", "bfloat16"


def check_compat(compat: Any) -> bool:
    if not isinstance(compat, bool):
        raise ValueError(f"compat: expected True or False, got {kind(compat)}")
    return compat


def images_of(layer: Any, data: Any, short: type[Exception] = ValueError) -> Any:
    """The images of a call, [B, H, W, C] or [H, W, C]; raises before anything is drawn.

    ``short`` is what Keras raises for fewer than three dims.
    """
    if layer.backend.name != "torch":
        raise TypeError(
            f"{layer.name}: expected tensors of PyTorch, got a pipeline of {layer.backend.name}; "
            f"use keras.layers.{type(layer).__name__} there, or a keras.utils.PyDataset"
        )
    images = data["images"] if isinstance(data, dict) else data
    ndim = len(images.shape)
    if ndim not in (3, 4):
        raise (short if ndim < 3 else ValueError)(
            f"images: expected a batch of 4 dims, or one image of 3, got shape {list(images.shape)}"
        )
    return images


def draw_extent(count: int, size: int, share: Tensor, seed: Any) -> Tensor:
    """[B, 2]: where extents of ``share`` [B] of ``size`` start and stop, real numbers, as drawn."""
    length = share * size
    dtype = keras.backend.standardize_dtype(share.dtype)
    start = keras.random.uniform((count,), dtype=dtype, seed=seed) * (size - length)
    return torch.stack((start, start + length), 1)


def pixel_box(rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """int64 [B, 4]: the pixels q of start ≤ q < stop, of real extents [B, 2]."""
    bounds = []
    for extent, size in ((rows, height), (columns, width)):
        # Keras numbers the pixels in the dtype of the extents, which may round.
        pixels = torch.arange(size, device=extent.device).to(extent.dtype)
        bounds.append(torch.searchsorted(pixels.double(), extent.double().contiguous()))
    return torch.stack(bounds, 2).flatten(1)


def soft_labels(labels: Tensor, weight: Tensor) -> Tensor:
    """Labels [B, K, …] in the dtype in which Keras blends them."""
    if labels.ndim < 2 and not labels.is_floating_point():
        raise TypeError(
            f"labels: expected one-hot or soft labels [B, K], got {kind(labels)}; class indices "
            "cannot be blended: use keras.ops.one_hot"
        )
    return labels.to(torch.promote_types(labels.dtype, weight.dtype))


def paste(
    values: Tensor, plan: MixPlan, channels_last: bool, other: Tensor | None = None
) -> Tensor:
    """A new tensor like values, with what partners, or ``other``, show in the plan's boxes."""
    if values.ndim == 4 and channels_last:  # boxes lie in the last two dims
        other = None if other is None else other.movedim(-1, 1)
        return mix(values.movedim(-1, 1), plan, other=other).movedim(1, -1)
    return mix(values, plan, other=other)


def erase(images: Tensor, box: Tensor, fill: Tensor, channels_last: bool) -> Tensor:
    """A new tensor with ``fill`` in the boxes [B, 4] of images; their shapes are broadcast."""
    images = images.expand(torch.broadcast_shapes(images.shape, fill.shape))
    channels = fill.shape[-1 if channels_last else 1]
    one_color = fill.numel() == channels <= MAX_CHANNELS
    if not one_color or images.dtype not in NORMALIZED or images.requires_grad:
        plan = MixPlan.per_sample(torch.ones(len(images), device=images.device), "self", box)
        return paste(images, plan, channels_last, fill.expand(images.shape))
    layout, memory_format = "NCHW", torch.contiguous_format
    if channels_last:
        layout, memory_format = "NHWC", torch.channels_last
    erased = mix_normalize(
        images,
        mean=0.0,
        std=1.0,
        dtype=images.dtype,
        memory_format=memory_format,
        erase=Erasing(box, fill.flatten()),
        layout=layout,
    )
    return erased.movedim(1, -1) if channels_last else erased
