"""Mix the samples of a batch: mix_, mix, mix_out, mix_backward and paste_.

    out[i, e] = x[p, e]                              where e lies in box_i        (p = partner_i)
                blend_i0 · x[i, e] + blend_i1 · x[p, e]     elsewhere

Fused: pairing, both products, the sum, the box, the rounding. Per element:
    mix_, flip          both partners in one program: 1 read, 1 write, no extra memory
    mix_, other pairing 1 read from memory and 1 from cache, 1 write, no extra memory
    mix                 1 read from memory and 1 from cache (flip: 1 read), 1 write
    uniform CutMix      only the box is read and written: 1 read, 1 write per pasted element
    mix_backward        1 read from memory and 1 from cache, 1 write

The kernels stand in mix_kernels.py and mix_backward_kernel.py, those that no GPU has run yet in
mix_ring_kernels.py. They are compiled without
contraction into multiply-adds (``enable_fp_fusion=False``), so that float32 results equal eager
PyTorch's bit for bit.
"""

import math

import torch
import triton
from torch import Tensor

from .. import op_checks
from ..codes import FLIP, SELF
from . import common, mix_ring
from .common import (
    BOX_TENSOR,
    HOST_BOX,
    NO_BOX,
    blend_args,
    box_args,
    host_row,
    make_layout,
    partner_args,
)
from .configs import Config, config
from .mix_backward_kernel import mix_backward_kernel
from .mix_kernels import BLEND, COPY, PASTE, pair_kernel, tile_kernel

MAX_TILE_ROWS = 8192  # the largest batch whose column fits in one program's registers
SCRATCH_BYTES = 1 << 20  # what a larger batch may borrow


def box_of(box: Tensor, x: Tensor, last: int) -> tuple[int, Tensor | None, list | None, dict]:
    """(kind, tensor or None, host row or None, dims of x → box axes).

    ``last``: one past the dim of x that the box's last axis refers to.
    """
    d = box.shape[1] // 2
    row = host_row(box)
    if row is not None:
        extent = x.shape[last - d : last]
        row = [max(v, 0) for v in row[:d]] + [
            min(v, n) for v, n in zip(row[d:], extent, strict=True)
        ]
        if any(row[k] >= row[d + k] for k in range(d)):
            d = 0
    if d == 0:
        return NO_BOX, None, None, {}
    dims = {last - d + k: k for k in range(d)}
    return (BOX_TENSOR, box, None, dims) if row is None else (HOST_BOX, None, row, dims)


def _run_block(layout: common.Layout, itemsize: int, boxed: bool, config: Config) -> int:
    """Elements of one sample in one program."""
    # A box's predicates, and the addresses of elements without vectors, take registers too.
    most = config.block // itemsize // (2 if boxed else 1)
    return min(triton.next_power_of_2(layout.numel), most if layout.flat else min(most, 512))


