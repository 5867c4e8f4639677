"""The kernels of mix_ring.py: a program walks blocks that a ring of bulk copies brings.

The loop is pipelined by the compiler: it asks for the blocks of later turns before it computes on
this one's. What lies past the end of a sample or of the batch reads as zero and is not written.

Launch them with ``enable_fp_fusion=False``, as those of mix_kernels.py.
"""

import triton
import triton.language as tl

from .common import NO_BOX, arithmetic, blend_of, elements_of, in_box, partner_of
from .mix_kernels import BLEND, CHANGING, mixed

# Kernels can name a global only if it is a constexpr.
_BLEND, _NO_BOX = tl.constexpr(BLEND), tl.constexpr(NO_BOX)


@triton.jit(do_not_specialize=CHANGING)
def ring_pair_kernel(
    dst,  # descriptor of [B, numel] with blocks [1, BLOCK]
    src,  # the same, of dst's memory or another
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
    sizes,
    groups,
    AXES: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
):
    # A flip: a program owns the same blocks of both partners, as in pair_kernel.
    dtype: tl.constexpr = src.dtype
    acc: tl.constexpr = arithmetic(dtype)
    blocks = tl.cdiv(elements_of(units, ALIGN, False), BLOCK)
    pairs = (B + 1) // 2
    for step in tl.range(0, STEPS, num_stages=STAGES):
        turn = tl.program_id(0) * STEPS + step
        i = tl.minimum(turn // blocks, pairs - 1)
        p = B - 1 - i
        # Turns past the last pair go past the end of a sample: another program writes its blocks.
        first = tl.where(turn < pairs * blocks, turn % blocks, blocks) * BLOCK
        own = src.load([i, first]).reshape(BLOCK)
        other = src.load([p, first]).reshape(BLOCK)
        i0, i1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, i, B, acc)
        p0, p1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, p, B, acc)
        e = first + tl.arange(0, BLOCK)
        i_inside = e >= 0
        p_inside = i_inside
        if BOX != _NO_BOX:
            i_inside = in_box(
                e, i, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
            )
            p_inside = in_box(
                e, p, B, box, box_row, box_col, box0, box1, box2, sizes, groups, AXES, D, BOX
            )
        i_result = mixed(own, other, i_inside, i0, i1, BOX, _BLEND)
        p_result = mixed(other, own, p_inside, p0, p1, BOX, _BLEND)
        # The middle sample of an odd batch is written twice, with the same bits.
        dst.store([i, first], i_result.reshape(1, BLOCK))
        dst.store([p, first], p_result.reshape(1, BLOCK))


@triton.jit
def _half(words, shift: tl.constexpr, HALF: tl.constexpr):
    return (words >> shift).to(tl.int16).to(HALF, bitcast=True)


@triton.jit
def _bits(values):
    return values.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF


@triton.jit(do_not_specialize=CHANGING)
def ring_tile_kernel(
    x,  # descriptor of [B, words] with blocks [ROWS, COLS]; B is at most ROWS
    partner,
    partner_stride,
    blend,
    blend_row,
    blend_col,
    blend_own: tl.int64,
    blend_other: tl.int64,
    B,
    PAIRING: tl.constexpr,
    HALF: tl.constexpr,  # the half type that fills a word twice, or None: a word is a value
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
):
    # A tile holds all samples of its columns, so a partner comes from the tile: each element is
    # read once, and no other program's writes matter. The gather moves one word at a time through
    # shared memory, so half types go by pairs.
    acc: tl.constexpr = arithmetic(x.dtype)
    rows = tl.arange(0, ROWS)[:, None]
    p = partner_of(partner, partner_stride, rows, B, PAIRING).to(tl.int32)
    w0, w1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, rows, B, acc)
    w0 = tl.broadcast_to(w0, (ROWS, 1))
    w1 = tl.broadcast_to(w1, (ROWS, 1))
    for step in tl.range(0, STEPS, num_stages=STAGES):
        first = (tl.program_id(0) * STEPS + step) * COLS
        own = x.load([0, first])
        other = tl.gather(own, tl.broadcast_to(p, (ROWS, COLS)), 0)
        if HALF is None:
            result = mixed(own, other, rows < B, w0, w1, _NO_BOX, _BLEND)
        else:
            low = _half(own, 0, HALF), _half(other, 0, HALF)
            high = _half(own, 16, HALF), _half(other, 16, HALF)
            low = mixed(low[0], low[1], rows < B, w0, w1, _NO_BOX, _BLEND)
            high = mixed(high[0], high[1], rows < B, w0, w1, _NO_BOX, _BLEND)
            result = _bits(low) | (_bits(high) << 16)
        x.store([0, first], result)
