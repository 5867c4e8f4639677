"""The bounding boxes that a mixed batch shows: mix_boxes.

A program takes one sample: a block of boxes at a time, its own first, then its partner's. A prefix
sum over the block tells each box that stays where it is written. Each product, difference and
quotient is rounded by itself, so that the bits are those of the reference.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..op_checks import check_mix_boxes
from . import common
from .common import blend_args, blend_of, float_bits, host_row, partner_args, partner_of


@triton.jit
def larger(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def smaller(a, b):
    return tl.where(a < b, a, b)


@triton.jit
def quotient(a, b):
    if a.dtype == tl.float32:
        result = tl.div_rn(a, b)  # a plain division is approximate
    else:
        result = a / b
    return result


@triton.jit
def area_of(x1, y1, x2, y2):
    w = x2 - x1
    h = y2 - y1
    return tl.where((w > 0) & (h > 0), w * h, 0.0)


@triton.jit
def corner(at, there, k: tl.constexpr):
    return tl.load(at + k, mask=there, other=0)


@triton.jit
def put(out, source, weight, at, stays, x1, y1, x2, y2, from_, w):
    """Write what stays; places of boxes and weights alike."""
    tl.store(out + 4 * at, x1, mask=stays)
    tl.store(out + 4 * at + 1, y1, mask=stays)
    tl.store(out + 4 * at + 2, x2, mask=stays)
    tl.store(out + 4 * at + 3, y2, mask=stays)
    tl.store(source + at, from_, mask=stays)
    tl.store(weight + at, w.to(tl.float32), mask=stays)


@triton.jit(do_not_specialize=["own_bits", "other_bits", "share_bits", "B", "N"])
def boxes_kernel(
    out,  # [B, 2 N, 4]
    source,  # int32 [B, 2 N]
    weight,  # float32 [B, 2 N]
    left,  # int32 [B]
    boxes,  # [B, N, 4], contiguous
    count,  # [B], or None for N
    partner,
    partner_stride,
    blend,
    blend_row,
    blend_col,
    own_bits,
    other_bits,
    box,  # int32 [B, 4] of these strides, or None for none
    box_row,
    box_col,
    share_bits,
    B,
    N,
    PAIRING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    acc: tl.constexpr = out.dtype.element_ty
    i = tl.program_id(0)
    p = partner_of(partner, partner_stride, i, B, PAIRING)
    i = i.to(tl.int64)
    k = tl.arange(0, BLOCK)
    # Conditions of a sample are made as blocks: the interpreter turns those of scalars into numbers
    # where it broadcasts them.
    itself = p + k * 0 == i
    b0, b1 = blend_of(blend, blend_row, blend_col, own_bits, other_bits, i, B, acc)
    shows_own = b0 + tl.zeros([BLOCK], dtype=acc) != 0
    whole = b1 + tl.zeros([BLOCK], dtype=acc) != 0
    least = tl.cast(share_bits, tl.int64).to(tl.float64, bitcast=True).to(acc)
    if box is None:
        has_cut = k < 0
        cy1 = tl.cast(0, acc)
        cx1 = cy1
        cy2 = cy1
        cx2 = cy1
    else:
        # No name of the loops below: a loop keeps the type of a name that it changes.
        top_at = box + i * box_row
        top = tl.load(top_at)
        left_side = tl.load(top_at + box_col)
        bottom = tl.load(top_at + 2 * box_col)
        right_side = tl.load(top_at + 3 * box_col)
        has_cut = (bottom + k * 0 > top) & (right_side + k * 0 > left_side)
        cy1 = top.to(acc)
        cx1 = left_side.to(acc)
        cy2 = bottom.to(acc)
        cx2 = right_side.to(acc)
    n_own = tl.cast(N, tl.int64)
    n_other = n_own
    if count is not None:
        n_own = tl.minimum(tl.maximum(tl.load(count + i).to(tl.int64), 0), n_own)
        n_other = tl.minimum(tl.maximum(tl.load(count + p).to(tl.int64), 0), n_other)
    n_other = tl.where(p == i, 0, n_other)
    out += i * N * 8
    source += i * N * 2
    weight += i * N * 2
    done = tl.cast(0, tl.int64)
    first = tl.cast(0, tl.int64)
    while first < N:
        there = first + k < n_own
        at = boxes + (i * N + first + k) * 4
        x1 = corner(at, there, 0)
        y1 = corner(at, there, 1)
        x2 = corner(at, there, 2)
        y2 = corner(at, there, 3)
        area = area_of(x1, y1, x2, y2)
        inside = area_of(larger(x1, cx1), larger(y1, cy1), smaller(x2, cx2), smaller(y2, cy2))
        inside = tl.where(has_cut, inside, 0.0)
        covered = has_cut & (x1 >= cx1) & (x2 <= cx2) & (y1 >= cy1) & (y2 <= cy2)
        has_area = area > 0
        share = quotient(area - inside, tl.where(has_area, area, 1.0))
        share = tl.where(has_area, share, tl.where(covered, 0.0, 1.0))
        seen = shows_own & (share >= least) & (share > 0)
        stays = there & (itself | seen)
        shrinks = has_area & has_cut & (itself == 0)
        to_left = cx1 <= x1
        to_right = cx2 >= x2
        to_top = cy1 <= y1
        to_bottom = cy2 >= y2
        across = shrinks & to_top & to_bottom
        along = shrinks & to_left & to_right
        x1 = tl.where(across & to_left, larger(x1, cx2), x1)
        x2 = tl.where(across & to_right & (to_left == 0), smaller(x2, cx1), x2)
        y1 = tl.where(along & to_top, larger(y1, cy2), y1)
        y2 = tl.where(along & to_bottom & (to_top == 0), smaller(y2, cy1), y2)
        w = tl.where(itself, 1.0, b0) + tl.zeros_like(x1)
        one = stays.to(tl.int32)
        place = done + tl.cumsum(one, 0) - one
        put(out, source, weight, place, stays, x1, y1, x2, y2, (first + k).to(tl.int32), w)
        done += tl.sum(one, 0)
        first += BLOCK
    first = tl.cast(0, tl.int64)
    while first < N:
        there = first + k < n_other
        at = boxes + (p * N + first + k) * 4
        x1 = corner(at, there, 0)
        y1 = corner(at, there, 1)
        x2 = corner(at, there, 2)
        y2 = corner(at, there, 3)
        area = area_of(x1, y1, x2, y2)
        left_x = larger(x1, cx1)
        left_y = larger(y1, cy1)
        right_x = smaller(x2, cx2)
        right_y = smaller(y2, cy2)
        inside = tl.where(has_cut, area_of(left_x, left_y, right_x, right_y), 0.0)
        covered = has_cut & (x1 >= cx1) & (x2 <= cx2) & (y1 >= cy1) & (y2 <= cy2)
        has_area = area > 0
        share = quotient(inside, tl.where(has_area, area, 1.0))
        share = tl.where(has_area, share, tl.where(covered, 1.0, 0.0))
        stays = there & (whole | ((share >= least) & (share > 0)))
        w = tl.where(whole, share + (1.0 - share) * b1, 1.0)
        x1 = tl.where(whole, x1, left_x)
        y1 = tl.where(whole, y1, left_y)
        x2 = tl.where(whole, x2, right_x)
        y2 = tl.where(whole, y2, right_y)
        one = stays.to(tl.int32)
        place = done + tl.cumsum(one, 0) - one
        put(out, source, weight, place, stays, x1, y1, x2, y2, (N + first + k).to(tl.int32), w)
        done += tl.sum(one, 0)
        first += BLOCK
    tl.store(left + i, done.to(tl.int32))
    first = tl.cast(0, tl.int64)
    while first < 2 * N:
        place = first + k
        behind = (place >= done) & (place < 2 * N)
        none = tl.zeros([BLOCK], dtype=acc)
        put(out, source, weight, place, behind, none, none, none, none, k * 0 - 1, none)
        first += BLOCK


def mix_boxes(
    boxes: Tensor,
    count: Tensor | None,
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    min_visible: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_mix_boxes(boxes, 3, count, pairing, partner, blend, box, boxes.shape[0])
    batch, most = boxes.shape[:2]
    room = batch, 2 * most
    out = boxes.new_empty((*room, 4))
    source = boxes.new_empty(room, dtype=torch.int32)
    weight = boxes.new_empty(room, dtype=torch.float32)
    left = boxes.new_empty((batch,), dtype=torch.int32)
    box = box.to(boxes.device)  # a few integers
    boxes_of = (box, *box.stride()) if box.shape[1] else (None, 0, 0)
    common.launch(
        boxes_kernel,
        batch,
        boxes.device,
        *(out, source, weight, left, boxes.contiguous()),
        None if count is None else count.contiguous(),
        *partner_args(partner),
        *blend_args(blend, host_row(blend)),
        *(*boxes_of, float_bits(min_visible), batch, most),
        PAIRING=pairing,
        BLOCK=max(16, min(triton.next_power_of_2(max(most, 1)), 128)),
        enable_fp_fusion=False,  # each product and difference is rounded by itself
    )
    return out, source, weight, left
