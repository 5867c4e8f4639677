"""Rows of classes: how logits [B, K, d1…] lie in memory, and how a program walks them.

A row is a position (b, s) of the batch; its K logits lie one class stride apart. The dims that rows
run over, [B, d1…], are merged where one continues the other. The innermost dim that remains is
``inner``, and a program takes neighbouring rows along it. Its tile has the shape [U, KW, SB]: U
steps of KW classes, in SB rows. The memory layout decides the shape of a tile: it is long along the
classes for [B, K] and channels_last, and across positions for [B, K, H, W], which is read in place
without a transposed copy. Each of the [KW, SB] places keeps its own sums over classes. They are
merged once, at the end, so that no thread waits for another one while it reads.
"""

import functools
import math
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from ..schemas import BinaryCrossEntropyArguments, CrossEntropyArguments
from .common import WIDE_FROM, weight_args
from .configs import Config

# Neighbouring rows in one thread's vector. The thread keeps sums for each of them; the sums of
# eight rows (16 bytes of a half type) would not fit the registers.
ACROSS = 4

# A new value of these arguments must not compile a kernel again.
CHANGING = [
    "w0",
    "w1",
    "on",
    "off",
    "keep",
    "smoothing",
    "spread",
    "gamma",
    "z_loss",
    "ignore_index",
    "R",
    "k_units",
    "i_units",
]


# -------------------------------------------------------------------- host


@functools.cache
def _lanes() -> int:
    """Threads of a warp. A step of a tile gives each one vector, so that steps need no exchange."""
    if not isinstance(program_rows, triton.JITFunction):  # interpreted
        return 32
    return triton.runtime.driver.active.get_current_target().warp_size


