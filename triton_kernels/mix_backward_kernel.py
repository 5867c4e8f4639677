"""The kernel of mix_backward: the transpose of the mix, gathered by the rows of ``x``.

Launch it with ``enable_fp_fusion=False``, as the kernels of mix_kernels.py.
"""

import triton
import triton.language as tl

from ..codes import FLIP, ROLL, TENSOR
from .common import NO_BOX, arithmetic, blend_of, elements_of, in_box, offset_of, weighted
from .mix_kernels import CHANGING

# Kernels can name a global only if it is a constexpr.
_TENSOR, _FLIP, _ROLL = tl.constexpr(TENSOR), tl.constexpr(FLIP), tl.constexpr(ROLL)
_NO_BOX = tl.constexpr(NO_BOX)


@triton.jit(do_not_specialize=CHANGING)
def mix_backward_kernel(
    dst,  # [B, …]: the gradient of x
    src,  # [B, …]: the gradient of out
    sources,  # int32 [B], rows ordered by their partner, or None where PAIRING is a rule
    offsets,  # int32 [B+1]: partner j serves the rows sources[offsets[j]:offsets[j+1]]
    blend,
    blend_row,
    blend_col,
    blend_own: tl.int64,
    blend_other: tl.int64,
    box,
    box_row,
    box_col,
    box0: tl.int64,
    box1: tl.int64,
    box2: tl.int64,
    B,
    units,
    dst_row,
    src_row,
    sizes,
    groups,
    dst_strides,
    src_strides,
    AXES: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
    FLAT: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    PAIRING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grad_j = own part of row j + Σ partner parts of the rows i whose partner is j, summed in the
    # order of i: the same bits in every run.
    numel = elements_of(units, ALIGN, WIDE)
    pid = tl.program_id(0)
    j = pid % B
    e = pid // B
    if WIDE:
        e = e.to(tl.int64)
    e = e * BLOCK + tl.arange(0, BLOCK)
    valid = e < numel
    src_at = src + offset_of(e, sizes, src_strides, FLAT, len(AXES))
    dst_at = dst + offset_of(e, sizes, dst_strides, FLAT, len(AXES))
    src_step = src_row.to(tl.int64) * ALIGN
    dst_step = dst_row.to(tl.int64) * ALIGN

    acc: tl.constexpr = arithmetic(dst.dtype.element_ty)
    w0, _ = blend_of(blend, blend_row, blend_col, blend_own, blend_other, j, B, acc)
    total = weighted(w0, tl.load(src_at + j.to(tl.int64) * src_step, mask=valid, other=0).to(acc))
    if BOX != _NO_BOX:
        inside = in_box(
            e, j, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
        )
        total = tl.where(inside, 0.0, total)
    if PAIRING == _TENSOR:
        begin = tl.maximum(tl.load(offsets + j), 0)
        end = tl.minimum(tl.load(offsets + j + 1), B)
    else:
        begin = 0
        end = 1
    k = begin
    while k < end:  # not range(): numpy's scalars break it in Triton's interpreter
        if PAIRING == _TENSOR:
            i = tl.minimum(tl.maximum(tl.load(sources + k), 0), B - 1)
        elif PAIRING == _FLIP:
            i = B - 1 - j
        elif PAIRING == _ROLL:
            i = (j + 1) % B
        else:
            i = j
        _, w1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, i, B, acc)
        g = tl.load(src_at + i.to(tl.int64) * src_step, mask=valid, other=0).to(acc)
        part = weighted(w1, g)
        if BOX != _NO_BOX:
            inside = in_box(
                e, i, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
            )
            part = tl.where(inside, g, part)
        total += part
        k += 1
    tl.store(dst_at + j.to(tl.int64) * dst_step, total.to(dst.dtype.element_ty), mask=valid)
