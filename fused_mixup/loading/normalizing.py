"""From a decoder's bytes to the model's input in one pass: :func:`mix_normalize`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..arguments import check_choice
from ..backends import implementation
from ..frozen import count_write
from ..memory import recycled_tensor
from ..plan.mix_plan import MixPlan
from ..tracing import in_vmap
from .erasing import Erasing
from .normalize_checks import (
    check_channels,
    check_dtype,
    check_erasing,
    check_flip,
    check_images,
    check_normalized_out,
    plan_arguments,
)

if TYPE_CHECKING:
    from numpy import ndarray

ORDERS = {"after": False, "before": True}


def mix_normalize(
    images: Tensor | ndarray | Sequence[Tensor | ndarray],  # [B, C, H, W] or [B, H, W, C]
    plan: MixPlan | None = None,
    *,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.channels_last,
    mix: str = "after",
    flip: Tensor | Sequence[bool] | None = None,  # [B]
    erase: Erasing | None = None,
    layout: str | None = None,
    out: Tensor | None = None,  # [B, C, H, W]
) -> Tensor:
    """Normalise, mix and erase images, and give them the model's dtype and memory format.

    ``n(v) = (v - 255 mean) / (255 std)``, then ``blend_i0 n(x_i) + blend_i1 n(x_partner)`` outside
    box_i and ``n(x_partner)`` inside. One read of the images and one write of the result: no float
    copy, no permuted copy, no copy of a list of samples.

    Equivalent to (bytes, ``mix="after"``, one erased box for each image)::

        x = torch.where(flip[:, None, None, None], images.flip(3), images)
        x = x.float().sub_(255 * mean).div_(255 * std)  # mean, std: [C, 1, 1]
        x = mix(x, plan)
        for row, (y0, x0, y1, x1) in zip(x, erase.box[:, 0].tolist()):
            row[:, y0:y1, x0:x1] = 0
        x.to(dtype, memory_format=memory_format)

    Args:
        images: uint8, float16, bfloat16 or float32; [B, C, H, W] or [B, H, W, C], of any strides
            (the view that ``permute`` gives, rows of a crop, turned images), a tensor or a NumPy
            array. Or on the CPU a list of B samples of one size, [C, H, W] or [H, W, C] each.
            Bytes are 0 to 255, floats are of the scale of ``mean``: 0 to 1 for most models.
        plan: a plan for B samples; None mixes nothing. One drawn on the device is not read.
        mean, std: one number, or one for each channel, as for float images (ImageNet's are
            ``(0.485, 0.456, 0.406)`` and ``(0.229, 0.224, 0.225)``); for bytes they are multiplied
            by 255. A tensor or an array on the host too, but for compiled code.
        dtype: of the result: float16, bfloat16 or float32; ``out``'s, else bfloat16, by default.
        memory_format: of the result, ``torch.channels_last`` or ``torch.contiguous_format``.
        mix: ``"after"`` blends normalised values in float32, and rounds once. ``"before"`` blends
            bytes and rounds them to bytes, as ``FastCollateMixup`` does; floats are not rounded.
        flip: bool [B], which images are mirrored left to right, before they are mixed.
        erase: what is erased, after mixing (of the mixed image), as by timm's loader; values are
            those of the result.
        layout: ``"NCHW"`` or ``"NHWC"``. By default NHWC where ``mean`` has as many values as the
            last dim and not as many as the first of a sample; where ``mean`` and ``std`` are one
            number, if the last dim is 1, 3 or 4 and the two before it are above 4; else NCHW.
        out: [B, C, H, W], written instead of a new tensor; any strides; no memory of an image.

    Returns:
        [B, C, H, W] in ``dtype`` and ``memory_format``, or ``out``.

    Raises:
        TypeError: images that are no tensors or arrays (PIL images), a dtype that cannot be
            normalised or given.
        ValueError: ``mean`` or ``std`` of another length than the channels, not finite, or a
            ``std`` of 0; samples whose sizes differ; a plan, ``flip`` or ``erase`` for other sizes
            or another device; images that require grad; an ``out`` that does not fit. Nothing is
            written then.

    Notes:
        float32 results are those of the lines above, bit for bit; half types are rounded once, and
        so are the nearest to the float32 value, which no chain of half-precision operations gives
        (timm's ``img_dtype=torch.bfloat16`` misses the nearest for 57 % of all values, with a bias
        for each channel). Images are never written. No gradient. Up to 64 channels. Deterministic.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899;
    Zhong et al., Random Erasing, 2020, arXiv 1708.04896.
    """
    order = bool(check_choice("mix", mix, ORDERS))
    if not torch.compiler.is_compiling() and in_vmap():
        raise RuntimeError(
            "mix_normalize: expected batches, got a call under torch.vmap; call it on the whole "
            "batch, [B, C, H, W]"
        )
    tensors, shape = check_images(images, mean, std, layout)
    first = tensors[0]
    scale = 255.0 if first.dtype == torch.uint8 else 1.0
    means, stds = check_channels(mean, std, shape[1], scale)
    return normalize_checked(
        tensors, shape, plan, means, stds, dtype, memory_format, order, flip, erase, out
    )


def normalize_checked(
    images: list[Tensor],  # one [B, C, H, W], or B of [C, H, W]
    shape: tuple[int, ...],
    plan: MixPlan | None,
    means: list[float],
    stds: list[float],
    dtype: torch.dtype | None,
    memory_format: torch.memory_format,
    first: bool,
    flip: Tensor | Sequence[bool] | None,
    erase: Erasing | None,
    out: Tensor | None,
) -> Tensor:
    """:func:`mix_normalize` for images and constants (in the units of the images) as checked."""
    device = images[0].device
    mixed = plan_arguments(plan, shape, device)
    flips = check_flip(flip, shape[0], device)
    check_erasing(erase, shape, device)
    dtype = check_dtype(dtype, out)
    if out is None:
        out = _new_result(shape, dtype, device, memory_format)
    else:
        check_normalized_out(images, shape, dtype, out)
    erased = (None, None, None) if erase is None else (erase.box, erase.value, erase.noise)
    implementation().mix_normalize(
        images,
        *mixed,
        means,
        stds,
        flips,
        *erased,
        first,
        out,
    )
    count_write(out)
    return out


def _new_result(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    memory_format: torch.memory_format,
) -> Tensor:
    check_memory_format(memory_format)
    _, c, h, w = shape
    # All strides are set, also those of dims of size 1, so that a model sees this format.
    strides = (c * h * w, h * w, w, 1)
    if memory_format == torch.channels_last:
        strides = (c * h * w, 1, c * w, c)
    if device.type == "cpu" and not torch.compiler.is_compiling():
        return recycled_tensor(torch.Size(shape), dtype, strides)
    return torch.empty_strided(shape, strides, dtype=dtype, device=device)


def check_memory_format(memory_format: torch.memory_format) -> None:
    if memory_format not in (torch.channels_last, torch.contiguous_format):
        raise ValueError(
            "memory_format: expected torch.channels_last or torch.contiguous_format, got "
            f"{memory_format}"
        )
