"""draw_plan: draws a plan on the device, in one launch of one program.

Samples depend on each other in the sort of their keys and in the step of the state, and a launch
has no barrier across programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..codes import (
    BATCH,
    CROSS_CLASS,
    DERANGEMENT,
    PAIR,
    SHUFFLE,
    STATE_VERSION,
    TENSOR,
)
from ..op_checks import check_draw
from . import common
from .common import float_bits, float_scalar, partner_args, partner_of
from .plan_match import match
from .plan_rows import draw_rows

# Kernels can name a global only if it is a constexpr.
_VERSION, _SHUFFLE = tl.constexpr(STATE_VERSION), tl.constexpr(SHUFFLE)
_BATCH, _PAIR = tl.constexpr(BATCH), tl.constexpr(PAIR)


@triton.jit(
    do_not_specialize=["B", "n0", "n1", "n2", "bits0", "bits1", "bits2", "bits3", "bits4", "bits5"]
)
def plan_kernel(
    state,  # int64 [4]
    settings,  # float64 [6], or None for the bits of the six that follow
    bits0: tl.int64,
    bits1: tl.int64,
    bits2: tl.int64,
    bits3: tl.int64,
    bits4: tl.int64,
    bits5: tl.int64,
    labels,  # int64 [B], where PAIRING is CROSS_CLASS
    given,  # int32 [B], where PAIRING is TENSOR
    given_stride,
    samples,  # int32 [B], the samples' indices in a larger batch, or None
    samples_stride,
    keys,  # int64 [B], [2B] where PAIRING is CROSS_CLASS: scratch
    partners,  # int32 [B]
    weight,  # float32 [B, 2]
    blend,  # float64 [B, 2]
    box,  # int32 [B, 2·D]
    B,
    n0: tl.int64,
    n1: tl.int64,
    n2: tl.int64,
    D: tl.constexpr,
    PER: tl.constexpr,
    PAIRING: tl.constexpr,
    CORRECT: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    WAIT: tl.constexpr,
):
    version = tl.load(state)
    step = tl.load(state + 3)
    stream = tl.load(state + 1), tl.load(state + 2), step
    if settings is None:
        numbers = (
            float_scalar(bits0, tl.float64),
            float_scalar(bits1, tl.float64),
            float_scalar(bits2, tl.float64),
            float_scalar(bits3, tl.float64),
            float_scalar(bits4, tl.float64),
            float_scalar(bits5, tl.float64),
        )
    else:
        numbers = (
            tl.load(settings),
            tl.load(settings + 1),
            tl.load(settings + 2),
            tl.load(settings + 3),
            tl.load(settings + 4),
            tl.load(settings + 5),
        )
    sizes = n0, n1, n2
    if PAIRING >= _SHUFFLE:
        match(stream, labels, keys, partners, B, PER, PAIRING, PAIRS, BLOCK, WAIT)
    if PER == _BATCH:
        row = draw_rows(stream, numbers, sizes, tl.arange(0, 1), D, CORRECT, SYMMETRIC)
    start = 0
    while start < B:
        i = start + tl.arange(0, BLOCK)
        inside = i < B
        if PAIRING >= _SHUFFLE:
            partner = tl.load(partners + i, mask=inside, other=0)
        else:
            if samples is None:
                partner = partner_of(given, given_stride, i, B, PAIRING).to(tl.int32)
            else:
                partner = tl.load(given + i * given_stride, mask=inside, other=0)
            tl.store(partners + i, partner, mask=inside)
        own_index = i
        if samples is not None:
            own_index = tl.load(samples + i * samples_stride, mask=inside, other=0)
        if PER != _BATCH:
            unit = tl.minimum(own_index, partner) if PER == _PAIR else own_index
            row = draw_rows(stream, numbers, sizes, unit, D, CORRECT, SYMMETRIC)
        drawn, own, other, own_weight, other_weight, boxes = row
        mixed = drawn & (partner != own_index)
        unknown = version != _VERSION
        nan = float("nan")
        own = tl.where(unknown, nan, tl.where(mixed, own, 1.0))
        other = tl.where(unknown, nan, tl.where(mixed, other, 0.0))
        own_weight = tl.where(unknown, nan, tl.where(mixed, own_weight, 1.0))
        other_weight = tl.where(unknown, nan, tl.where(mixed, other_weight, 0.0))
        tl.store(blend + 2 * i, own, mask=inside)
        tl.store(blend + 2 * i + 1, other, mask=inside)
        tl.store(weight + 2 * i, own_weight.to(tl.float32), mask=inside)
        tl.store(weight + 2 * i + 1, other_weight.to(tl.float32), mask=inside)
        for k in tl.static_range(D):
            begin = tl.where(mixed, boxes[2 * k], 0).to(tl.int32)
            end = tl.where(mixed, boxes[2 * k + 1], 0).to(tl.int32)
            tl.store(box + 2 * D * i + k, begin, mask=inside)
            tl.store(box + 2 * D * i + D + k, end, mask=inside)
        start += BLOCK
    tl.debug_barrier()  # all threads have read the state
    tl.store(state + 3, step + 1, mask=version == _VERSION)


def travels_by_value(settings: Tensor) -> bool:
    """Settings on the CPU travel as plain arguments."""
    return settings.device.type == "cpu"


def draw_plan(
    state: Tensor,
    settings: Tensor,
    labels: Tensor | None,
    partner: Tensor | None,
    batch_size: int,
    spatial: list[int],
    per: int,
    pairing: int,
    correct_lam: bool,
    symmetric: bool,
    samples: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_draw(state, settings, labels, partner, batch_size, spatial, per, pairing, samples)
    dims = len(spatial)
    drawn = (
        state.new_empty((batch_size,), dtype=torch.int32),
        state.new_empty((batch_size, 2), dtype=torch.float32),
        state.new_empty((batch_size, 2), dtype=torch.float64),
        state.new_empty((batch_size, 2 * dims), dtype=torch.int32),
    )
    keys = None
    if pairing in (SHUFFLE, DERANGEMENT, CROSS_CLASS):
        keys = state.new_empty((batch_size * (2 if pairing == CROSS_CLASS else 1),))
    numbers = [0] * 6
    if travels_by_value(settings):
        numbers = [float_bits(n) for n in settings.tolist()]
        settings = None
    block = min(max(triton.next_power_of_2(batch_size), 32), 256)
    common.launch(
        plan_kernel,
        1,
        state.device,
        *(state, settings, *numbers),
        labels if pairing == CROSS_CLASS else None,
        *partner_args(partner if pairing == TENSOR else None),
        *partner_args(samples),
        *(keys, *drawn, batch_size, *spatial, *[0] * (3 - dims)),
        D=dims,
        PER=per,
        PAIRING=pairing,
        CORRECT=correct_lam,
        SYMMETRIC=symmetric,
        PAIRS=2 * block,
        BLOCK=block,
        WAIT=common.load_wait(plan_kernel, and_stores=True),
        num_warps=block // 32,  # more would leave a thread too few registers for float64
        enable_fp_fusion=False,  # docs/drawing.md rounds every product and sum on its own
    )
    return drawn
