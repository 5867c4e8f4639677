"""draw_erasing: draws erased boxes on the device, in one launch of one program.

A box depends on its own words alone, but the state may step only after every box has been drawn,
and a launch has no barrier across programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..codes import (
    CONST,
    DRAW_COLOR,
    DRAW_ERASE,
    DRAW_ERASED_BOX,
    DRAW_NOISE,
    ERASE_ATTEMPTS,
    PIXEL,
    RAND,
    STATE_VERSION,
)
from ..op_checks import check_draw_erasing
from . import common
from .common import float_bits, float_scalar
from .plan import travels_by_value
from .random import below, exp, happens, log, normal, short_uniform, uniform, words

# Kernels can name a global only if it is a constexpr.
_VERSION, _ATTEMPTS = tl.constexpr(STATE_VERSION), tl.constexpr(ERASE_ATTEMPTS)
_RAND, _PIXEL = tl.constexpr(RAND), tl.constexpr(PIXEL)
_ERASE, _NOISE = tl.constexpr(DRAW_ERASE), tl.constexpr(DRAW_NOISE)
_BOX, _COLOR = tl.constexpr(DRAW_ERASED_BOX), tl.constexpr(DRAW_COLOR)


@triton.jit
def _draw_boxes(stream, numbers, i, k, wanted, count, height, width):
    """y0, x0, height and width of box k of sample i, int64; zeros where it is not wanted."""
    area_low, area_high, aspect_low, aspect_high = numbers
    aspect_low, aspect_high = log(aspect_low), log(aspect_high)
    pixels = height.to(tl.float64) * width.to(tl.float64)
    zero = i.to(tl.int64) * 0
    top, left, rows, columns = zero, zero, zero, zero
    open_boxes = wanted.to(tl.int32)
    attempt = 0
    while (attempt < _ATTEMPTS) & (tl.max(open_boxes, 0) > 0):
        w0, w1, w2, w3 = words(stream, i, _BOX + 16 * k + attempt)
        share = area_low + (area_high - area_low) * short_uniform(w0)
        area = share * pixels / count.to(tl.float64)
        aspect = exp(aspect_low + (aspect_high - aspect_low) * short_uniform(w1))
        # Half is added before they are compared: a side is below a size if its rounded value is.
        side_y = tl.sqrt(area * aspect) + 0.5
        side_x = tl.sqrt(area / aspect) + 0.5
        fits = (side_y < height.to(tl.float64)) & (side_x < width.to(tl.float64))
        fits = fits & (open_boxes > 0)
        h = tl.where(fits, side_y, 0.0).to(tl.int64)
        w = tl.where(fits, side_x, 0.0).to(tl.int64)
        rows, columns = tl.where(fits, h, rows), tl.where(fits, w, columns)
        top = tl.where(fits, below(w2, height - h + 1), top)
        left = tl.where(fits, below(w3, width - w + 1), left)
        open_boxes = tl.where(fits, 0, open_boxes)
        attempt += 1
    return top, left, rows, columns


@triton.jit(
    do_not_specialize=["B", "N", "height", "width", "channels", "clean"]
    + ["bits0", "bits1", "bits2", "bits3", "bits4"]
)
def erasing_kernel(
    state,  # int64 [4]
    settings,  # float64 [5], or None for the bits of the five that follow
    bits0: tl.int64,
    bits1: tl.int64,
    bits2: tl.int64,
    bits3: tl.int64,
    bits4: tl.int64,
    fill,  # a tuple of FILLED numbers
    box,  # int32 [B, N, 4]
    value,  # float32 [1, 1, FILLED], or [B, N, C] where MODE is RAND
    noise,  # int64 [B], where MODE is PIXEL
    B,
    N,
    height: tl.int64,
    width: tl.int64,
    channels,
    clean,
    MODE: tl.constexpr,
    FILLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    version = tl.load(state)
    step = tl.load(state + 3)
    stream = tl.load(state + 1), tl.load(state + 2), step
    # Blocks of one number: Triton's interpreter cannot combine truth values of blocks and scalars.
    zeros = tl.arange(0, 1).to(tl.float64)
    if settings is None:
        prob = float_scalar(bits0, tl.float64) + zeros
        area_low = float_scalar(bits1, tl.float64) + zeros
        area_high = float_scalar(bits2, tl.float64) + zeros
        aspect_low = float_scalar(bits3, tl.float64) + zeros
        aspect_high = float_scalar(bits4, tl.float64) + zeros
    else:
        prob = tl.load(settings) + zeros
        area_low = tl.load(settings + 1) + zeros
        area_high = tl.load(settings + 2) + zeros
        aspect_low = tl.load(settings + 3) + zeros
        aspect_high = tl.load(settings + 4) + zeros
    numbers = area_low, area_high, aspect_low, aspect_high
    known = (version + tl.arange(0, 1).to(tl.int64)) == _VERSION
    for c in tl.static_range(FILLED):
        tl.store(value + c, fill[c])
    start = 0
    while start < B * N:
        at = start + tl.arange(0, BLOCK)
        inside = at < B * N
        i = at // N
        k = at % N
        w0, w1, _, _ = words(stream, i, _ERASE)
        count = 1 + below(w1, N)
        wanted = inside & known & happens(w0, prob) & (i >= clean) & (k < count)
        top, left, h, w = _draw_boxes(stream, numbers, i, k, wanted, count, height, width)
        covers = (h > 0) & (w > 0)
        corner = box + 4 * at
        tl.store(corner, tl.where(covers, top, 0).to(tl.int32), mask=inside)
        tl.store(corner + 1, tl.where(covers, left, 0).to(tl.int32), mask=inside)
        tl.store(corner + 2, tl.where(covers, top + h, 0).to(tl.int32), mask=inside)
        tl.store(corner + 3, tl.where(covers, left + w, 0).to(tl.int32), mask=inside)
        if MODE == _PIXEL:
            low, high, _, _ = words(stream, i, _NOISE)
            key = low.to(tl.int64) | high.to(tl.int64) << 32
            tl.store(noise + i, key, mask=inside & (k == 0))
        if MODE == _RAND:
            c = 0
            while c < channels:
                w0, w1, w2, w3 = words(stream, i, _COLOR + 32 * k + c // 2)
                color = value + at * channels + c
                first = tl.where(covers, normal(uniform(w0, w1)), 0.0)
                tl.store(color, first.to(tl.float32), mask=inside)
                second = tl.where(covers, normal(uniform(w2, w3)), 0.0)
                tl.store(color + 1, second.to(tl.float32), mask=inside & (c + 1 + 0 * i < channels))
                c += 2
        start += BLOCK
    tl.debug_barrier()  # all threads have read the state
    tl.store(state + 3, step + 1, mask=version == _VERSION)


def _register_limit() -> dict[str, int]:
    """NVIDIA's assembler spills to reach 64 registers, unless it is told what it may use."""
    if not isinstance(erasing_kernel, triton.JITFunction):  # under the interpreter
        return {}
    target = triton.runtime.driver.active.get_current_target()
    return {"maxnreg": 128} if target.backend == "cuda" else {}


