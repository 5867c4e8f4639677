"""What the layers share: where a drawn box lies, and the values of a mixed batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..codes import MAX_CHANNELS
from ..dtypes import BLENDABLE, NORMALIZED
from ..loading.erasing import Erasing
from ..loading.normalizing import mix_normalize
from ..mixing import mix
from ..plan.mix_plan import MixPlan
from ..tracing import sample_dirichlet
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


def draw_beta(count: int, alpha: float | Tensor, dtype: str, seed: Any) -> Tensor:
    """The numbers of ``keras.random.beta((count,), alpha, alpha)``.

    Keras seeds all generators of PyTorch for that, which takes longer than to mix a small batch.
    """
    a = keras.ops.convert_to_tensor(alpha)
    drawn = isinstance(seed, keras.random.SeedGenerator) and a.is_cpu and sample_dirichlet
    if not drawn or count == 0 or not a > 0:  # Keras' own errors come from there
        return keras.random.beta((count,), alpha, alpha, dtype=dtype, seed=seed)
    number = int(seed.next().sum(dtype=torch.int64)) & 0xFFFFFFFF
    generator = torch.Generator().manual_seed(number)
    sample = sample_dirichlet(a.expand(count, 2).contiguous(), generator)
    return sample[:, 0].to(getattr(torch, dtype))


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


def blend_plan(transformation: dict[str, Any]) -> MixPlan:
    """The plan of MixUp, which images, labels and masks share."""
    if "plan" not in transformation:
        weight, partner = transformation["mix_weight"], transformation["permutation_order"]
        transformation["plan"] = MixPlan.per_sample(weight, partner)
    return transformation["plan"]


def soft_labels(labels: Tensor, weight: Tensor) -> Tensor:
    """Labels [B, K, …] in the dtype in which Keras blends them."""
    if labels.ndim < 2 and not labels.is_floating_point():
        raise TypeError(
            f"labels: expected one-hot or soft labels [B, K], got {kind(labels)}; class indices "
            "cannot be blended: use keras.ops.one_hot"
        )
    return labels.to(torch.promote_types(labels.dtype, weight.dtype))


def mix_images(images: Tensor, plan: MixPlan, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Images [B, …] mixed, in ``dtype``; bytes are cast on the way."""
    if images.dtype == torch.uint8 and _fits(images, dtype, channels_last):
        return _normalize(images, dtype, channels_last, plan=plan)
    return paste(images.to(dtype), plan, channels_last)


def paste(
    values: Tensor, plan: MixPlan, channels_last: bool, other: Tensor | None = None
) -> Tensor:
    """A new tensor like values, with what partners, or ``other``, show in the plan's boxes."""
    if channels_last:  # boxes lie in the last two dims
        other = None if other is None else other.movedim(-1, 1)
        return mix(values.movedim(-1, 1), plan, other=other).movedim(1, -1)
    return mix(values, plan, other=other)


def erase(
    images: Tensor,
    box: Tensor,  # [B, 4]
    fill: Tensor,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Images in ``dtype``, with ``fill`` in the boxes; the shapes of both are broadcast."""
    images = images.expand(torch.broadcast_shapes(images.shape, fill.shape))
    one_color = fill.numel() == fill.shape[-1 if channels_last else 1]
    if one_color and images.dtype in BLENDABLE and _fits(images, dtype, channels_last):
        return _normalize(images, dtype, channels_last, erase=Erasing(box, fill.flatten()))
    plan = MixPlan.per_sample(torch.ones(len(images), device=images.device), "self", box)
    return paste(images.to(dtype), plan, channels_last, fill.expand(images.shape))


def _fits(images: Tensor, dtype: torch.dtype, channels_last: bool) -> bool:
    """Whether mix_normalize takes these images and gives this dtype."""
    channels = images.shape[-1 if channels_last else 1]
    return dtype in NORMALIZED and channels <= MAX_CHANNELS and not images.requires_grad


def _normalize(images: Tensor, dtype: torch.dtype, channels_last: bool, **options: Any) -> Tensor:
    """mix_normalize without a change of scale."""
    result = mix_normalize(
        images,
        mean=0.0,
        std=1 / 255 if images.dtype == torch.uint8 else 1.0,
        dtype=dtype,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        layout="NHWC" if channels_last else "NCHW",
        **options,
    )
    return result.movedim(1, -1) if channels_last else result
