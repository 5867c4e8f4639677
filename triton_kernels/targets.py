"""Dense soft labels of a mixed batch: mix_targets.

    out[b, k, s] = Σ_j weight_bj · (on if labels_j[b, s] == k else off),  j: the sample, its partner
    off = ε/K,  on = 1 - ε + off

Fused: pairing, both one-hot encodings, smoothing, the weighted sum, the cast. Per element a program
reads the two labels (from the cache) and writes one value.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..op_checks import check_label_pairs
from . import common
from .common import (
    arithmetic,
    elements_of,
    float_scalar,
    partner_args,
    partner_of,
    scalars,
    smoothed_one_hot,
    weight_args,
    weighted,
)
from .configs import config


@triton.jit(do_not_specialize=["w0", "w1", "on", "off", "B", "K", "units"])
def targets_kernel(
    out,  # [B, K, inner], contiguous
    labels,  # int64 [B, inner], contiguous
    partner,
    partner_stride,
    weight,  # float32 [B, 2], or None for w0, w1
    weight_strides,
    w0,
    w1,
    on,
    off,
    B,
    K,
    inner,
    units,  # K · inner, in units of ALIGN
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    PAIRING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    acc: tl.constexpr = arithmetic(out.dtype.element_ty)
    numel = elements_of(units, ALIGN, WIDE)
    blocks = tl.cdiv(numel, BLOCK)
    pid = tl.program_id(0)
    b = pid // blocks
    e = pid % blocks
    if WIDE:
        e = e.to(tl.int64)
    e = e * BLOCK + tl.arange(0, BLOCK)
    valid = e < numel
    k = e // inner
    s = e % inner
    p = partner_of(partner, partner_stride, b, B, PAIRING)
    b = b.to(tl.int64)
    y0 = tl.load(labels + b * inner + s, mask=valid, other=0)
    y1 = tl.load(labels + p * inner + s, mask=valid, other=0)
    if weight is None:
        own = tl.cast(w0, tl.float32).to(acc)
        other = tl.cast(w1, tl.float32).to(acc)
    else:
        own = tl.load(weight + b * weight_strides[0]).to(acc)
        other = tl.load(weight + b * weight_strides[0] + weight_strides[1]).to(acc)
    hit = float_scalar(on, acc)
    miss = float_scalar(off, acc)
    t = weighted(own, tl.where(k == y0, hit, miss)) + weighted(other, tl.where(k == y1, hit, miss))
    known = (y0 >= 0) & (y0 < K) & (y1 >= 0) & (y1 < K)
    t = tl.where(known, t, float("nan"))
    tl.store(out + b * numel + e, t.to(out.dtype.element_ty), mask=valid)


def mix_targets(
    labels: Tensor,
    partner: Tensor | None,
    weight: Tensor,
    pairing: int,
    num_classes: int,
    label_smoothing: float,
    dtype: torch.dtype,
) -> Tensor:
    check_label_pairs(labels, pairing, partner, weight, num_classes)
    batch = labels.shape[0]
    out = labels.new_empty((batch, num_classes, *labels.shape[1:]), dtype=dtype)
    if out.numel() == 0:
        return out
    on_off = scalars(dtype, *smoothed_one_hot(label_smoothing, num_classes))
    numel = out.numel() // batch
    align = common.alignment(numel)
    run = config("targets", out.element_size())
    block = min(triton.next_power_of_2(numel), run.block)
    common.launch(
        targets_kernel,
        batch * triton.cdiv(numel, block),
        labels.device,
        *(out, labels.contiguous(), *partner_args(partner), *weight_args(weight)),
        *(*on_off, batch, num_classes, numel // num_classes, numel // align),
        ALIGN=align,
        WIDE=numel >= common.WIDE_FROM,
        PAIRING=pairing,
        BLOCK=block,
        num_warps=run.warps,
        enable_fp_fusion=False,  # products and sum are rounded one by one, as in eager PyTorch
    )
    return out