def _apply(
    dst: Tensor,
    src: Tensor,
    partner: Tensor | None,
    pairing: int,
    mode: int,
    blend: Tensor | None = None,
    blend_row: list | None = None,
    kind: int = NO_BOX,
    box: Tensor | None = None,
    box_row: list | None = None,
    box_dims: dict | None = None,
) -> None:
    """Launch what serves the pairing. ``dst`` is ``src`` in place."""
    if dst.numel() == 0:
        return
    batch, in_place, size = dst.shape[0], dst is src, dst.element_size()
    layout = make_layout(dst, src, box_dims or {})
    plan_rows = (*blend_args(blend, blend_row), *box_args(box, box_row))
    dims = (layout.sizes, layout.groups, layout.dst_strides, layout.src_strides)
    options = {
        "AXES": layout.axes,
        "D": len(box_dims or ()),
        "BOX": kind,
        "MODE": mode,
        "IN_PLACE": in_place,
        "FLAT": layout.flat,
        "WIDE": layout.numel >= common.WIDE_FROM,
        "PAIRING": pairing,
        "enable_fp_fusion": False,
    }
    device, run = dst.device, config("pair", size)

    rows_of_blend, boxes = (blend, blend_row), (box, box_row)
    if (
        mode == BLEND
        and pairing == FLIP
        and mix_ring.mix_pairs(dst, src, layout, rows_of_blend, boxes, box_dims or {}, kind)
    ):
        return
    if pairing in (FLIP, SELF):
        block = _run_block(layout, size, bool(box_dims), run)
        pairs = (batch + 1) // 2 if pairing == FLIP else batch
        programs = pairs * triton.cdiv(layout.numel, block)
        align = layout.align
        shape = (batch, layout.numel // align, dst.stride(0) // align, src.stride(0) // align)
        args = (dst, src, *plan_rows, *shape, *dims)
        options |= {"ALIGN": align, "BLOCK": block, "num_warps": run.warps}
        common.launch(pair_kernel, programs, device, *args, **options)
        return

    tiled = config("tile" if mode == BLEND and kind == NO_BOX else "tile_boxed", size)

    def tile(dst, src, dst_row, src_row, first, count, rows, cols, align, **more) -> None:
        programs = triton.cdiv(batch, rows) * triton.cdiv(count, cols)
        shape = (batch, count // align, dst_row // align, src_row // align, first // align)
        args = (dst, src, *partner_args(partner), *plan_rows, *shape, *dims)
        flags = {"DST_LOCAL": False, "SRC_LOCAL": False, "BARRIER": False, "WAIT": ""}
        # A tile that stays in registers across a barrier takes 128 bytes per thread.
        warps = min(max(rows * cols * size // 4096, 1), tiled.warps)
        warps = warps if more.get("BARRIER") else run.warps
        tiles = {"ROWS": rows, "COLS": cols, "ALIGN": align, "num_warps": warps}
        common.launch(tile_kernel, programs, device, *args, **{**options, **flags, **tiles, **more})

    steps = (dst.stride(0), src.stride(0))
    if not in_place:
        cols = _run_block(layout, size, bool(box_dims), run)
        rows = min(triton.next_power_of_2(batch), run.block // size // cols)
        tile(dst, src, *steps, 0, layout.numel, rows, cols, layout.align)
    elif batch <= MAX_TILE_ROWS:
        plain = mode == BLEND and kind == NO_BOX
        if plain and mix_ring.mix_tiles(dst, layout, partner, pairing, rows_of_blend):
            return
        rows = triton.next_power_of_2(batch)
        # Of many rows, 128 bytes each (a line of the cache), as far as registers hold: a thread
        # with many rows needs more for addresses, and doubles take them in pairs.
        most = 65536 if rows <= 4096 and size < 8 else 32768
        tile_bytes = min(max(tiled.block, 128 * rows), most)
        cols = max(min(tile_bytes // size // rows, 32768 // rows, run.block // 4 // size), 1)
        cols = min(cols, triton.next_power_of_2(layout.numel))
        whole = (0, layout.numel, rows, cols, layout.align)
        tile(dst, src, *steps, *whole, BARRIER=True, WAIT=common.load_wait(tile_kernel))
    else:
        # No program can hold a column: a scratch tensor holds a copy of a few columns at a time. It
        # takes SCRATCH_BYTES at most, or one column where that alone is larger.
        width = max(min(SCRATCH_BYTES // (size * batch), layout.numel), 1)
        width = width // 16 * 16 if width > 16 else width
        scratch = torch.empty((batch, width), dtype=dst.dtype, device=device)
        cols = min(triton.next_power_of_2(width), 1024)
        rows = max(1024 // cols, 1)
        save = {"MODE": COPY, "PAIRING": SELF, "BOX": NO_BOX, "IN_PLACE": False, "D": 0}
        for first in range(0, layout.numel, width):
            count = min(width, layout.numel - first)
            align = math.gcd(layout.align, width, count)
            args = (first, count, rows, cols, align)
            tile(scratch, dst, width, steps[0], *args, DST_LOCAL=True, **save)
            tile(dst, scratch, steps[0], width, *args, SRC_LOCAL=True)


def _paste(x: Tensor, partner: Tensor | None, pairing: int, box: Tensor, last: int) -> None:
    """x[i] = x[partner_i] inside the boxes, in place."""
    kind, box_tensor, row, dims = box_of(box, x, last)
    if kind == NO_BOX or pairing == SELF:
        return
    if kind == HOST_BOX and row is not None:
        # One box for all samples: the launch covers a view of it, and no more.
        for dim, k in dims.items():
            x = x.narrow(dim, row[k], row[len(dims) + k] - row[k])
        _apply(x, x, partner, pairing, COPY)
    else:
        _apply(x, x, partner, pairing, PASTE, None, None, kind, box_tensor, row, dims)


def mix_(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> None:
    op_checks.check_plan(x, pairing, partner, blend, box)
    if x.numel() == 0:
        return
    row = host_row(blend)
    if row == [1.0, 0.0]:
        _paste(x, partner, pairing, box, x.ndim)
    else:
        _apply(x, x, partner, pairing, BLEND, blend, row, *box_of(box, x, x.ndim))


def mix_out(
    x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int, out: Tensor
) -> None:
    op_checks.check_plan(x, pairing, partner, blend, box)
    op_checks.check_out(out, x)
    if x.numel() == 0:
        return
    _apply(out, x, partner, pairing, BLEND, blend, host_row(blend), *box_of(box, x, x.ndim))


def mix(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> Tensor:
    out = torch.empty_like(x)
    mix_out(x, partner, blend, box, pairing, out)
    return out


def mix_backward(
    grad: Tensor,
    partner: Tensor | None,
    sources: Tensor | None,
    offsets: Tensor | None,
    blend: Tensor,
    box: Tensor,
    pairing: int,
) -> Tensor:
    op_checks.check_plan(grad, pairing, partner, blend, box)
    op_checks.check_transpose(pairing, sources, offsets, grad.shape[0])
    out = torch.empty_like(grad)
    if grad.numel() == 0:
        return out
    kind, box, box_row, box_dims = box_of(box, grad, grad.ndim)
    layout = make_layout(out, grad, box_dims)
    align, batch = layout.align, grad.shape[0]
    run = config("backward", grad.element_size())
    block = _run_block(layout, grad.element_size(), bool(box_dims), run)
    plan_rows = (*blend_args(blend, host_row(blend)), *box_args(box, box_row))
    common.launch(
        mix_backward_kernel,
        batch * triton.cdiv(layout.numel, block),
        grad.device,
        *(out, grad, sources, offsets, *plan_rows),
        *(batch, layout.numel // align, out.stride(0) // align, grad.stride(0) // align),
        *(layout.sizes, layout.groups, layout.dst_strides, layout.src_strides),
        AXES=layout.axes,
        D=len(box_dims),
        BOX=kind,
        FLAT=layout.flat,
        ALIGN=align,
        WIDE=layout.numel >= common.WIDE_FROM,
        PAIRING=pairing,
        BLOCK=block,
        num_warps=run.warps,
        enable_fp_fusion=False,
    )
    return out


def paste_(x: Tensor, partner: Tensor | None, box: Tensor, pairing: int) -> None:
    op_checks.check_plan(x, pairing, partner, None, box)
    # Values are moved and never read as numbers: any dtype becomes integers of its size.
    last = x.ndim
    if x.dtype == torch.complex128:
        x = torch.view_as_real(x)  # two doubles, in one more dim at the end
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    _paste(x.view(words[x.element_size()]), partner, pairing, box, last)
