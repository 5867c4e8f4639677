"""What the kernels share: a batch's memory layout, plan rows as arguments, the launch.

No function here reads a device value. A plan row that is uniform lives on the CPU ("host row") and
reaches a kernel as plain arguments: no copy, no synchronisation.
"""

import math
import struct
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..codes import FLIP, ROLL, SELF

NO_BOX, HOST_BOX, BOX_TENSOR = range(3)
# Kernels can name a global only if it is a constexpr.
_FLIP, _ROLL, _SELF = tl.constexpr(FLIP), tl.constexpr(ROLL), tl.constexpr(SELF)
_HOST_BOX = tl.constexpr(HOST_BOX)

# Samples of this many elements and more count them in 64 bits (memory offsets always have 64 bits).
WIDE_FROM = 2**30

# -------------------------------------------------------------------- host: plan rows


def host_row(t: Tensor) -> list | None:
    """The row of a CPU tensor whose rows are all one row in memory; None for any other tensor."""
    if t.device.type == "cpu" and t.shape[0] and (t.shape[0] == 1 or t.stride(0) == 0):
        return t[0].tolist()
    return None


def float_bits(value: float) -> int:
    """The float64 bits as an int64: Triton would pass a Python float as a float32."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


def scalars(dtype: torch.dtype, *values: float) -> tuple:
    """Numbers of arithmetic in ``dtype``, as :func:`float_scalar` takes them."""
    return tuple(map(float_bits, values)) if dtype == torch.float64 else values


def smoothed_one_hot(smoothing: float, classes: int) -> tuple[float, float]:
    """The two values of a smoothed one-hot row: at its label, and elsewhere."""
    off = smoothing / max(classes, 1)
    return 1.0 - smoothing + off, off


def partner_args(partner: Tensor | None) -> tuple:
    """``partner, partner_stride`` of the kernels."""
    return partner, 0 if partner is None else partner.stride(0)


def weight_args(weight: Tensor) -> tuple:
    """``weight, weight_strides, w0, w1`` of the kernels."""
    row = host_row(weight)
    return (weight, weight.stride(), 0.0, 0.0) if row is None else (None, (), *row)


def blend_args(blend: Tensor | None, row: list | None) -> tuple:
    """``blend, blend_row, blend_col, blend_own, blend_other`` of the kernels."""
    if row is not None or blend is None:
        own, other = row or (1.0, 0.0)
        return None, 0, 0, float_bits(own), float_bits(other)
    return blend, blend.stride(0), blend.stride(1), 0, 0


def box_args(box: Tensor | None, row: list | None) -> tuple:
    """``box, box_row, box_col, box0, box1, box2``; a host box packs (start, stop) in an int64.

    ``row`` comes from :func:`~.mix.box_of`, which leaves nothing negative in it.
    """
    if row is not None:
        d = len(row) // 2
        packed = [row[k] | row[d + k] << 32 for k in range(d)]
        return None, 0, 0, *packed, *[0] * (3 - d)
    if box is None:
        return None, 0, 0, 0, 0, 0
    return box, box.stride(0), box.stride(1), 0, 0, 0


# -------------------------------------------------------------------- host: layout


@dataclass(frozen=True)
class Layout:
    """How the samples of a batch lie in memory. Tuples run from the innermost dim outwards.

    A sample's dims are sorted as they lie in memory and merged where one continues the other, so
    that contiguous and channels_last samples are one dense run (``flat``). Kernels then walk flat
    memory, and need the dims only to find where in a box an element lies.
    """

    numel: int  # elements of a sample
    flat: bool  # a sample is one dense run, in the same order on both sides
    align: int  # divides every row offset and the sample's size, so that loads can be vectors
    sizes: tuple[int, ...]
    groups: tuple[int, ...]  # elements per step of the dim's coordinate
    axes: tuple[int, ...]  # the box axis whose coordinate the dim carries, or -1
    dst_strides: tuple[int, ...]
    src_strides: tuple[int, ...]


def alignment(*counts: int) -> int:
    """The largest power of two up to 16 that divides all.

    Sizes and strides reach the kernels in units of it. Triton itself looks for multiples of 16
    only, and so would miss that rows of 1000 bfloat16 logits start on a 16-byte boundary.
    """
    return math.gcd(16, *counts)


def merge_dims(
    tensors: tuple[Tensor, ...], dim_axes: dict[int, int]
) -> list[tuple[int, tuple[int, ...], int, int]]:
    """(size, stride in each tensor, axis or -1, group) of the dims of a sample, innermost first.

    The tensors have one shape but for their dim 0; dims are sorted as the first one has them, and
    merged where all tensors allow it. ``dim_axes`` maps dims to axes, which stay apart.
    """
    x = tensors[0]
    dims = [
        (x.shape[k], tuple(t.stride(k) for t in tensors), dim_axes.get(k, -1))
        for k in range(1, x.ndim)
        if x.shape[k] != 1 or k in dim_axes  # a size of 1 matters to an axis only
    ]
    # Outermost first; the sort is stable, and a size of 1 may stand anywhere.
    dims.sort(key=lambda d: -d[1][0])
    merged: list[tuple[int, tuple[int, ...], int, int]] = []
    for size, strides, axis in dims:
        outer = merged[-1] if merged else None
        if outer is not None and axis < 0 and outer[1] == tuple(size * s for s in strides):
            merged[-1] = (outer[0] * size, strides, outer[2], outer[3] * size)
        else:
            merged.append((size, strides, axis, 1))
    return merged[::-1] or [(1, (1,) * len(tensors), -1, 1)]


def make_layout(dst: Tensor, src: Tensor, box_dims: dict[int, int]) -> Layout:
    """The layout of ``dst`` and ``src`` [B, …] of one shape; ``box_dims`` maps dims to box axes."""
    merged = merge_dims((dst, src), box_dims)
    flat, run = True, 1
    for size, strides, _, _ in merged:
        flat &= size == 1 or strides == (run, run)
        run *= size
    align = alignment(run, dst.stride(0), src.stride(0)) if flat else 1
    sizes, strides, axes, groups = zip(*merged, strict=True)
    dst_strides, src_strides = zip(*strides, strict=True)
    if flat and not box_dims:  # one compiled kernel for every shape
        sizes = dst_strides = src_strides = groups = (1,)
        axes = (-1,)
    return Layout(run, flat, align, sizes, groups, axes, dst_strides, src_strides)


# -------------------------------------------------------------------- host: launch


def launch(kernel, programs: int, device: torch.device, *args, **options) -> None:
    """Run ``kernel`` on a grid of ``programs``, on ``device`` even if it is not the current one."""
    if programs == 0:
        return
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*args, **options)
    else:
        kernel[(programs,)](*args, **options)


def load_wait(kernel, and_stores: bool = False) -> str:
    """Assembly that waits for a thread's loads where a barrier does not: on AMD GPUs.

    NVIDIA's barrier orders them itself, and under the interpreter nothing is compiled.
    """
    if not isinstance(kernel, triton.JITFunction):
        return ""
    target = triton.runtime.driver.active.get_current_target()
    if target.backend != "hip":
        return ""
    wait = "s_wait_loadcnt 0x0" if target.arch.startswith("gfx12") else "s_waitcnt vmcnt(0)"
    if and_stores and target.arch.startswith("gfx12"):
        wait += "\ns_wait_storecnt 0x0"
    elif and_stores and target.arch.startswith("gfx1"):  # gfx9 counts stores with the loads
        wait += "\ns_waitcnt_vscnt null, 0x0"
    return wait + "\nv_mov_b32 $0, $1"  # an elementwise instruction has to have a result


# -------------------------------------------------------------------- device


@triton.constexpr_function
def arithmetic(dtype):
    """The dtype in which values of ``dtype`` are computed."""
    return tl.float64 if dtype == tl.float64 else tl.float32


@triton.jit
def float_scalar(value, ACC: tl.constexpr):
    """A scalar argument of the host: a Python float, or for float64 its bits."""
    if tl.float64 == ACC:
        result = tl.cast(value, tl.int64).to(tl.float64, bitcast=True)
    else:
        result = tl.cast(value, tl.float32)
    return result


@triton.jit
def elements_of(units, ALIGN: tl.constexpr, WIDE: tl.constexpr):
    """A count given in units of ALIGN: the product tells the compiler that ALIGN divides it."""
    if WIDE:
        units = tl.cast(units, tl.int64)
    return units * ALIGN


@triton.jit
def partner_of(partner, partner_stride, rows, B, PAIRING: tl.constexpr):
    """Index of the partner of ``rows``, clamped into the batch; int64."""
    if PAIRING == _FLIP:
        p = B - 1 - rows
    elif PAIRING == _ROLL:
        p = tl.where(rows == 0, B - 1, rows - 1)
    elif PAIRING == _SELF:
        p = rows
    else:
        # A tile may have more rows than the batch: those read the last entry and are masked later.
        at = tl.minimum(rows, B - 1).to(tl.int64)
        p = tl.load(partner + at * partner_stride)
        p = tl.minimum(tl.maximum(p, 0), B - 1)
    return p.to(tl.int64)


@triton.jit
def blend_of(blend, blend_row, blend_col, own_bits, other_bits, rows, B, ACC: tl.constexpr):
    """The two value weights of ``rows``, converted once to the arithmetic type."""
    if blend is None:
        own = tl.cast(own_bits, tl.int64).to(tl.float64, bitcast=True).to(ACC)
        other = tl.cast(other_bits, tl.int64).to(tl.float64, bitcast=True).to(ACC)
    else:
        at = blend + tl.minimum(rows, B - 1).to(tl.int64) * blend_row
        own = tl.load(at).to(ACC)
        other = tl.load(at + blend_col).to(ACC)
    return own, other


@triton.jit
def offset_of(e, sizes, strides, FLAT: tl.constexpr, NDIM: tl.constexpr):
    """Memory offset of elements ``e`` of a sample, counted as they lie in memory; int64."""
    if FLAT:
        offset = e.to(tl.int64)
    else:
        offset = e.to(tl.int64) * 0
        rest = e
        for k in tl.static_range(NDIM):
            outer = rest // sizes[k]
            offset += (rest - outer * sizes[k]).to(tl.int64) * strides[k]
            rest = outer
    return offset


@triton.jit
def coordinate_of(e, sizes, groups, AXES: tl.constexpr, axis: tl.constexpr):
    """Where elements ``e`` of a sample lie along an axis."""
    # The same divisions for every axis and row; the compiler shares them.
    rest = e
    coordinate = e * 0
    for k in tl.static_range(len(AXES)):
        outer = rest // sizes[k]
        if AXES[k] == axis:
            coordinate = (rest - outer * sizes[k]) // groups[k]
        rest = outer
    return coordinate


@triton.jit
def in_box(
    e,
    rows,
    B,
    box,
    box_row,
    box_col,
    box0,
    box1,
    box2,
    sizes,
    groups,
    AXES: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
):
    """Whether elements ``e`` of ``rows`` lie in the box of their row. Their shapes broadcast."""
    inside = e >= 0
    for axis in tl.static_range(D):
        coordinate = coordinate_of(e, sizes, groups, AXES, axis)
        if BOX == _HOST_BOX:
            packed = tl.cast(box0 if axis == 0 else (box1 if axis == 1 else box2), tl.int64)
            start = packed & 0xFFFFFFFF
            stop = packed >> 32
        else:
            at = box + tl.minimum(rows, B - 1).to(tl.int64) * box_row
            start = tl.load(at + axis * box_col)
            stop = tl.load(at + (D + axis) * box_col)
        inside = inside & (coordinate >= start) & (coordinate < stop)
    return inside


@triton.jit
def weighted(weight, value):
    """weight · value; a weight of exactly 0 drops the term, so that 0·inf makes no NaN."""
    return tl.where(weight == 0, 0.0, weight * value)
