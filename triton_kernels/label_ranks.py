"""Ranks of labels among the logits of their row: label_ranks.

    rank of y = #{c: z_c > z_y} + #{c < y: z_c = z_y}

This is the order of torch.topk: a label is among the top k where its rank is less than k. A NaN is
ahead of all; a label whose own logit is NaN, or which lies outside [0, K), has rank K. One sweep
serves both labels: each logit is read once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..op_checks import check_ranks
from . import common
from .common import arithmetic
from .configs import config
from .rows import (
    CHANGING,
    at_classes,
    at_labels,
    program_rows,
    row_pointers,
    rows_of,
    tile_classes,
)


@triton.jit
def count_ahead(z, k, own, y):
    """How many logits of a tile [U, KW, SB] stand before those of the labels [SB]; [KW, SB].

    Beyond the last class a tile holds -inf, which is ahead of nothing but a NaN.
    """
    own = own[None, None, :]
    behind = tl.where(k < y[None, None, :].to(tl.int32), z < own, z <= own)  # a NaN never is
    return tl.sum((~behind).to(tl.int32), 0)


@triton.jit
def rank_of(counts, own, y, K):
    """The rank from its counts [KW, SB]; K where ``own`` is NaN or ``y`` outside [0, K)."""
    return tl.where((own == own) & (y >= 0) & (y < K), tl.sum(counts, 0), K)


@triton.jit(do_not_specialize=CHANGING)
def ranks_kernel(
    ranks,  # int32 [1 or 2, R]
    logits,
    labels,  # int64 [R]
    partner_labels,  # int64 [R] or None
    R,
    per_sample,
    k_units,
    i_units,
    sizes,
    z_strides,
    CLASS_FAST: tl.constexpr,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    U: tl.constexpr,
    KW: tl.constexpr,
    SB: tl.constexpr,
):
    acc: tl.constexpr = arithmetic(logits.dtype.element_ty)
    K = k_units * ALIGN if CLASS_FAST else k_units
    outer, i, rows, ok = program_rows(tl.program_id(0), i_units, CLASS_FAST, ALIGN, WIDE, SB)
    z_rows = row_pointers(logits, z_strides, outer, i, sizes, CLASS_FAST, ALIGN)
    y0 = tl.load(labels + rows, mask=ok, other=0)
    z0 = at_labels(z_rows, z_strides, y0, K, ok, CLASS_FAST, ALIGN).to(acc)
    if partner_labels is not None:
        y1 = tl.load(partner_labels + rows, mask=ok, other=0)
        z1 = at_labels(z_rows, z_strides, y1, K, ok, CLASS_FAST, ALIGN).to(acc)
    ahead0 = tl.zeros((KW, SB), tl.int32)
    ahead1 = tl.zeros((KW, SB), tl.int32)
    start = K * 0
    while start < K:
        k = start + tile_classes(U, KW)
        valid = (k < K) & ok[None, None, :]
        z_at = at_classes(z_rows, z_strides, k, CLASS_FAST, ALIGN)
        z = tl.load(z_at, mask=valid, other=float("-inf")).to(acc)
        ahead0 += count_ahead(z, k, z0, y0)
        if partner_labels is not None:
            ahead1 += count_ahead(z, k, z1, y1)
        start += U * KW
    tl.store(ranks + rows, rank_of(ahead0, z0, y0, K), mask=ok)
    if partner_labels is not None:
        tl.store(ranks + R + rows, rank_of(ahead1, z1, y1, K), mask=ok)


def label_ranks(logits: Tensor, labels: Tensor, partner_labels: Tensor | None) -> Tensor:
    check_ranks(logits, labels, partner_labels)
    planes = 1 if partner_labels is None else 2
    ranks = logits.new_empty((planes, *labels.shape), dtype=torch.int32)
    rows = rows_of(logits)
    tile = rows.tile(logits.itemsize, config("ranks", logits.itemsize))
    common.launch(
        ranks_kernel,
        rows.blocks(tile),
        logits.device,
        *(ranks, logits, labels.contiguous()),
        None if partner_labels is None else partner_labels.contiguous(),
        *(*rows.layout, *rows.strides),
        **rows.flags,
        **tile,
        enable_fp_fusion=True,
    )
    return ranks
