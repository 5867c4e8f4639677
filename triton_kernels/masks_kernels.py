"""The kernels of mix_masked, mix_masked_ and mix_masked_out.

A program owns a block of pixels of one sample, or in a flip of both partners, and takes the same
block of up to PLANES channels: the mask of a pixel is worked out once for them.

Launch them with ``enable_fp_fusion=False``, as the kernels of mix_kernels.py.
"""

import triton
import triton.language as tl

from ..codes import TENSOR
from .common import (
    NO_BOX,
    arithmetic,
    blend_of,
    coordinate_of,
    elements_of,
    in_box,
    offset_of,
    partner_of,
)
from .mask_value import shares
from .mix_kernels import BLEND, mixed

_BLEND, _NO_BOX, _TENSOR = tl.constexpr(BLEND), tl.constexpr(NO_BOX), tl.constexpr(TENSOR)

# A new value of these arguments must not compile a kernel again.
CHANGING = [
    *("blend_own", "blend_other", "box0", "box1", "box2", "B", "M", "units", "planes"),
    *("out_row", "x_row", "other_row", "out_plane", "x_plane", "other_plane"),
]


@triton.jit(do_not_specialize=CHANGING)
def masked_kernel(
    out,  # [B or 2B, …]; may be x
    x,  # [B, …]
    other,  # [M, …]; may be x
    partner,  # int32 [B], or None where PAIRING is a rule
    partner_stride,
    blend,  # float64 [B, 2], or None for the two that follow its strides
    blend_row,
    blend_col,
    blend_own: tl.int64,
    blend_other: tl.int64,
    box,  # int32 [B, 2·D], or None for the three (start, stop) that follow its strides
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
    M,
    units,  # elements of a plane, and strides of rows and planes, in units of ALIGN
    planes,
    out_row,
    x_row,
    other_row,
    out_plane,
    x_plane,
    other_plane,
    sizes,  # dims of a plane
    groups,
    out_strides,
    x_strides,
    other_strides,
    AXES: tl.constexpr,
    ROW_AXIS: tl.constexpr,
    COLUMN_AXIS: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
    R: tl.constexpr,
    BILINEAR: tl.constexpr,
    IN_PLACE: tl.constexpr,
    CLEAN: tl.constexpr,
    PAIR: tl.constexpr,
    FLAT: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    PAIRING: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # 1. Which sample, and which of its elements.
    numel = elements_of(units, ALIGN, WIDE)
    blocks = tl.cdiv(numel, BLOCK)
    pid = tl.program_id(0)
    if PAIR:
        # One program owns the same block of both partners, so in place nothing else touches them.
        programs = blocks * tl.cdiv(planes, PLANES)
        i = pid // programs
        rest = pid % programs
        p = B - 1 - i
    else:
        # All samples of a block are neighbours in the grid: the partner is read from the cache.
        i = pid % B
        rest = pid // B
        if PAIRING == _TENSOR:  # clamped into the samples of other, which may be more than B
            p = tl.minimum(tl.maximum(tl.load(partner + i * partner_stride), 0), M - 1)
        else:
            p = partner_of(partner, partner_stride, i, B, PAIRING)
    first = rest // blocks * PLANES
    e = rest % blocks
    if WIDE:
        e = e.to(tl.int64)
    e = e * BLOCK + tl.arange(0, BLOCK)
    i = tl.cast(i, tl.int64)
    p = tl.cast(p, tl.int64)
    row = e
    column = e
    if code is not None:
        row = coordinate_of(e, sizes, groups, AXES, ROW_AXIS)
        column = coordinate_of(e, sizes, groups, AXES, COLUMN_AXIS)

    # 2. What each sample and its partner weigh in each pixel.
    acc: tl.constexpr = arithmetic(out.dtype.element_ty)
    mask = (code, threshold, rows, columns, map, steps, ratio_y, ratio_x)
    w0, w1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, i, B, acc)
    i0, i1, i_alone = shares(i, e, row, column, w0, w1, *mask, R, BILINEAR, acc)
    if BOX != _NO_BOX:
        i_alone = i_alone | in_box(
            e, i, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
        )
    changed = (i0 != 1.0) | (i1 != 0.0) | i_alone
    if PAIR:
        v0, v1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, p, B, acc)
        p0, p1, p_alone = shares(p, e, row, column, v0, v1, *mask, R, BILINEAR, acc)
        if BOX != _NO_BOX:
            p_alone = p_alone | in_box(
                e, p, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
            )
        changed = changed | (p0 != 1.0) | (p1 != 0.0) | p_alone

    # 3. Read all planes before one is used, so many loads are in flight. Bounds are one for the
    # whole block: masks that differ between elements would break the 16-byte accesses.
    busy = tl.max(changed.to(tl.int32), 0) > 0
    own_bound = numel
    other_bound = numel
    if IN_PLACE:  # a block that stays as it is is skipped
        own_bound = tl.where(busy, numel, 0)
    if IN_PLACE or not PAIR:
        other_bound = tl.where(busy, numel, 0)
    out_at = out + offset_of(e, sizes, out_strides, FLAT, len(AXES))
    x_at = x + i * (x_row.to(tl.int64) * ALIGN) + offset_of(e, sizes, x_strides, FLAT, len(AXES))
    other_at = other + p * (other_row.to(tl.int64) * ALIGN)
    other_at += offset_of(e, sizes, other_strides, FLAT, len(AXES))
    x_step = x_plane.to(tl.int64) * ALIGN
    other_step = other_plane.to(tl.int64) * ALIGN
    owns = ()
    others = ()
    for k in tl.static_range(PLANES):
        ok = first + k < planes
        own = tl.load(x_at + (first + k) * x_step, mask=e < tl.where(ok, own_bound, 0), other=0)
        at = other_at + (first + k) * other_step
        owns = owns + (own,)
        others = others + (tl.load(at, mask=e < tl.where(ok, other_bound, 0), other=0),)

    # 4. Mix and write.
    out_step = out_plane.to(tl.int64) * ALIGN
    row_step = out_row.to(tl.int64) * ALIGN
    behind = tl.cast(B, tl.int64) if CLEAN else tl.cast(0, tl.int64)
    for k in tl.static_range(PLANES):
        bound = tl.where(first + k < planes, own_bound, 0)
        at = out_at + (first + k) * out_step
        if CLEAN:
            tl.store(at + i * row_step, owns[k], mask=e < bound)
        result = mixed(owns[k], others[k], i_alone, i0, i1, True, _BLEND)
        tl.store(at + (i + behind) * row_step, result, mask=e < bound)
        if PAIR:
            # The middle sample of an odd batch is its own partner: one store is enough.
            bound = tl.where(p != i, bound, 0)
            if CLEAN:
                tl.store(at + p * row_step, others[k], mask=e < bound)
            result = mixed(others[k], owns[k], p_alone, p0, p1, True, _BLEND)
            tl.store(at + (p + behind) * row_step, result, mask=e < bound)
