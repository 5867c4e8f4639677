"""From a decoder's bytes to the model's input: mix_normalize.

    n(v)            = (v - mean_c) / std_c
    out[i, c, y, x] = blend_i0 · n(x_i) + blend_i1 · n(x_p)       (p = partner_i)

with n(x_p) inside box_i, and a fill inside erase_box_i. Images that ``flip`` names are mirrored
before that; ``first`` mixes before it normalises.

Fused: all of it, the rounding to the result's dtype and the change of layout. Per element of uint8
images and a half-precision result, 3 bytes: 1 is read (the partner's comes from the cache, or in a
flip from the same program), 2 are written. The kernel stands in mix_normalize_kernels.py. Nothing
is copied from the host: constants of up to four channels are arguments of the kernel, and more are
written to memory by a small launch, so that a call can be captured in a CUDA graph.
"""

import torch
import triton
from torch import Tensor

from ..codes import FLIP, SELF
from ..op_checks import check_mix_normalize, check_plan
from . import common
from .common import NO_BOX, blend_args, box_args, host_row, partner_args
from .configs import config
from .mix import box_of
from .mix_normalize_kernels import (
    AFTER,
    BEFORE,
    BY_VALUE,
    PLAIN,
    constants_kernel,
    normalize_kernel,
)
from .mix_normalize_memory import ROWS, RUN, SAME, WOVEN


def _strides(t: Tensor) -> tuple[int, int, int]:
    """Strides of channels, rows and columns; a dim of size 1 continues the one inside it."""
    _, _, height, width = t.shape
    _, channel, row, column = t.stride()
    column = row if width == 1 else column
    return channel, width * column if height == 1 else row, column


def _order(t: Tensor) -> int:
    """How an image lies in memory, for up to BY_VALUE channels."""
    channels, width = t.shape[1], t.shape[3]
    channel, row, column = _strides(t)
    if channels > 1 and (channel, column, row) == (1, channels, width * channels):
        return WOVEN
    return RUN if row == width * column else ROWS


def _orders(out: Tensor, x: Tensor, turns: bool) -> tuple[int, int]:
    out_order, in_order = _order(out), ROWS if turns else _order(x)
    if out.shape[1] > BY_VALUE:
        if out_order == WOVEN:
            out_order = SAME
        if in_order == WOVEN:
            in_order = SAME if out_order == SAME else RUN
    return out_order, in_order


def _span(t: Tensor) -> int:
    """Elements from a sample's first to its last."""
    return 1 + sum((n - 1) * s for n, s in zip(t.shape[1:], t.stride()[1:], strict=True))


def _constants(mean: list[float], std: list[float], device: torch.device) -> tuple:
    if len(mean) <= BY_VALUE:
        return tuple(mean), tuple(std)
    table = torch.empty((2, len(mean)), dtype=torch.float32, device=device)
    common.launch(
        constants_kernel,
        1,
        device,
        table,
        (*mean, *std),
        COUNT=table.numel(),
        enable_fp_fusion=False,
    )
    return table[0], table[1]


def mix_normalize(
    images: list[Tensor],
    partner: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
    mean: list[float],
    std: list[float],
    flip: Tensor | None,
    erase_box: Tensor | None,
    erase_value: Tensor | None,
    erase_noise: Tensor | None,
    first: bool,
    out: Tensor,
) -> None:
    check_mix_normalize(images, mean, std, flip, erase_box, erase_value, erase_noise, out)
    check_plan(out, pairing, partner, blend, box)
    if out.numel() == 0:
        return
    x = images[0] if images[0].ndim == 4 else torch.stack(list(images))
    batch, channels, height, width = out.shape
    row = host_row(blend)
    kind, box, box_row, box_dims = box_of(box, out, out.ndim)
    mode = BEFORE if first else AFTER
    if kind == NO_BOX and row == [1.0, 0.0]:
        mode, pairing, partner = PLAIN, SELF, None
    boxes = 0 if erase_box is None else erase_box.shape[1]
    erase = (None, None, (0, 0, 0), None)
    if erase_box is not None and erase_noise is not None and boxes:
        erase = (erase_box.contiguous(), None, (0, 0, 0), erase_noise.contiguous())
    elif erase_box is not None and erase_value is not None and boxes:
        value = erase_value.expand(batch, boxes, channels)
        erase = (erase_box.contiguous(), value, value.stride(), None)

    out_order, in_order = _orders(out, x, flip is not None)
    count = height * width * (channels if out_order == SAME else 1)
    size = min(x.element_size(), out.element_size())
    run = config("normalize", size)
    block = run.block // size
    boxed = kind != NO_BOX or boxes > 0
    if in_order in (ROWS, WOVEN) or (pairing == FLIP and boxed):
        # Of values that are read one by one, or in runs of all channels, more would make no load
        # wider. Two samples and their boxes fill the registers with half as many.
        block //= 2
    block = min(block, triton.next_power_of_2(count))
    samples = (batch + 1) // 2 if pairing == FLIP else batch
    planes = 1 if channels <= BY_VALUE or out_order == SAME else channels
    common.launch(
        normalize_kernel,
        samples * planes * triton.cdiv(count, block),
        out.device,
        *(out, x, *_constants(mean, std, out.device)),
        None if flip is None else flip.contiguous().view(torch.uint8),
        *(*partner_args(partner), *blend_args(blend, row), *box_args(box, box_row)),
        *(*erase, boxes, batch, width, count),
        *(out.stride(0), x.stride(0), _strides(out), _strides(x)),
        C=channels,
        D=len(box_dims),
        BOX=kind,
        MODE=mode,
        PAIRING=pairing,
        OUT_ORDER=out_order,
        IN_ORDER=in_order,
        WIDE=max(map(_span, (out, x))) >= common.WIDE_FROM,
        BLOCK=block,
        num_warps=run.warps,
        enable_fp_fusion=False,
    )
