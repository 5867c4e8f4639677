"""The calls of mix_rectangles and mix_patches whose machine code is read, for
``triton_machine_code.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import fused_mixup.triton_kernels as tk


def _rectangles(
    dtype: torch.dtype, resample: int, rows: int, fill: float | None = None, size: int = 64
) -> None:
    x = torch.zeros(4, 3, size, size, dtype=dtype)
    box = torch.zeros(4, rows, 4, dtype=torch.int32)
    source = torch.zeros(4, rows, dtype=torch.int32)
    scale = torch.ones(4, rows, 2) if resample == 1 else None
    tk.mix_rectangles(x, None, source, box, box, scale, resample, fill, torch.empty_like(x))


def _patches(dtype: torch.dtype, masked: bool, channels_last: bool = False) -> None:
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.zeros(4, 3, 64, 64, dtype=dtype).contiguous(memory_format=form)
    index = torch.zeros(4, 8, 8, dtype=torch.int32)
    sides = torch.zeros(4, dtype=torch.int32), index, torch.zeros(4, 4, 4)
    tk.mix_patches(x, None, index, *(sides if masked else (None,) * 3), torch.empty_like(x))


def collage_cases(full: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, call); ``full`` adds dtypes and layouts."""
    half, single, byte = torch.bfloat16, torch.float32, torch.uint8
    yield "rectangles moved", lambda: _rectangles(single, 0, 4, 114.0)
    yield "rectangles nearest", lambda: _rectangles(half, 1, 1)
    yield "rectangles bilinear", lambda: _rectangles(half, 2, 1)
    yield "patches moved", lambda: _patches(single, False)
    yield "patches blended", lambda: _patches(half, True)
    if not full:
        return
    yield "rectangles aligned", lambda: _rectangles(byte, 3, 4, 0.0)
    yield "rectangles double", lambda: _rectangles(torch.float64, 2, 2)
    yield "patches channels_last", lambda: _patches(byte, True, True)
