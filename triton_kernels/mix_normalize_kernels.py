"""The kernel of mix_normalize: flip, mix, normalise, erase, one rounding.

A program makes a block of pixels of one image, or in a flip of both partners, whose values it then
reads and normalises once for the two. It takes all channels where there are up to BY_VALUE, so that
positions, boxes and noise are worked out once for them. Where channels lie side by side in memory
(channels_last), they are read and written as one run, and pass through shared memory between runs
and planes. More channels: a program takes one of them, or a run of a result in channels_last.

Launch it with ``enable_fp_fusion=False``: contracted into a multiply-add, the blend would round
once where eager PyTorch rounds twice.
"""

import triton
import triton.language as tl

from ..codes import FLIP, SELF
from .common import HOST_BOX, NO_BOX, blend_of, partner_of, weighted
from .mix_normalize_memory import SAME, quotient, read, write
from .noise import noise_words, normal

BY_VALUE = 4  # up to so many channels have their constants as arguments, and one program
# What is done to values: nothing but normalised; mixed thereafter; mixed before.
PLAIN, AFTER, BEFORE = range(3)
# Kernels can name a global only if it is a constexpr.
_BY_VALUE, _SAME = tl.constexpr(BY_VALUE), tl.constexpr(SAME)
_PLAIN, _BEFORE = tl.constexpr(PLAIN), tl.constexpr(BEFORE)
_NO_BOX, _HOST_BOX = tl.constexpr(NO_BOX), tl.constexpr(HOST_BOX)
_FLIP, _SELF = tl.constexpr(FLIP), tl.constexpr(SELF)

# A new value of these arguments must not compile the kernel again.
CHANGING = ["blend_own", "blend_other", "box0", "box1", "box2", "B", "W"]


# ---------------------------------------------------------------- constants of channels


@triton.jit
def constants_kernel(constants, values, COUNT: tl.constexpr):
    """Write numbers that come as arguments to float32 [COUNT]: no copy from the host."""
    for k in tl.static_range(COUNT):
        tl.store(constants + k, tl.cast(values[k], tl.float32))


@triton.jit
def _constant(constants, k, C: tl.constexpr):
    """The constant of channel ``k``: an index of the arguments, or any of those in memory."""
    if C > _BY_VALUE:
        value = tl.load(constants + k)
    else:
        value = tl.cast(constants[k], tl.float32)
    return value


# ---------------------------------------------------------------- values


@triton.jit
def _bounds(
    i, box, box_row, box_col, packed, axis: tl.constexpr, D: tl.constexpr, BOX: tl.constexpr
):
    """Start and stop of the box of sample ``i`` along an axis."""
    if BOX == _HOST_BOX:
        both = tl.cast(packed[axis], tl.int64)
        start = (both & 0xFFFFFFFF).to(tl.int32)
        stop = (both >> 32).to(tl.int32)
    else:
        at = box + i * box_row
        start = tl.load(at + axis * box_col)
        stop = tl.load(at + (D + axis) * box_col)
    return start, stop


@triton.jit
def _in_box(i, c, y, x, box, box_row, box_col, packed, D: tl.constexpr, BOX: tl.constexpr):
    inside = x >= 0
    for axis in tl.static_range(D):
        start, stop = _bounds(i, box, box_row, box_col, packed, axis, D, BOX)
        if axis == D - 1:
            inside = inside & (x >= start) & (x < stop)
        elif axis == D - 2:
            inside = inside & (y >= start) & (y < stop)
        else:  # a condition of a number is made a block: the interpreter broadcasts no conditions
            inside = inside & (c + x * 0 >= start) & (c + x * 0 < stop)
    return inside


@triton.jit
def _value(
    own,
    other,
    i,
    w0,
    w1,
    at,
    box,
    box_row,
    box_col,
    packed,
    D: tl.constexpr,
    BOX: tl.constexpr,
    MODE: tl.constexpr,
    ROUNDS: tl.constexpr,
):
    """A channel of sample ``i`` by the rule of ``mix`` in float32, normalised where it was not."""
    c, y, x, m, s = at
    value = own
    if MODE != _PLAIN:
        value = weighted(w0, own) + weighted(w1, other)
        if ROUNDS:  # bytes are rounded to bytes
            # Adding 1.5·2^23 leaves no fraction bits, and the addition rounds half to even.
            value = tl.minimum(tl.maximum(value, 0.0), 255.0)
            value = (value + 12582912.0) - 12582912.0
        # Weights (1, 0) keep the bits of x, the sign of a zero included.
        value = tl.where((w0 == 1) & (w1 == 0), own, value)
        if BOX != _NO_BOX:
            inside = _in_box(i, c, y, x, box, box_row, box_col, packed, D, BOX)
            value = tl.where(inside, other, value)
    if MODE == _BEFORE:
        value = tl.div_rn(value - m, s)
    return value


