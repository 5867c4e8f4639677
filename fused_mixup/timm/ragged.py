"""Images of different sizes: checks, and one pass that mixes each with its partner in a region."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import ops
from ..arguments import kind
from ..checks import check_memory
from ..dtypes import BLENDABLE
from ..memory import recycled_tensor
from ..reference.ragged import mixed_image


def check_ragged(imgs: Any) -> tuple[list[Tensor], list[tuple[int, int, int]]]:
    """Images and their shapes; raises unless they can be mixed, with timm's types of exceptions."""
    images: list[Tensor] = list(imgs)
    shapes: list[tuple[int, int, int]] = []
    if not images:
        return images, shapes
    first = images[0] if isinstance(images[0], Tensor) else _refuse(0, images[0])
    dtype, device, on_cpu, channels = first.dtype, first.device, first.is_cpu, first.shape[:1]
    for i, x in enumerate(images):
        # A loader's images, checked in few steps: with more, checks take as long as mixing.
        shape = x.shape if isinstance(x, Tensor) else _refuse(i, x)
        alike = x.dtype == dtype and x.layout == torch.strided
        alike = alike and (x.is_cpu if on_cpu else x.device == device)
        if not alike or len(shape) != 3 or shape[:1] != channels or 0 in shape[1:]:
            _refuse_unlike(images)
        shapes.append((shape[0], shape[1], shape[2]))
    if dtype not in BLENDABLE:
        raise TypeError(
            f"imgs: expected float16, bfloat16, float32, float64 or uint8, got {dtype}; convert "
            "them to one of these"
        )
    return images, shapes


def _refuse(i: int, x: object) -> NoReturn:
    raise TypeError(
        f"imgs[{i}]: expected a tensor [C, H, W], got {kind(x)}; end the transform with "
        "PILToTensor, or use torch.from_numpy"
    )


def _refuse_unlike(images: Sequence[Tensor]) -> None:
    first = images[0]
    for i, x in enumerate(images):
        name, shape = f"imgs[{i}]", list(x.shape)
        check_memory(name, x)
        if x.ndim != 3:
            refused = IndexError if x.ndim < 3 else ValueError
            raise refused(f"{name}: expected an image [C, H, W], got shape {shape}")
        if not x.shape[1] * x.shape[2]:
            raise ZeroDivisionError(f"{name}: expected at least a pixel, got shape {shape}")
        if x.dtype != first.dtype:
            raise TypeError(
                f"{name}: expected {first.dtype} as in imgs[0], got {x.dtype}; convert it with "
                f".to({first.dtype})"
            )
        if x.device != first.device:
            raise RuntimeError(
                f"{name}: expected it on {first.device} as imgs[0], got {x.device}; use "
                f".to({str(first.device)!r})"
            )
        if x.shape[0] != first.shape[0]:
            raise RuntimeError(
                f"{name}: expected {first.shape[0]} channels as in imgs[0], got {x.shape[0]}; "
                "convert the images to one number of channels"
            )


def mix_images(
    images: Sequence[Tensor],
    shapes: Sequence[tuple[int, int, int]],
    partner: Sequence[int],
    blend: Tensor,  # float64 [B, 2]
    regions: Sequence[int],  # B times the six numbers that the op takes
) -> list[Tensor]:
    """Each image [C, Hi, Wi], mixed with its partner in a region. They lie in one buffer.

    Images that need a gradient are mixed one by one, in plain PyTorch; so are those of a GPU.
    """
    if _need_gradients(images):
        return _mix_each(images, partner, blend, regions)
    last = shapes[0][0] > 1 and all(x.stride(0) == 1 for x in images)
    out = _buffer(images[0], sum(c * h * w for c, h, w in shapes))
    _mix_into(out, images, partner, blend, regions, last)
    mixed, offset = [], 0
    for c, h, w in shapes:
        stride = (1, w * c, c) if last else (h * w, w, 1)
        mixed.append(out.as_strided((c, h, w), stride, offset))
        offset += c * h * w
    return mixed


def mix_rows(rows: Tensor, partner: Sequence[int], blend: Tensor) -> Tensor:
    """Rows [B, K] of numbers, each mixed with its partner's: images of one line, mixed whole."""
    count, k = rows.shape
    lines = rows.view(count, 1, 1, k).unbind(0)
    regions = [0, 0, 0, 0, 1, k] * count
    if _need_gradients([rows]):
        return torch.stack(_mix_each(lines, partner, blend, regions)).view(count, k)
    out = rows.new_empty(count * k)
    _mix_into(out, lines, partner, blend, regions, False)
    return out.view(count, k)


def _need_gradients(images: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in images)


def _mix_each(
    images: Sequence[Tensor], partner: Sequence[int], blend: Tensor, regions: Sequence[int]
) -> list[Tensor]:
    rows = zip(images, partner, blend.tolist(), range(0, len(regions), 6), strict=True)
    return [mixed_image(x, images[j], w, regions[at : at + 6]) for x, j, w, at in rows]


def _mix_into(
    out: Tensor,
    images: Sequence[Tensor],
    partner: Sequence[int],
    blend: Tensor,
    regions: Sequence[int],
    channels_last: bool,
) -> None:
    region = _int32(regions).view(-1, 6)
    ops.mix_ragged(list(images), _int32(partner), blend, region, channels_last, out)


def _int32(values: Sequence[int]) -> Tensor:
    return torch.frombuffer(array("i", values), dtype=torch.int32)


def _buffer(first: Tensor, count: int) -> Tensor:
    """Memory for ``count`` elements; batches of about one size reuse that of an earlier one."""
    if not first.is_cpu:
        return first.new_empty(count)
    step = 1 << max(count.bit_length() - 4, 0)
    return recycled_tensor(torch.Size((-(-count // step) * step,)), first.dtype)[:count]
