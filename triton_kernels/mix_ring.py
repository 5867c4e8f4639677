"""mix_ and mix of dense samples through rings of bulk copies, where a GPU has them.

A descriptor tells the copy engine the shape of a batch [B, numel]. It is made on the host: one that
a kernel makes would cost each program a write and a fence before its first load. On other GPUs the
compiler turns descriptors into loads of single elements, so these keep to mix_kernels.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from . import common
from .common import blend_args, box_args, partner_args
from .configs import Config, ring_config
from .mix_ring_kernels import ring_pair_kernel, ring_tile_kernel

MAX_ROWS = 256  # of more, a tile has less than 64 bytes each
_HALF = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
_ALIGN = 16  # bytes, of what the copy engine reads


def _descriptor(x: Tensor, count: int, rows: int, cols: int) -> TensorDescriptor:
    """Blocks [rows, cols] of samples of ``count`` elements, each one dense run."""
    return TensorDescriptor(x, [x.shape[0], count], [x.stride(0), 1], [rows, cols])


def _as_words(x: Tensor, count: int) -> Tensor:
    """Half types by pairs, as int32; only the memory matters, not its shape."""
    flat = x.as_strided((x.shape[0], 2 * count), (x.stride(0), 1))
    return flat.view(torch.int32)


def _copyable(x: Tensor, layout: common.Layout) -> bool:
    """Whether a descriptor of ``x`` is valid."""
    row = x.stride(0)
    aligned = x.data_ptr() % _ALIGN == 0 and row * x.element_size() % _ALIGN == 0
    return layout.flat and layout.numel < common.WIDE_FROM and row >= layout.numel and aligned


def _loop(config: Config) -> dict:
    return {"STEPS": config.steps, "STAGES": config.stages, "num_warps": config.warps}


def mix_pairs(
    dst: Tensor, src: Tensor, layout: common.Layout, blend: tuple, box: tuple, dims: dict, kind: int
) -> bool:
    """Mix flipped ``src`` into ``dst``; False, with nothing done, where no ring serves."""
    size, batch = src.element_size(), src.shape[0]
    ring = ring_config("ring_pair", size)
    if ring is None or not (_copyable(dst, layout) and _copyable(src, layout)):
        return False
    block = ring.block // size // (2 if dims else 1)  # a box's predicates take registers
    if layout.numel < block:
        return False
    turns = (batch + 1) // 2 * triton.cdiv(layout.numel, block)
    source = _descriptor(src, layout.numel, 1, block)
    common.launch(
        ring_pair_kernel,
        triton.cdiv(turns, ring.steps),
        dst.device,
        source if dst is src else _descriptor(dst, layout.numel, 1, block),
        *(source, *blend_args(*blend), *box_args(*box)),
        *(batch, layout.numel // layout.align, layout.sizes, layout.groups),
        AXES=layout.axes,
        D=len(dims),
        BOX=kind,
        ALIGN=layout.align,
        BLOCK=block,
        enable_fp_fusion=False,
        **_loop(ring),
    )
    return True


def mix_tiles(
    x: Tensor, layout: common.Layout, partner: Tensor | None, pairing: int, blend: tuple
) -> bool:
    """Mix ``x`` in place without boxes; False, with nothing done, where no ring serves."""
    half, batch = _HALF.get(x.dtype), x.shape[0]
    word = 4 if half else x.element_size()
    rows = triton.next_power_of_2(batch)
    ring = ring_config("ring_tile", word)
    # Single bytes would go through shared memory one by one.
    if ring is None or word == 1 or rows > MAX_ROWS or not _copyable(x, layout):
        return False
    words = layout.numel * x.element_size() // word
    if words * word != layout.numel * x.element_size() or words < 16:
        return False
    if half and x.storage_offset() % 2:  # PyTorch views no such memory as words
        return False
    cols = min(ring.block // word // rows, 256)
    tiles = triton.cdiv(words, cols)
    common.launch(
        ring_tile_kernel,
        triton.cdiv(tiles, ring.steps),
        x.device,
        _descriptor(_as_words(x, words) if half else x, words, rows, cols),
        *(*partner_args(partner), *blend_args(*blend), batch),
        PAIRING=pairing,
        HALF=half,
        ROWS=rows,
        COLS=cols,
        enable_fp_fusion=False,
        **_loop(ring),
    )
    return True
