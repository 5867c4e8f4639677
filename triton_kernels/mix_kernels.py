"""The kernels of mix_, mix, mix_out and paste_: pairs of partners, and tiles of many samples.

Each program owns a block of elements. In a flip two samples are each other's partner, so a program
owns the same block of both (one read, one write per element). Any other pairing takes tiles of
several samples. In place, a tile holds all samples of its columns and reads them before it writes.

Launch them with ``enable_fp_fusion=False``: contracted into a multiply-add, the blend would round
once where eager PyTorch rounds twice.
"""

import triton
import triton.language as tl

from ..codes import FLIP
from .common import (
    NO_BOX,
    arithmetic,
    blend_of,
    elements_of,
    in_box,
    offset_of,
    partner_of,
    weighted,
)

# What a launch writes: the whole rule; the partner everywhere; the partner in the box alone.
BLEND, COPY, PASTE = range(3)
# Kernels can name a global only if it is a constexpr.
_BLEND, _PASTE = tl.constexpr(BLEND), tl.constexpr(PASTE)
_FLIP, _NO_BOX = tl.constexpr(FLIP), tl.constexpr(NO_BOX)

# A new value of these arguments must not compile a kernel again.
CHANGING = [
    "blend_own",
    "blend_other",
    "box0",
    "box1",
    "box2",
    "B",
    "units",
    "dst_row",
    "src_row",
    "first",
]


@triton.jit
def mixed(own, other, inside, w0, w1, BOX: tl.constexpr, MODE: tl.constexpr):
    """The rule for one block; the result has the dtype of ``own``."""
    dtype: tl.constexpr = own.dtype
    if MODE == _BLEND:
        acc: tl.constexpr = arithmetic(dtype)
        value = weighted(w0, own.to(acc)) + weighted(w1, other.to(acc))
        if dtype == tl.uint8:
            # Adding 1.5·2^23 leaves no fraction bits, and the addition rounds half to even.
            value = tl.minimum(tl.maximum(value, 0.0), 255.0)
            value = (value + 12582912.0) - 12582912.0
        # Weights (1, 0) keep the bits of x, the sign of a zero included.
        result = tl.where((w0 == 1) & (w1 == 0), own, value.to(dtype))
        if BOX != _NO_BOX:
            result = tl.where(inside, other, result)
    else:
        result = other
    return result


@triton.jit(do_not_specialize=CHANGING)
def pair_kernel(
    dst,  # [B, …]
    src,  # [B, …]; may be dst
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
    B,
    units,  # elements of a sample and row strides, in units of ALIGN
    dst_row,
    src_row,
    sizes,
    groups,
    dst_strides,
    src_strides,
    AXES: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
    MODE: tl.constexpr,
    IN_PLACE: tl.constexpr,
    FLAT: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    PAIRING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # One program owns the same block of both partners, so in place nothing else touches them.
    numel = elements_of(units, ALIGN, WIDE)
    blocks = tl.cdiv(numel, BLOCK)
    pid = tl.program_id(0)
    i = pid // blocks
    p = B - 1 - i if PAIRING == _FLIP else i
    e = pid % blocks
    if WIDE:
        e = e.to(tl.int64)
    e = e * BLOCK + tl.arange(0, BLOCK)
    valid = e < numel

    acc: tl.constexpr = arithmetic(dst.dtype.element_ty)
    i0, i1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, i, B, acc)
    p0, p1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, p, B, acc)
    i_inside = valid
    p_inside = valid
    i_valid = valid
    p_valid = valid
    if BOX != _NO_BOX:
        i_inside = valid & in_box(
            e, i, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
        )
        p_inside = valid & in_box(
            e, p, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
        )
    if MODE == _PASTE:
        i_valid = i_inside
        p_valid = p_inside
    elif MODE == _BLEND and IN_PLACE:
        # Skip a block that stays as it is. The bound is one for the whole block: masks that
        # differ between elements would break the 16-byte accesses.
        busy = (i0 != 1) | (i1 != 0) | (p0 != 1) | (p1 != 0)
        if BOX != _NO_BOX:
            busy = busy | (tl.max((i_inside | p_inside).to(tl.int32), 0) > 0)
        i_valid = e < tl.where(busy, numel, 0)
        p_valid = i_valid
    # Without a box no load waits for the weights: rows that stay are rare, and read for nothing.
    read = i_valid | p_valid
    if BOX == _NO_BOX and blend is not None:
        read = valid

    dst_at = dst + offset_of(e, sizes, dst_strides, FLAT, len(AXES))
    src_at = src + offset_of(e, sizes, src_strides, FLAT, len(AXES))
    dst_step = dst_row.to(tl.int64) * ALIGN
    src_step = src_row.to(tl.int64) * ALIGN
    i = i.to(tl.int64)
    p = p.to(tl.int64)
    own = tl.load(src_at + i * src_step, mask=read, other=0)
    if PAIRING == _FLIP:
        other = tl.load(src_at + p * src_step, mask=read, other=0)
        # The middle sample of an odd batch is its own partner: one store is enough.
        p_result = mixed(other, own, p_inside, p0, p1, BOX, MODE)
        # A bound again, and no scalar in the mask: Triton 3.9 interprets such a mask as integers.
        p_bound = tl.where(p != i, numel, 0)
        tl.store(dst_at + p * dst_step, p_result, mask=p_valid & (e < p_bound))
    else:
        other = own
    tl.store(dst_at + i * dst_step, mixed(own, other, i_inside, i0, i1, BOX, MODE), mask=i_valid)


