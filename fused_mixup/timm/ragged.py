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
    alike = set()
    for i, x in enumerate(images):
        if not isinstance(x, Tensor):
            _refuse(i, x)
        shape = x.shape
        if len(shape) != 3:
            _refuse_unlike(images)
        channels, height, width = shape
        if not height or not width:
            _refuse_unlike(images)
        alike.add((x.dtype, x.layout, x.is_cpu, channels))
        shapes.append((channels, height, width))
    dtype, layout, on_cpu, _ = next(iter(alike))
    one_place = on_cpu or len({x.device for x in images}) == 1
    if len(alike) > 1 or layout != torch.strided or not one_place:
        _refuse_unlike(images)
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
    region = host_tensor("i", regions).view(-1, 6)
    ops.mix_ragged(list(images), host_tensor("i", partner), blend, region, channels_last, out)


_DTYPES = {"i": torch.int32, "q": torch.int64, "d": torch.float64}


def host_tensor(code: str, values: Sequence[float]) -> Tensor:
    """A tensor on the CPU, of a type of :mod:`array`: in a third of the time of torch.tensor."""
    return torch.frombuffer(array(code, values), dtype=_DTYPES[code])


def _buffer(first: Tensor, count: int) -> Tensor:
    """Memory for ``count`` elements; batches of about one size reuse that of an earlier one."""
    if not first.is_cpu:
        return first.new_empty(count)
    step = 1 << max(count.bit_length() - 4, 0)
    return recycled_tensor(torch.Size((-(-count // step) * step,)), first.dtype)[:count]