@dataclass(frozen=True)
class Rows:
    """Where the rows of several tensors of one shape [B, K, d1…] lie in memory."""

    classes: int
    count: int  # B · d1 · d2 · …
    per_sample: int  # d1 · d2 · …
    inner: int  # rows that are one stride apart
    sizes: tuple[int, ...]  # sizes of the outer dims from the innermost outwards, without the last
    strides: tuple[tuple[int, ...], ...]  # per tensor: class, row and outer dims
    class_fast: bool  # a tile is long along the classes, else across rows
    align: int  # divides what a vector must not cross; sizes and strides are passed in units of it

    @property
    def layout(self) -> tuple:
        """``R, per_sample, k_units, i_units, sizes`` of the kernels."""
        k_align, i_align = (self.align, 1) if self.class_fast else (1, self.align)
        units = self.classes // k_align, self.inner // i_align
        return self.count, self.per_sample, *units, self.sizes

    @property
    def flags(self) -> dict:
        wide = self.count >= WIDE_FROM
        return {"CLASS_FAST": self.class_fast, "ALIGN": self.align, "WIDE": wide}

    def tile(self, itemsize: int, config: Config) -> dict:
        """The tile of a program, whose threads read ``config.unroll`` vectors ahead each."""
        unroll = config.unroll
        k, i = (triton.next_power_of_2(max(n, 1)) for n in (self.classes, self.inner))
        if self.align * itemsize < 16:  # every element takes its own load, and an address
            unroll = min(unroll, 2)
        wide, narrow = _lanes() * 16 // itemsize, _lanes() * min(16 // itemsize, ACROSS)
        if self.class_fast and k >= wide:
            warps = min(max(k // (wide * unroll), 1), config.warps)
            kw, sb = min(k, warps * wide), 1
        else:
            warps = 1 if self.class_fast else 4
            sb = min(i, narrow // min(k, narrow) if self.class_fast else narrow)
            kw = min(k, warps * narrow // sb)
            warps = max(kw * sb // narrow, 1)
            unroll = min(unroll, 2)
        return {"U": min(unroll, k // kw), "KW": kw, "SB": sb, "num_warps": warps}

    def blocks(self, tile: dict) -> int:
        """How many programs serve all rows."""
        return self.count // max(self.inner, 1) * triton.cdiv(self.inner, tile["SB"])


def rows_of(*tensors: Tensor) -> Rows:
    """The rows of ``tensors``, all of one shape [B, K, d1…]; the first decides how to walk them."""
    shape = tensors[0].shape
    classes, per_sample = shape[1], math.prod(shape[2:])
    merged: list[tuple[int, list[int]]] = []  # innermost first
    for d in (*range(len(shape) - 1, 1, -1), 0):
        if shape[d] == 1:
            continue
        strides = [t.stride(d) for t in tensors]
        if merged and strides == [merged[-1][0] * s for s in merged[-1][1]]:
            merged[-1] = (merged[-1][0] * shape[d], merged[-1][1])
        else:
            merged.append((shape[d], strides))
    (inner, row), *outer = merged or [(1, [0] * len(tensors))]
    column = [t.stride(1) if classes > 1 else 0 for t in tensors]
    class_fast = inner == 1 or (classes > 1 and column[0] < row[0])
    slow = [row if class_fast else column, *(strides for _, strides in outer)]
    size, unit = (classes, 16) if class_fast else (inner, ACROSS)
    align = math.gcd(unit, size, *(s for group in slow for s in group))
    k_align, i_align = (1, align) if class_fast else (align, 1)
    strides = tuple(
        (column[t] // k_align, row[t] // i_align, *(s[t] // align for _, s in outer))
        for t in range(len(tensors))
    )
    sizes = tuple(size for size, _ in outer[:-1])
    count = shape[0] * per_sample
    return Rows(classes, count, per_sample, inner, sizes, strides, class_fast, align)


def label_args(arguments: CrossEntropyArguments | BinaryCrossEntropyArguments) -> tuple:
    """``target, partner_labels, weight, weight_strides, w0, w1`` of the kernels."""
    target, partner_labels, weight = arguments[:3]
    if partner_labels is None or weight is None:
        return target, None, None, (), 0.0, 0.0
    return target.contiguous(), partner_labels.contiguous(), *weight_args(weight)


def gradient_step(grad_loss: Tensor) -> tuple[Tensor, int]:
    """``grad_loss`` [] or [B, d1…], and the stride of its rows: 0 where it is expanded."""
    if not any(grad_loss.stride()):
        return grad_loss, 0
    return grad_loss.contiguous(), 1


# -------------------------------------------------------------------- device


@triton.jit
def program_rows(
    block,
    i_units,
    CLASS_FAST: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    SB: tl.constexpr,
):
    """``outer, i, rows, ok``: the index of the outer dims, rows within ``inner``, rows of all."""
    inner = i_units if CLASS_FAST else i_units * ALIGN
    if WIDE:
        inner = tl.cast(inner, tl.int64)
    blocks = tl.cdiv(inner, SB)
    outer = block // blocks
    i = (block % blocks) * SB + tl.arange(0, SB)
    return outer, i, tl.cast(outer, tl.int64) * inner + i, i < inner


@triton.jit
def row_pointers(
    base, strides, outer, i, sizes, CLASS_FAST: tl.constexpr, ALIGN: tl.constexpr
):  # [SB]
    offset = tl.cast(outer, tl.int64) * 0
    rest = outer
    for d in tl.static_range(2, len(strides)):
        coordinate = rest
        if d < len(strides) - 1:
            rest = rest // sizes[d - 2]
            coordinate = coordinate - rest * sizes[d - 2]
        offset += tl.cast(coordinate, tl.int64) * strides[d]
    row = strides[1] * ALIGN if CLASS_FAST else strides[1]
    return base + offset * ALIGN + i.to(tl.int64) * row


@triton.jit
def at_classes(pointers, strides, k, CLASS_FAST: tl.constexpr, ALIGN: tl.constexpr):
    """Pointers [SB] moved to classes ``k`` [U, KW, 1]."""
    column = strides[0] if CLASS_FAST else strides[0] * ALIGN
    return pointers[None, None, :] + k.to(tl.int64) * column


@triton.jit
def at_labels(pointers, strides, y, K, ok, CLASS_FAST: tl.constexpr, ALIGN: tl.constexpr):
    """The rows' values at their labels ``y`` [SB], 0 for one outside [0, K)."""
    column = strides[0] if CLASS_FAST else strides[0] * ALIGN
    return tl.load(pointers + y * column, mask=ok & (y >= 0) & (y < K), other=0)


@triton.jit
def tile_classes(U: tl.constexpr, KW: tl.constexpr):  # [U, KW, 1]
    return tl.arange(0, U)[:, None, None] * KW + tl.arange(0, KW)[None, :, None]


@triton.jit
def row_weights(
    weight, weight_strides, w0, w1, rows, ok, per_sample, ACC: tl.constexpr
):  # [SB] each
    """The weights of the rows' samples."""
    if weight is None:
        own = tl.cast(rows * 0, ACC) + tl.cast(w0, tl.float32).to(ACC)
        other = tl.cast(rows * 0, ACC) + tl.cast(w1, tl.float32).to(ACC)
    else:
        at = weight + rows // per_sample * weight_strides[0]
        own = tl.load(at, mask=ok, other=0).to(ACC)
        other = tl.load(at + weight_strides[1], mask=ok, other=0).to(ACC)
    return own, other
