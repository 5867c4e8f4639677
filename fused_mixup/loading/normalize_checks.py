"""Checks of the arguments of :func:`mix_normalize`, before anything is written."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_number, check_plain_tensor, kind
from ..checks import (
    as_array,
    check_memory,
    check_no_mask,
    check_plan,
    check_samples,
    check_writable,
    span,
)
from ..codes import MAX_CHANNELS, SELF
from ..dtypes import NORMALIZED
from ..plan.mix_plan import MixPlan
from ..tracing import has_host_values
from .erasing import Erasing

LAYOUTS = ("NCHW", "NHWC")
_USUAL = (1, 3, 4)  # channels of an image


def check_images(
    images: Any, mean: Any, std: Any, layout: str | None
) -> tuple[list[Tensor], tuple[int, ...]]:
    """One tensor [B, C, H, W], or a list of B tensors [C, H, W]; and the shape [B, C, H, W]."""
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {list(LAYOUTS)} or None, got {kind(layout)}")
    if isinstance(images, (list, tuple)):
        tensors = check_samples(images, "images")
        shape = (len(tensors), *tensors[0].shape)
        name = "images: expected samples [C, H, W] or [H, W, C], got shape"
    else:
        tensors = [_one_tensor(images)]
        shape = tuple(tensors[0].shape)
        name = "images: expected [B, C, H, W] or [B, H, W, C], got shape"
    first = tensors[0]
    if len(shape) != 4:
        sample = list(shape if first.ndim == len(shape) else shape[1:])
        raise ValueError(f"{name} {sample}; give one image a batch dim, or a grey one its channel")
    if first.dtype != torch.uint8 and first.dtype not in NORMALIZED:
        raise TypeError(
            f"images: expected uint8, float16, bfloat16 or float32, got {first.dtype}; convert "
            "them with .float()"
        )
    if first.requires_grad:
        raise ValueError(
            "images: expected tensors that do not require grad, as no gradient reaches them; use "
            "mix((images - mean) / std, plan), which is differentiable"
        )
    if layout is None:
        layout = LAYOUTS[_channels_last(shape, mean, std)]
    if layout == "NHWC":
        tensors = [t.movedim(-1, -3) for t in tensors]
        shape = (shape[0], shape[3], shape[1], shape[2])
    return tensors, shape


def _channels_last(shape: tuple[int, ...], *constants: Any) -> bool:
    """Whether the last dim is that of the channels, of a batch of this shape."""
    # Sizes are compared one by one: they may be a compiler's symbols, which no set finds.
    lengths = [n for n in map(_count, constants) if n != 1]
    if lengths:
        return any(shape[3] == n and shape[1] != n for n in lengths)
    # One number for all channels tells nothing: an image is larger than a pixel has values.
    largest = max(_USUAL)
    large = shape[1] > largest and shape[2] > largest
    return large and any(shape[3] == n for n in _USUAL)


def _count(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel()
    size = getattr(values, "size", None)  # NumPy's arrays, also those of no dims
    if isinstance(size, int):
        return size
    return len(values) if hasattr(values, "__len__") else 1


def _one_tensor(images: Any) -> Tensor:
    if not isinstance(images, Tensor):
        numpy = sys.modules.get("numpy")
        if numpy is None or not isinstance(images, numpy.ndarray):
            raise TypeError(
                "images: expected a tensor or a NumPy array [B, C, H, W] or [B, H, W, C], or a "
                f"list of samples, got {type(images).__name__}"
            )
        return as_array("images", images)
    check_plain_tensor("images", images)
    check_memory("images", images)
    # An image of torchvision's (a subclass) is taken as the tensor that it is.
    return images if type(images) is Tensor else images.as_subclass(Tensor)


def check_channels(
    mean: Any, std: Any, channels: int, scale: float
) -> tuple[list[float], list[float]]:
    """The constants for each channel, in the units of the images."""
    if channels > MAX_CHANNELS:
        raise ValueError(
            f"images: expected up to {MAX_CHANNELS} channels, got {channels}; say layout= where "
            "this is no number of channels, or normalise groups of channels"
        )
    return _constants("mean", mean, channels, scale), _constants("std", std, channels, scale)


def _constants(name: str, values: Any, channels: int, scale: float) -> list[float]:
    if isinstance(values, (list, tuple)) and all(type(v) is float for v in values):
        numbers = tuple(values)
    else:
        numbers = host_numbers(name, values)
    if len(numbers) != 1 and len(numbers) != channels:
        raise ValueError(
            f"{name}: expected one number, or {channels}, one for each channel, got "
            f"{len(numbers)}; say layout= if the channels are another dim"
        )
    return _checked_constants(name, numbers, channels, scale)


def _checked_constants(
    name: str, numbers: tuple[float, ...], channels: int, scale: float
) -> list[float]:
    scaled = [n * scale for n in numbers]
    # Comparisons alone: under torch.compile(dynamic=True) these are symbols.
    if not all(abs(n) <= torch.finfo(torch.float32).max for n in scaled):
        raise ValueError(f"{name}: expected finite numbers, got one that is not, or not in float32")
    # Kernels divide by a normal float32.
    if name == "std" and any(abs(n) < torch.finfo(torch.float32).tiny for n in scaled):
        raise ValueError(
            "std: expected numbers other than 0, got 0, or one too small for float32; a channel "
            "that is constant is centred with std 1"
        )
    return scaled * channels if len(scaled) == 1 else scaled


def host_numbers(name: str, values: Any) -> tuple[float, ...]:
    """A number, a sequence, or a tensor or array of any shape on the host as numbers."""
    if isinstance(values, Tensor):
        if values.device.type != "cpu" or values.requires_grad:
            raise TypeError(
                f"{name}: expected numbers on the host, got {kind(values)}; reading them would "
                "wait for the device: use .tolist() once, before training"
            )
        values = values.flatten().tolist()
    elif hasattr(values, "ravel"):  # NumPy
        values = values.ravel().tolist()
    if isinstance(values, str) or not (hasattr(values, "__len__") or hasattr(values, "__float__")):
        raise TypeError(f"{name}: expected a number or a sequence of numbers, got {kind(values)}")
    values = values if hasattr(values, "__len__") else (values,)
    return tuple(check_number(name, v) for v in values)


def plan_arguments(
    plan: MixPlan | None, shape: tuple[int, ...], device: torch.device
) -> tuple[Tensor | None, Tensor, Tensor, int]:
    """What the op takes of a plan that has been checked, or of none: its partner, blend, box, rule.

    Without a plan no MixPlan is made: that would tie compiled code to the size of the batch.
    """
    if plan is None:
        blend = torch.tensor([[1.0, 0.0]], dtype=torch.float64, device="cpu")
        box = torch.empty((1, 0), dtype=torch.int32, device="cpu")
        return None, blend.expand(shape[0], 2), box.expand(shape[0], 0), SELF
    if not isinstance(plan, MixPlan):
        raise TypeError(f"plan: expected a MixPlan or None, got {type(plan).__name__}")
    check_no_mask(plan, "normalise first, and mix(x, plan) after")
    check_plan("images", torch.empty((), device=device).expand(shape), plan)
    spatial = plan.spatial_dims
    if spatial > 2:
        raise ValueError(f"plan: expected boxes of up to 2 dims for images, got {spatial}")
    if spatial and not torch.compiler.is_compiling():
        plan.check_boxes("images", shape[4 - spatial :])
    return plan.partner_or_none, plan.blend, plan.box, plan.rule


def check_flip(flip: Any, batch: int, device: torch.device) -> Tensor | None:
    if flip is None:
        return None
    if not isinstance(flip, Tensor):
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(flip, numpy.ndarray):
            flip = as_array("flip", flip)
        else:
            empty = torch.bool if isinstance(flip, (list, tuple)) and not flip else None
            try:
                flip = torch.as_tensor(flip, dtype=empty, device="cpu")
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(f"flip: expected bools [B] or None, got {kind(flip)}") from None
        if device.type != "cpu":
            flip = flip.to(device, non_blocking=True)
    if flip.dtype != torch.bool:
        raise TypeError(f"flip: expected bools, got {flip.dtype}; use a comparison, or .bool()")
    if flip.shape != (batch,):
        raise ValueError(f"flip: expected shape [{batch}], got {list(flip.shape)}")
    if flip.device != device:
        raise ValueError(
            f"flip: expected it on {device} like images, got {flip.device}; use "
            f"flip.to({str(device)!r})"
        )
    return flip.contiguous()


def check_erasing(erase: Any, shape: tuple[int, ...], device: torch.device) -> None:
    if erase is None:
        return
    if not isinstance(erase, Erasing):
        raise TypeError(
            f"erase: expected an Erasing or None, got {kind(erase)}; Erasing(boxes) makes one"
        )
    batch, channels, *spatial = shape
    if erase.batch_size != batch:
        raise ValueError(f"erase: expected boxes of {batch} images, got {erase.batch_size}")
    if erase.value is not None and erase.value.shape[2] not in (1, channels):
        raise ValueError(
            f"erase: expected values for {channels} channels or one for all, got "
            f"{erase.value.shape[2]}"
        )
    if erase.device != device:
        raise ValueError(
            f"erase: expected it on {device} like images, got {erase.device}; use "
            f"erase.to({str(device)!r})"
        )
    if torch.compiler.is_compiling() or not has_host_values(erase.box) or not erase.box.numel():
        return
    stops = erase.box[..., 2:].flatten(0, 1).amax(0).tolist()
    if any(stop > size for stop, size in zip(stops, spatial, strict=True)):
        raise ValueError(
            f"erase: expected boxes inside {spatial[0]} × {spatial[1]}, got one that ends at "
            f"({stops[0]}, {stops[1]})"
        )


def check_dtype(dtype: torch.dtype | None, out: Tensor | None) -> torch.dtype:
    if dtype is None:
        dtype = out.dtype if isinstance(out, Tensor) else torch.bfloat16
    if dtype not in NORMALIZED:
        shown = dtype if isinstance(dtype, torch.dtype) else kind(dtype)
        name = "dtype" if out is None else "out"
        raise TypeError(
            f"{name}: expected float16, bfloat16 or float32, as normalised values are no whole "
            f"numbers, got {shown}"
        )
    return dtype


def check_normalized_out(
    images: list[Tensor], shape: tuple[int, ...], dtype: torch.dtype, out: Any
) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"out: expected a tensor, got {type(out).__name__}")
    check_plain_tensor("out", out)
    check_memory("out", out)
    device = images[0].device
    if (tuple(out.shape), out.dtype, out.device) != (shape, dtype, device):
        raise ValueError(
            f"out: expected {list(shape)} {dtype} on {device}, got {list(out.shape)} {out.dtype} "
            f"on {out.device}"
        )
    check_writable("out", out, "detach it first")
    if torch.compiler.is_compiling() or out.is_meta or out.numel() == 0:
        return
    begin, end = span(out)
    for x in images:
        first, last = span(x)
        if first <= end and begin <= last:
            raise ValueError(
                "out: expected memory of its own, got memory that reaches into that of an image; "
                "leave out away for a new tensor"
            )
