"""The kernel of mix_masked_backward: the transpose of the mix by masks, gathered by rows of ``x``.

Launch it with ``enable_fp_fusion=False``, as the kernels of mix_kernels.py.
"""

import triton
import triton.language as tl

from ..codes import FLIP, ROLL, TENSOR
from .common import (
    NO_BOX,
    arithmetic,
    blend_of,
    coordinate_of,
    elements_of,
    in_box,
    offset_of,
    weighted,
)
from .mask_value import shares

_TENSOR, _FLIP, _ROLL = tl.constexpr(TENSOR), tl.constexpr(FLIP), tl.constexpr(ROLL)
_NO_BOX = tl.constexpr(NO_BOX)

# A new value of these arguments must not compile the kernel again.
CHANGING = [
    *("blend_own", "blend_other", "box0", "box1", "box2", "B", "units", "planes"),
    *("out_row", "grad_row", "out_plane", "grad_plane"),
]


@triton.jit(do_not_specialize=CHANGING)
def masked_backward_kernel(
    out,  # [B, …]: the gradient of x
    grad,  # [B, …]: the gradient of the mixed batch
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
    code,  # the mask, see mask_value.py
    threshold,
    rows,
    columns,
    map,
    steps,
    ratio_y,
    ratio_x,
    B,
    units,  # elements of a plane, and strides of rows and planes, in units of ALIGN
    planes,
    out_row,
    grad_row,
    out_plane,
    grad_plane,
    sizes,
    groups,
    out_strides,
    grad_strides,
    AXES: tl.constexpr,
    ROW_AXIS: tl.constexpr,
    COLUMN_AXIS: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
    R: tl.constexpr,
    BILINEAR: tl.constexpr,
    FLAT: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    PAIRING: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grad_j = m_j g_j + Σ (1 - m_i) g_i over the rows i whose partner is j, pixel by pixel, summed
    # in the order of i: the same bits in every run.
    numel = elements_of(units, ALIGN, WIDE)
    blocks = tl.cdiv(numel, BLOCK)
    pid = tl.program_id(0)
    j = pid % B
    rest = pid // B
    first = rest // blocks * PLANES
    e = rest % blocks
    if WIDE:
        e = e.to(tl.int64)
    e = e * BLOCK + tl.arange(0, BLOCK)
    row = e
    column = e
    if code is not None:
        row = coordinate_of(e, sizes, groups, AXES, ROW_AXIS)
        column = coordinate_of(e, sizes, groups, AXES, COLUMN_AXIS)
    grad_at = grad + offset_of(e, sizes, grad_strides, FLAT, len(AXES))
    grad_step = grad_row.to(tl.int64) * ALIGN
    plane_step = grad_plane.to(tl.int64) * ALIGN

    acc: tl.constexpr = arithmetic(out.dtype.element_ty)
    mask = (code, threshold, rows, columns, map, steps, ratio_y, ratio_x)
    w0, w1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, j, B, acc)
    own, _, alone = shares(tl.cast(j, tl.int64), e, row, column, w0, w1, *mask, R, BILINEAR, acc)
    if BOX != _NO_BOX:
        alone = alone | in_box(
            e, j, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
        )
    totals = ()
    for k in tl.static_range(PLANES):
        bound = tl.where(first + k < planes, numel, 0)
        at = grad_at + j.to(tl.int64) * grad_step + (first + k) * plane_step
        part = weighted(own, tl.load(at, mask=e < bound, other=0).to(acc))
        totals = totals + (tl.where(alone, 0.0, part),)

    if PAIRING == _TENSOR:
        begin = tl.maximum(tl.load(offsets + j), 0)
        end = tl.minimum(tl.load(offsets + j + 1), B)
    else:
        begin = 0
        end = 1
    n = begin
    while n < end:  # not range(): numpy's scalars break it in Triton's interpreter
        if PAIRING == _TENSOR:
            i = tl.minimum(tl.maximum(tl.load(sources + n), 0), B - 1)
        elif PAIRING == _FLIP:
            i = B - 1 - j
        elif PAIRING == _ROLL:
            i = (j + 1) % B
        else:
            i = j
        w0, w1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, i, B, acc)
        _, other, alone = shares(
            tl.cast(i, tl.int64), e, row, column, w0, w1, *mask, R, BILINEAR, acc
        )
        if BOX != _NO_BOX:
            alone = alone | in_box(
                e, i, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
            )
        sums = ()
        for k in tl.static_range(PLANES):
            bound = tl.where(first + k < planes, numel, 0)
            at = grad_at + i.to(tl.int64) * grad_step + (first + k) * plane_step
            g = tl.load(at, mask=e < bound, other=0).to(acc)
            sums = sums + (totals[k] + tl.where(alone, g, weighted(other, g)),)
        totals = sums
        n += 1

    out_at = out + offset_of(e, sizes, out_strides, FLAT, len(AXES))
    out_at += j.to(tl.int64) * (out_row.to(tl.int64) * ALIGN)
    for k in tl.static_range(PLANES):
        bound = tl.where(first + k < planes, numel, 0)
        at = out_at + (first + k) * (out_plane.to(tl.int64) * ALIGN)
        tl.store(at, totals[k].to(out.dtype.element_ty), mask=e < bound)