def draw_erasing(
    state: Tensor,
    settings: Tensor,
    fill: list[float],
    batch_size: int,
    height: int,
    width: int,
    max_count: int,
    channels: int,
    erase_mode: int,
    clean: int,
) -> tuple[Tensor, Tensor, Tensor]:
    rest = batch_size, height, width, max_count, channels, erase_mode, clean
    check_draw_erasing(state, settings, fill, *rest)
    colors = (batch_size, max_count, channels)
    shape = {CONST: (1, 1, len(fill)), RAND: colors, PIXEL: (0,)}[erase_mode]
    drawn = (
        state.new_empty((batch_size, max_count, 4), dtype=torch.int32),
        state.new_empty(shape, dtype=torch.float32),
        state.new_empty((batch_size if erase_mode == PIXEL else 0,)),
    )
    numbers = [0] * 5
    if travels_by_value(settings):
        numbers = [float_bits(n) for n in settings.tolist()]
        settings = None
    block = min(max(triton.next_power_of_2(batch_size * max_count), 32), 256)
    common.launch(
        erasing_kernel,
        1,
        state.device,
        *(state, settings, *numbers, tuple(fill), *drawn),
        *(batch_size, max_count, height, width, channels, clean),
        MODE=erase_mode,
        FILLED=len(fill),
        BLOCK=block,
        num_warps=block // 32,  # more would leave a thread too few registers for float64
        enable_fp_fusion=False,  # docs/drawing.md rounds every product and sum on its own
        **_register_limit(),
    )
    return drawn