@triton.jit
def _erased(
    results,
    i,
    place,
    y_first,  # rows of the block
    y_last,
    boxes,  # int32 [B, N, 4]
    value,  # float32 [B, N, C] of these strides, or None
    value_strides,
    key,  # int64 [B], or None
    N,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """``results`` with the boxes of sample ``i`` filled; most blocks are near none of them."""
    _, e, pixel, plane, y, x = place
    last = x.to(tl.int32) * 0 - 1  # the last box that holds a pixel
    near = tl.cast(0, tl.int32)
    at = boxes + i * N * 4
    n = tl.cast(0, tl.int32)
    while n < N:  # not range(): numpy's scalars break it in Triton's interpreter
        top = tl.load(at + 4 * n)
        left = tl.load(at + 4 * n + 1)
        bottom = tl.load(at + 4 * n + 2)
        right = tl.load(at + 4 * n + 3)
        last = tl.where((y >= top) & (y < bottom) & (x >= left) & (x < right), n, last)
        near += ((top <= y_last) & (bottom > y_first) & (left < right)).to(tl.int32)
        n += 1
    if near > 0:
        filled = ()
        if key is None:
            for k in tl.static_range(GROUP):
                c = e - pixel * C if ELEMENTS else plane + k
                of_box = i * value_strides[0] + last * value_strides[1] + c * value_strides[2]
                fill = tl.load(value + of_box, mask=last >= 0, other=0.0)
                filled = filled + (tl.where(last >= 0, fill.to(results[k].dtype), results[k]),)
        elif C > _BY_VALUE:
            c = (e - pixel * C if ELEMENTS else plane + e * 0).to(tl.int32)
            w0, w1, w2, w3 = noise_words(tl.load(key + i), pixel, c // 4)
            c = c % 4
            word = tl.where(c == 0, w0, tl.where(c == 1, w1, tl.where(c == 2, w2, w3)))
            filled = (tl.where(last >= 0, normal(word).to(results[0].dtype), results[0]),)
        else:
            words = noise_words(tl.load(key + i), pixel, 0)
            for k in tl.static_range(GROUP):
                fill = normal(words[k]).to(results[k].dtype)
                filled = filled + (tl.where(last >= 0, fill, results[k]),)
        results = filled
    return results


@triton.jit(do_not_specialize=CHANGING)
def normalize_kernel(
    out,  # [B, C, H, W]
    images,  # [B, C, H, W]
    mean,  # C numbers, or float32 [C] where there are more than BY_VALUE
    std,
    flip,  # uint8 [B], or None
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
    erase_box,  # int32 [B, N, 4], or None
    erase_value,  # float32 [B, N, C] of these strides, or None
    value_strides,
    erase_key,  # int64 [B], or None
    N,
    B,
    W,
    count,  # pixels of an image, or where OUT_ORDER is SAME, values
    out_row,
    in_row,
    out_strides,  # of channels, rows and columns
    in_strides,
    C: tl.constexpr,
    D: tl.constexpr,
    BOX: tl.constexpr,
    MODE: tl.constexpr,
    PAIRING: tl.constexpr,
    OUT_ORDER: tl.constexpr,
    IN_ORDER: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    ELEMENTS: tl.constexpr = OUT_ORDER == _SAME
    PLANES: tl.constexpr = C if C > _BY_VALUE and not ELEMENTS else 1
    GROUP: tl.constexpr = 1 if C > _BY_VALUE else C
    STEP: tl.constexpr = C if ELEMENTS else 1
    TURNS: tl.constexpr = flip is not None
    PAIR: tl.constexpr = PAIRING == _FLIP
    ALONE: tl.constexpr = PAIRING == _SELF
    ROUNDS: tl.constexpr = MODE == _BEFORE and images.dtype.element_ty == tl.uint8

    # 1. Which sample, and which of its pixels.
    pid = tl.program_id(0)
    if PAIR:
        blocks = tl.cdiv(count, BLOCK)
        row = pid // blocks
        block = pid % blocks
    else:
        # All samples of a block are neighbours in the grid: the partner is read from the cache.
        row = pid % (B * PLANES)
        block = pid // (B * PLANES)
    i = row // PLANES
    plane = row % PLANES
    p = partner_of(partner, partner_stride, i, B, PAIRING)
    if WIDE:
        block = block.to(tl.int64)
        plane = plane.to(tl.int64)
    e = block * BLOCK + tl.arange(0, BLOCK)
    pixel = quotient(e, STEP)
    y = quotient(pixel, W)
    x = pixel - y * W
    y_first = block * BLOCK // STEP // W
    y_last = (tl.minimum(block * BLOCK + BLOCK, count) - 1) // STEP // W
    packed = (box0, box1, box2)
    i0, i1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, i, B, tl.float32)
    p0 = i0
    p1 = i1
    if PAIR:
        p0, p1 = blend_of(blend, blend_row, blend_col, blend_own, blend_other, p, B, tl.float32)
    i = i.to(tl.int64)

    turned = (False, False)
    if TURNS:
        turned = (tl.load(flip + i) != 0, tl.load(flip + p) != 0)
    place = (block, e, pixel, plane, y, x)

    # 2. Read all channels before one is used: so many loads are in flight.
    bound = count
    if MODE != _PLAIN and not PAIR:
        needed = i1 != 0
        if BOX != _NO_BOX:
            if D > 1:
                start, stop = _bounds(i, box, box_row, box_col, packed, D - 2, D, BOX)
                needed = needed | ((start <= y_last) & (stop > y_first))
            else:
                needed = needed | (B > 0)
        # A bound, not a mask of conditions: that would break the 16-byte loads.
        bound = tl.where(needed, count, 0)
    own = read(
        *(images + i * in_row, count, turned[0], place, W, in_strides),
        *(C, GROUP, IN_ORDER, TURNS, ELEMENTS, BLOCK),
    )
    if ALONE:
        other = own
    else:
        other = read(
            *(images + p * in_row, bound, turned[1], place, W, in_strides),
            *(C, GROUP, IN_ORDER, TURNS, ELEMENTS, BLOCK),
        )

    # 3. Normalise and mix.
    boxes = (box, box_row, box_col, packed)
    i_results = ()
    p_results = ()
    for k in tl.static_range(GROUP):
        c = e - pixel * C if ELEMENTS else plane + k
        # No name is given to an index of arguments: in the interpreter it would become a block.
        m = _constant(mean, k if C <= _BY_VALUE else c, C)
        s = _constant(std, k if C <= _BY_VALUE else c, C)
        a = own[k].to(tl.float32)
        b = other[k].to(tl.float32)
        if MODE != _BEFORE:
            a = tl.div_rn(a - m, s)
            b = tl.div_rn(b - m, s)
        at = (c, y, x, m, s)
        i_value = _value(a, b, i, i0, i1, at, *boxes, D, BOX, MODE, ROUNDS)
        i_results = i_results + (i_value.to(out.dtype.element_ty),)
        if PAIR:
            p_value = _value(b, a, p, p0, p1, at, *boxes, D, BOX, MODE, ROUNDS)
            p_results = p_results + (p_value.to(out.dtype.element_ty),)

    # 4. Erase and write.
    erasing = (erase_box, erase_value, value_strides, erase_key, N)
    if erase_box is not None:
        i_results = _erased(i_results, i, place, y_first, y_last, *erasing, C, GROUP, ELEMENTS)
    write(out + i * out_row, i_results, count, place, out_strides, C, GROUP, OUT_ORDER, BLOCK)
    if PAIR:
        if erase_box is not None:
            p_results = _erased(p_results, p, place, y_first, y_last, *erasing, C, GROUP, ELEMENTS)
        # The middle sample of an odd batch is its own partner: one store is enough.
        bound = tl.where(p != i, count, 0)
        write(out + p * out_row, p_results, bound, place, out_strides, C, GROUP, OUT_ORDER, BLOCK)
