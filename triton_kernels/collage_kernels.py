"""The kernels of mix_rectangles and mix_patches.

A program takes a block of elements of one sample, counted line by line in the result: planes, rows,
pixels, and with channels last the channels of a pixel. Launch them with ``enable_fp_fusion=False``:
indices and values are rounded operation by operation.
"""

import triton
import triton.language as tl

from ..codes import RAW, RESIZE_ALIGNED, RESIZE_BILINEAR
from .common import arithmetic, offset_of, weighted

# Kernels can name a global only if it is a constexpr.
_RAW, _BILINEAR, _ALIGNED = map(tl.constexpr, (RAW, RESIZE_BILINEAR, RESIZE_ALIGNED))


@triton.jit
def rounded(value, dtype: tl.constexpr):
    if dtype == tl.uint8:
        # Adding 1.5·2^23 leaves no fraction bits, and the addition rounds half to even.
        value = tl.minimum(tl.maximum(value, 0.0), 255.0)
        value = (value + 12582912.0) - 12582912.0
    return value.to(dtype)


@triton.jit
def places(height, line, inner, chunks, BLOCK: tl.constexpr):
    """Of a program: its sample; of each of its elements the plane, row, column and channel."""
    pid = tl.program_id(0)
    i = (pid // chunks).to(tl.int64)
    at = (pid % chunks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = at // line
    element = at - row * line
    plane = row // height
    x = element // inner
    return i, plane, row - plane * height, x, element - x * inner


@triton.jit
def axis_taps(
    p,  # coordinates in the result
    box,  # of the rectangle: this axis' start lies here, its stop two further
    source_box,
    step,  # likewise, or None
    extent,
    RESAMPLE: tl.constexpr,
):
    """Whether the rectangle covers p; the two coordinates of its source, the second's weight."""
    start = tl.load(box).to(tl.int64)
    size = tl.load(box + 2).to(tl.int64) - start
    first = tl.load(source_box).to(tl.int64)
    source_size = tl.load(source_box + 2).to(tl.int64) - first
    at = p - start
    inside = (at >= 0) & (at < size) & (source_size + 0 * p > 0)
    at = tl.maximum(at, 0)
    most = tl.maximum(source_size - 1, 0) + 0 * p
    if RESAMPLE == _RAW:
        low = tl.minimum(at, most)
        share = tl.zeros_like(p).to(tl.float32)
    else:
        limit = most.to(tl.float32)
        if RESAMPLE == _ALIGNED:
            steps = tl.maximum(size - 1, 1) + 0 * p
            ratio = tl.div_rn(limit, steps.to(tl.float32))
            ratio = tl.where(size + 0 * p > 1, ratio, 0.0)
        elif step is not None:
            ratio = tl.load(step) + tl.zeros_like(p).to(tl.float32)
        else:
            whole = tl.maximum(size, 1) + 0 * p
            ratio = tl.div_rn((source_size + 0 * p).to(tl.float32), whole.to(tl.float32))
        if RESAMPLE == _BILINEAR:
            position = (at.to(tl.float32) + 0.5) * ratio - 0.5
        else:
            position = at.to(tl.float32) * ratio
        position = tl.where(position > 0, position, 0.0)  # not a NaN
        low = tl.where(position < limit, position, limit).to(tl.int64)
        low = tl.minimum(low, most)
        share = position - low.to(tl.float32)
        share = tl.where(share < 0, 0.0, tl.where(share > 1, 1.0, share))
    high = tl.minimum(low + 1, most)
    low = tl.minimum(tl.maximum(low + first, 0), extent - 1)
    high = tl.minimum(tl.maximum(high + first, 0), extent - 1)
    return inside, low, high, share


@triton.jit(do_not_specialize=["fill"])
def rectangles_kernel(
    out,  # [B, …, H', W']
    own,  # [B, …, H, W], or None for the fill
    images,  # [M, …, H, W]
    source,  # int32 [B, R]
    source_box,  # int32 [B, R, 4]
    box,  # int32 [B, R, 4]
    scale,  # float32 [B, R, 2], or None
    fill: tl.int64,  # the bits of an element
    M,
    planes,
    height,
    line,  # elements
    inner,
    chunks,
    extent_y,
    extent_x,
    sizes,  # of the planes' dims, from the innermost outwards
    out_planes,
    own_planes,
    image_planes,
    out_strides,  # sample, row, column
    own_strides,
    image_strides,
    R: tl.constexpr,
    RESAMPLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = out.dtype.element_ty
    acc: tl.constexpr = arithmetic(dtype)
    i, plane, y, x, channel = places(height, line, inner, chunks, BLOCK)
    there = plane < planes
    if own is None:
        word: tl.constexpr = tl.core.get_int_dtype(dtype.primitive_bitwidth, True)
        bits = tl.full([BLOCK], 0, tl.int64) + fill
        value = bits.to(word).to(dtype, bitcast=True)
    else:
        at = offset_of(plane, sizes, own_planes, False, len(sizes))
        at += i * own_strides[0] + y * own_strides[1] + x * own_strides[2] + channel
        value = tl.load(own + at, mask=there, other=0)
    start = offset_of(plane, sizes, image_planes, False, len(sizes)) + channel
    for r in tl.static_range(R):
        k = i * R + r
        step_y = None if scale is None else scale + 2 * k
        step_x = None if scale is None else scale + 2 * k + 1
        corner, part = box + 4 * k, source_box + 4 * k
        down, top, bottom, low = axis_taps(y, corner, part, step_y, extent_y, RESAMPLE)
        across, left, right, along = axis_taps(x, corner + 1, part + 1, step_x, extent_x, RESAMPLE)
        inside = there & down & across
        image = tl.minimum(tl.maximum(tl.load(source + k), 0), M - 1).to(tl.int64)
        at = images + image * image_strides[0] + start
        upper = at + top * image_strides[1]
        shown = tl.load(upper + left * image_strides[2], mask=inside, other=0)
        if RESAMPLE >= _BILINEAR:
            lower = at + bottom * image_strides[1]
            w1 = along.to(acc)
            w0 = (1.0 - along).to(acc)
            beside = tl.load(upper + right * image_strides[2], mask=inside, other=0)
            first = weighted(w0, shown.to(acc)) + weighted(w1, beside.to(acc))
            shown = tl.load(lower + left * image_strides[2], mask=inside, other=0)
            beside = tl.load(lower + right * image_strides[2], mask=inside, other=0)
            second = weighted(w0, shown.to(acc)) + weighted(w1, beside.to(acc))
            first = weighted((1.0 - low).to(acc), first) + weighted(low.to(acc), second)
            shown = rounded(first, dtype)
        value = tl.where(inside, shown, value)
    at = offset_of(plane, sizes, out_planes, False, len(sizes))
    at += i * out_strides[0] + y * out_strides[1] + x * out_strides[2] + channel
    tl.store(out + at, value, mask=there)


@triton.jit
def patch_values(
    src,
    sample,
    index,
    rows,
    columns,
    i,
    y,
    x,
    rest,  # offset of plane and channel
    there,
    B,
    height,
    width,
    strides,
    EACH: tl.constexpr,
):
    """The values of one side; zeros where it shows none."""
    ph = height // rows
    pw = width // columns
    row = y // ph
    column = x // pw
    j = row * columns + column
    cell = i * rows * columns + j
    shown = there
    from_y = y
    from_x = x
    image = i + 0 * y
    if sample is not None:
        image = tl.load(sample + (cell if EACH else image), mask=there, other=0).to(tl.int64)
        image = tl.minimum(tl.maximum(image, 0), B - 1)
    if index is not None:
        patch = tl.load(index + cell, mask=there, other=0).to(tl.int64)
        shown = there & (patch >= 0)
        patch = tl.minimum(tl.maximum(patch, 0), rows * columns - 1)
        from_y += (patch // columns - row) * ph
        from_x += (patch % columns - column) * pw
    at = image * strides[0] + from_y * strides[1] + from_x * strides[2] + rest
    return tl.load(src + at, mask=shown, other=0)


@triton.jit
def patches_kernel(
    out,  # [B, …, H, W]
    src,
    sample,  # int32 [B] or [B, rows, columns], or None
    index,  # int32 [B, rows, columns], or None
    partner,
    partner_index,
    mask,  # float32 [B, mask_rows, mask_columns], or None
    B,
    planes,
    height,
    width,
    inner,
    chunks,
    rows,
    columns,
    partner_rows,
    partner_columns,
    mask_rows,
    mask_columns,
    sizes,
    out_planes,
    src_planes,
    out_strides,
    src_strides,
    EACH: tl.constexpr,
    PARTNER_EACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = out.dtype.element_ty
    i, plane, y, x, channel = places(height, width * inner, inner, chunks, BLOCK)
    there = plane < planes
    rest = offset_of(plane, sizes, src_planes, False, len(sizes)) + channel
    value = patch_values(
        src, sample, index, rows, columns, i, y, x, rest, there, B, height, width, src_strides, EACH
    )
    if mask is not None:
        acc: tl.constexpr = arithmetic(dtype)
        other = patch_values(
            src, partner, partner_index, partner_rows, partner_columns, i, y, x, rest, there, B,
            height, width, src_strides, PARTNER_EACH,
        )  # fmt: skip
        cell = (i * mask_rows + y // (height // mask_rows)) * mask_columns
        m = tl.load(mask + cell + x // (width // mask_columns), mask=there, other=0)
        w0, w1 = m.to(acc), (1.0 - m).to(acc)
        blended = rounded(weighted(w0, value.to(acc)) + weighted(w1, other.to(acc)), dtype)
        # m = 1 keeps the bits of one side, m = 0 those of the other.
        value = tl.where(m == 1.0, value, tl.where(m == 0.0, other, blended))
    at = offset_of(plane, sizes, out_planes, False, len(sizes))
    at += i * out_strides[0] + y * out_strides[1] + x * out_strides[2] + channel
    tl.store(out + at, value, mask=there)
