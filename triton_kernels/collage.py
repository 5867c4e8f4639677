"""Samples made of parts of others: mix_rectangles and mix_patches.

    out[i, …, box_ik] = resample(x[source_ik, …, source_box_ik])         rectangles, in order
    out = m · T(x) + (1 - m) · T'(x), T(x)[i, j] = x[sample_ij, index_ij]  patches

Fused: resampling, the order of rectangles, the fill; both gathers, the mask and the blend. Each
element is written once, and what it shows is read from memory once. The kernels stand in
collage_kernels.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..codes import RESIZE_BILINEAR
from ..collage.op_checks import check_patches, check_rectangles
from . import common
from .collage_kernels import patches_kernel, rectangles_kernel
from .configs import config

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Lines(NamedTuple):
    """How the lines of tensors [B, outer…, H, W] lie; tuples run from the innermost dim out."""

    planes: int
    inner: int  # adjacent elements of a pixel: the channels that lie last in all tensors
    sizes: tuple[int, ...]  # of the planes' dims
    strides: list[tuple[int, ...]]  # of those dims, for each tensor


def _lines(first: Tensor, tensors: Sequence[Tensor]) -> Lines:
    planes, inner, sizes = 1, 1, []
    strides: list[list[int]] = [[] for _ in tensors]
    for d in range(first.ndim - 3, 0, -1):
        n = first.shape[d]
        if n == 1:
            continue
        last = all(t.stride(d) == 1 and t.stride(-1) != 1 for t in tensors)
        if inner == 1 and last:
            inner = n
            continue
        planes *= n
        sizes.append(n)
        for of, t in zip(strides, tensors, strict=True):
            of.append(t.stride(d))
    if not sizes:
        return Lines(planes, inner, (1,), [(0,)] * len(tensors))
    return Lines(planes, inner, tuple(sizes), [tuple(of) for of in strides])


def _steps(t: Tensor) -> tuple[int, int, int]:
    return t.stride(0), t.stride(-2), t.stride(-1)


def _word(t: Tensor) -> Tensor:
    """Values that are moved and never read as numbers: integers of their size."""
    if t.dtype == torch.complex128:
        t = torch.view_as_real(t).movedim(-1, -3)  # two doubles, as two planes
    return t.view(_WORDS[t.element_size()])


def _on_device(t: Tensor | None, like: Tensor, dtype: torch.dtype) -> Tensor | None:
    return None if t is None else t.to(like.device, dtype).contiguous()


def _grid(lines: Lines, out: Tensor) -> tuple[int, int, dict]:
    """(elements of a line, programs of a sample, options: what a program takes)."""
    line = out.shape[-1] * lines.inner
    count = lines.planes * out.shape[-2] * line
    run = config("collage", out.element_size())
    block = min(run.block, triton.next_power_of_2(count))
    return line, triton.cdiv(count, block), {"BLOCK": block, "num_warps": run.warps}


def mix_rectangles(
    x: Tensor,
    other: Tensor | None,
    source: Tensor,
    source_box: Tensor,
    box: Tensor,
    scale: Tensor | None,
    resample: int,
    fill: float | None,
    out: Tensor,
) -> None:
    check_rectangles(x, other, source, source_box, box, scale, resample, fill, out)
    if out.numel() == 0:
        return
    bits = 0
    if fill is not None:
        element = torch.full((1,), fill, dtype=x.dtype, device="cpu")
        bits = int(_word(element).view(-1)[0])
    images = x if other is None else other
    if resample < RESIZE_BILINEAR:
        x, images, out = _word(x), _word(images), _word(out)
    height, width = x.shape[-2:]
    tensors = (out, x, images)
    lines = _lines(out, tensors)
    line, chunks, program = _grid(lines, out)
    rows = source.shape[1] if images.numel() else 0
    integers = (_on_device(t, x, torch.int32) for t in (source, source_box, box))
    common.launch(
        rectangles_kernel,
        len(out) * chunks,
        out.device,
        *(out, x if fill is None else None, images, *integers),
        *(_on_device(scale, x, torch.float32), bits, len(images), lines.planes, out.shape[-2]),
        *(line, lines.inner, chunks, height, width, lines.sizes, *lines.strides),
        *map(_steps, tensors),
        R=rows,
        RESAMPLE=resample,
        **program,
        enable_fp_fusion=False,
    )


def _side(sample: Tensor | None, index: Tensor | None) -> tuple[int, int, bool]:
    """Rows and columns of the grid, and whether each of its patches has a sample of its own."""
    each = sample is not None and sample.ndim == 3
    grid = index if index is not None else sample if each else None
    rows, columns = (1, 1) if grid is None else grid.shape[1:]
    return rows, columns, each


def mix_patches(
    x: Tensor,
    sample: Tensor | None,
    index: Tensor | None,
    partner: Tensor | None,
    partner_index: Tensor | None,
    mask: Tensor | None,
    out: Tensor,
) -> None:
    check_patches(x, sample, index, partner, partner_index, mask, out)
    if out.numel() == 0:
        return
    if mask is None:
        x, out = _word(x), _word(out)
    rows, columns, each = _side(sample, index)
    partner_rows, partner_columns, partner_each = _side(partner, partner_index)
    mask_rows, mask_columns = (1, 1) if mask is None else mask.shape[1:]
    lines = _lines(out, (out, x))
    _, chunks, program = _grid(lines, out)
    maps = (_on_device(t, x, torch.int32) for t in (sample, index, partner, partner_index))
    common.launch(
        patches_kernel,
        len(out) * chunks,
        out.device,
        *(out, x, *maps, _on_device(mask, x, torch.float32)),
        *(len(x), lines.planes, *out.shape[-2:], lines.inner, chunks),
        *(rows, columns, partner_rows, partner_columns, mask_rows, mask_columns),
        *(lines.sizes, *lines.strides, _steps(out), _steps(x)),
        EACH=each,
        PARTNER_EACH=partner_each,
        **program,
        enable_fp_fusion=False,
    )
