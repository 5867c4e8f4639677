"""Mix by a mask: mix_masked, mix_masked_, mix_masked_out, mix_masked_backward; and mask_mean.

    out[i, e] = x[p, e]                              where e lies in box_i        (p = partner_i)
                m_i · x[i, e] + (1 - m_i) · x[p, e]  elsewhere, m_i the mask at the pixel of e

Fused: the mask, which no memory holds (rows, columns or a small map are read from the cache), its
function and resize, pairing, products, sum, box, rounding. Per element:
    mix_masked_, mix_masked  as mix_ and mix: 1 read from memory and 1 from cache, 1 write
    mix_masked_out           with the clean batch: 2 writes
    mix_masked_backward      1 read from memory and 1 from cache, 1 write
    mask_mean                reads tables alone

The kernels stand in masks_kernels.py, masks_backward_kernel.py and mask_mean_kernel.py, the mask in
mask_value.py.
"""

import struct
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from .. import op_checks
from ..codes import BILINEAR, FLIP, SELF
from ..reference import masks as reference
from ..schemas import MaskArguments
from . import common
from .common import blend_args, box_args, host_row, partner_args
from .configs import config
from .mask_mean_kernel import mask_mean_kernel, mask_sum_kernel
from .masks_backward_kernel import masked_backward_kernel
from .masks_kernels import masked_kernel
from .mix import box_of

MAX_PLANES = 4  # channels for which one program works out the mask once
_MEAN_PARTS = 64  # programs that share the pixels of a sample, at most
_MEAN_ALONE = 1 << 16  # pixels that one program takes alone


def _single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def _ratio(small: int, large: int) -> float:
    """small / large, rounded to float32: a double holds enough bits to round a second time."""
    return _single(_single(small) / _single(max(large, 1)))


def _mask_args(mask: MaskArguments, height: int, width: int) -> tuple[tuple, dict]:
    """``code`` to ``ratio_x`` of the kernels, and their options R and BILINEAR."""
    code, threshold, rows, columns, stored, interpolation = mask
    if code is None or threshold is None:
        return (None,) * 5 + ((), 0.0, 0.0), {"R": 0, "BILINEAR": False}
    if stored is not None and stored.dtype == torch.bool:
        stored = stored.view(torch.uint8)
    tables = [(0, 0, 0) if t is None else t.stride() for t in (rows, columns, stored)]
    size = (1, 1) if stored is None else tuple(stored.shape[1:])
    steps = (code.stride(0), threshold.stride(0), *tables[0], *tables[1], *tables[2], *size)
    ratios = _ratio(size[0], height), _ratio(size[1], width)
    rank = 0 if rows is None else rows.shape[1]
    options = {"R": rank, "BILINEAR": interpolation == BILINEAR}
    return (code, threshold, rows, columns, stored, steps, *ratios), options


@dataclass(frozen=True)
class _Planes:
    """The memory of samples as planes: runs of dims that hold every pixel once, or with the
    channels where these lie innermost."""

    count: int  # planes of a sample
    numel: int  # elements of a plane
    align: int  # divides the size of a plane and what lies between two
    strides: list[tuple[int, ...]]  # of dims of a plane, for each tensor
    steps: list[int]  # from plane to plane, in units of align
    rows: list[int]  # from sample to sample, likewise
    sizes: tuple[int, ...]
    options: dict  # AXES, FLAT, ALIGN, WIDE