@triton.jit(do_not_specialize=CHANGING)
def tile_kernel(
    dst,
    src,
    partner,  # int32 [B], or None where PAIRING is a rule
    partner_stride,
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
    first,  # element of the sample at which the launch starts; a local side counts from there
    sizes,
    groups,
    dst_strides,
    src_strides,
    AXES: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
    MODE: tl.constexpr,
    IN_PLACE: tl.constexpr,
    FLAT: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    PAIRING: tl.constexpr,
    DST_LOCAL: tl.constexpr,
    SRC_LOCAL: tl.constexpr,
    BARRIER: tl.constexpr,
    WAIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    # All samples of a column are neighbours in the grid, so the partner is read from the cache.
    numel = elements_of(units, ALIGN, WIDE)
    row_blocks = tl.cdiv(B, ROWS)
    pid = tl.program_id(0)
    rows = (pid % row_blocks) * ROWS + tl.arange(0, ROWS)[:, None]
    e = pid // row_blocks
    if WIDE:
        e = e.to(tl.int64)
    local = e * COLS + tl.arange(0, COLS)[None, :]
    e = local + elements_of(first, ALIGN, WIDE)
    valid = (rows < B) & (local < numel)
    p = partner_of(partner, partner_stride, rows, B, PAIRING)

    acc: tl.constexpr = arithmetic(dst.dtype.element_ty)
    w0, w1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, rows, B, acc)
    w0 = tl.broadcast_to(w0, (ROWS, 1))
    w1 = tl.broadcast_to(w1, (ROWS, 1))
    changed = valid
    if BOX != _NO_BOX:
        inside = in_box(
            e, rows, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
        )
    else:
        inside = valid
    if MODE == _PASTE:
        changed = valid & inside
    elif MODE == _BLEND:
        changed = (w0 != 1) | (w1 != 0)
        if BOX != _NO_BOX:
            changed = changed | inside
        changed = changed & valid

    if SRC_LOCAL:
        src_at = src + local.to(tl.int64)
    else:
        src_at = src + offset_of(e, sizes, src_strides, FLAT, len(AXES))
    if DST_LOCAL:
        dst_at = dst + local.to(tl.int64)
    else:
        dst_at = dst + offset_of(e, sizes, dst_strides, FLAT, len(AXES))
    src_step = src_row.to(tl.int64) * ALIGN
    dst_step = dst_row.to(tl.int64) * ALIGN
    stored = changed if IN_PLACE else valid
    read = stored
    # Without a box no load waits for the weights. Doubles, and columns of more than 4096 samples,
    # have no registers for that: one program less would fit, or values spill.
    if BOX == _NO_BOX and blend is not None and acc == tl.float32 and ROWS <= 4096:
        changed = valid
        read = valid
    # A row past the end of the batch has a partner past it too: the mask keeps both unread.
    other = tl.load(src_at + p * src_step, mask=changed, other=0)
    if MODE == _BLEND:
        own = tl.load(src_at + rows.to(tl.int64) * src_step, mask=read, other=0)
    else:
        own = other
    result = mixed(own, other, inside, w0, w1, BOX, MODE)
    if BARRIER:
        # In place, a row is read by its own threads and by those of the rows whose partner it is. A
        # thread that stored before all had loaded would give them mixed values.
        if WAIT != "":
            # AMD's barrier does not wait for loads in flight: they have to arrive first.
            tl.inline_asm_elementwise(
                WAIT, "=v,v,~{memory}", [rows], dtype=tl.int32, is_pure=False, pack=1
            )
        tl.debug_barrier()
    tl.store(dst_at + rows.to(tl.int64) * dst_step, result, mask=stored)