def _planes(tensors: tuple[Tensor, ...], axes: dict[int, int]) -> _Planes:
    dims = common.merge_dims(tensors, axes)
    count, steps = 1, (0,) * len(tensors)
    if dims[-1][2] < 0 and len(dims) > 1:
        count, steps, _, _ = dims.pop()
    flat, run = True, 1
    for size, strides, _, _ in dims:
        flat &= size == 1 or set(strides) == {run}
        run *= size
    rows = [t.stride(0) for t in tensors]
    align = common.alignment(run, *steps, *rows) if flat else 1
    sizes, strides, dim_axes, groups = zip(*dims, strict=True)
    return _Planes(
        count,
        run,
        align,
        list(zip(*strides, strict=True)),
        [s // align for s in steps],
        [s // align for s in rows],
        (sizes, groups),
        {"AXES": dim_axes, "FLAT": flat, "ALIGN": align, "WIDE": run >= common.WIDE_FROM},
    )


def _axes(x: Tensor, box_dims: dict[int, int], masked: bool) -> tuple[dict[int, int], dict]:
    """Dims of x → axes, of the box first, and the axes of the mask as options."""
    axes = dict(box_dims)
    if masked:
        for dim in (x.ndim - 1, x.ndim - 2):
            axes.setdefault(dim, len(axes))
        return axes, {"ROW_AXIS": axes[x.ndim - 2], "COLUMN_AXIS": axes[x.ndim - 1]}
    return axes, {"ROW_AXIS": 0, "COLUMN_AXIS": 0}


def _blocks(layout: _Planes, itemsize: int) -> dict:
    """Options of the launch: what one program takes."""
    run = config("masked", itemsize)
    most = run.block // itemsize if layout.options["FLAT"] else min(512, run.block // itemsize)
    block = min(triton.next_power_of_2(layout.numel), most)
    planes = min(layout.count, MAX_PLANES)
    return {"PLANES": planes, "BLOCK": block, "num_warps": run.warps}


def _programs(layout: _Planes, options: dict) -> int:
    """Programs of a sample."""
    parts = triton.cdiv(layout.count, options["PLANES"])
    return parts * triton.cdiv(layout.numel, options["BLOCK"])


def _mix(
    x: Tensor,
    other: Tensor | None,
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    mask: MaskArguments,
    clean: bool,
    out: Tensor,
) -> None:
    if x.numel() == 0:
        return
    kind, box, box_row, box_dims = box_of(box, x, x.ndim)
    axes, mask_axes = _axes(x, box_dims, mask.code is not None)
    pool = x if other is None else other
    layout = _planes((out, x, pool), axes)
    blocks = _blocks(layout, x.element_size())
    height, width = x.shape[-2:] if mask.code is not None else (1, 1)
    mask_args, mask_options = _mask_args(mask, height, width)
    pair = pairing == FLIP and other is None
    batch = x.shape[0]
    common.launch(
        masked_kernel,
        ((batch + 1) // 2 if pair else batch) * _programs(layout, blocks),
        x.device,
        *(out, x, pool, *partner_args(partner)),
        *(*blend_args(blend, host_row(blend)), *box_args(box, box_row), *mask_args),
        *(batch, pool.shape[0], layout.numel // layout.align, layout.count),
        *(*layout.rows, *layout.steps, *layout.sizes, *layout.strides),
        D=len(box_dims),
        BOX=kind,
        IN_PLACE=out is x,
        CLEAN=clean,
        PAIR=pair,
        PAIRING=pairing,
        enable_fp_fusion=False,
        **layout.options,
        **blocks,
        **mask_axes,
        **mask_options,
    )


def mix_masked_out(
    x: Tensor,
    other: Tensor | None,
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    code: Tensor | None,
    threshold: Tensor | None,
    rows: Tensor | None,
    columns: Tensor | None,
    map: Tensor | None,
    interpolation: int,
    clean: bool,
    out: Tensor,
) -> None:
    mask = MaskArguments(code, threshold, rows, columns, map, interpolation)
    reference.check_masked(x, other, pairing, partner, blend, box, mask)
    reference.check_masked_out(x, clean, out)
    _mix(x, other, partner, blend, box, pairing, mask, clean, out)


def mix_masked(
    x: Tensor,
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    *mask: Tensor | int | None,
) -> Tensor:
    out = torch.empty_like(x)
    mix_masked_out(x, None, partner, blend, box, pairing, *mask, False, out)
    return out


def mix_masked_(
    x: Tensor,
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    *mask: Tensor | int | None,
) -> None:
    op_checks.expect(pairing in (FLIP, SELF), "pairing", "1 (flip) or 3 (self) in place", pairing)
    arguments = MaskArguments(*mask)
    reference.check_masked(x, None, pairing, partner, blend, box, arguments)
    _mix(x, None, partner, blend, box, pairing, arguments, False, x)


def mix_masked_backward(
    grad: Tensor,
    partner: Tensor | None,
    sources: Tensor | None,
    offsets: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    *mask: Tensor | int | None,
) -> Tensor:
    arguments = MaskArguments(*mask)
    reference.check_masked(grad, None, pairing, partner, blend, box, arguments)
    op_checks.check_transpose(pairing, sources, offsets, grad.shape[0])
    out = torch.empty_like(grad)
    if grad.numel() == 0:
        return out
    masked = arguments.code is not None
    kind, box, box_row, box_dims = box_of(box, grad, grad.ndim)
    axes, mask_axes = _axes(grad, box_dims, masked)
    layout = _planes((out, grad), axes)
    blocks = _blocks(layout, grad.element_size())
    height, width = grad.shape[-2:] if masked else (1, 1)
    mask_args, mask_options = _mask_args(arguments, height, width)
    batch = grad.shape[0]
    common.launch(
        masked_backward_kernel,
        batch * _programs(layout, blocks),
        grad.device,
        *(out, grad, sources, offsets),
        *(*blend_args(blend, host_row(blend)), *box_args(box, box_row), *mask_args),
        *(batch, layout.numel // layout.align, layout.count),
        *(*layout.rows, *layout.steps, *layout.sizes, *layout.strides),
        D=len(box_dims),
        BOX=kind,
        PAIRING=pairing,
        enable_fp_fusion=False,
        **layout.options,
        **blocks,
        **mask_axes,
        **mask_options,
    )
    return out


def mask_mean(
    code: Tensor,
    threshold: Tensor,
    rows: Tensor | None,
    columns: Tensor | None,
    map: Tensor | None,
    interpolation: int,
    height: int,
    width: int,
) -> Tensor:
    mask = MaskArguments(code, threshold, rows, columns, map, interpolation)
    reference.check_mask(mask, height, width)
    batch, pixels = code.shape[0], height * width
    mean = torch.empty(batch, device=code.device)
    mask_args, options = _mask_args(mask, height, width)
    blocks = triton.cdiv(max(pixels, 1), _MEAN_ALONE)
    parts = min(triton.next_power_of_2(blocks), _MEAN_PARTS)
    shape = (batch, parts) if parts > 1 else (0, 0)
    sums = torch.empty(shape, dtype=torch.int64, device=code.device)
    whole = common.float_bits(float(pixels << 24))
    run = config("mask_mean", code.element_size())
    common.launch(
        mask_sum_kernel,
        batch * parts,
        code.device,
        *(mean, sums, *mask_args, pixels, max(width, 1), whole),
        **options,
        PARTS=parts,
        BLOCK=run.block,
        num_warps=run.warps,
        enable_fp_fusion=False,
    )
    if parts > 1:
        common.launch(
            mask_mean_kernel,
            batch,
            code.device,
            *(mean, sums, code, code.stride(0), whole),
            PARTS=parts,
            enable_fp_fusion=False,
        )
    return mean
