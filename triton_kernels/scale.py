"""scale_: x *= factor. Where the factor is exactly one, no element is read or written.

It scales a gradient that was made in the forward. Most often the upstream gradient is one, which
only the device knows.
"""

import triton
import triton.language as tl
from torch import Tensor

from ..op_checks import expect_shape
from . import common
from .common import elements_of, offset_of
from .configs import config


@triton.jit(do_not_specialize=["units"])
def scale_kernel(
    x,
    factor,  # []
    units,  # elements of x, in units of ALIGN
    sizes,
    strides,
    ALIGN: tl.constexpr,
    WIDE: tl.constexpr,
    FLAT: tl.constexpr,
    NDIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    by = tl.load(factor)
    if by != 1:
        numel = elements_of(units, ALIGN, WIDE)
        block = tl.program_id(0)
        if WIDE:
            block = block.to(tl.int64)
        e = block * BLOCK + tl.arange(0, BLOCK)
        at = x + offset_of(e, sizes, strides, FLAT, NDIM)
        value = tl.load(at, mask=e < numel, other=0).to(by.dtype) * by
        tl.store(at, value.to(x.dtype.element_ty), mask=e < numel)


def scale_(x: Tensor, factor: Tensor) -> None:
    expect_shape("factor", factor)
    batch = x.unsqueeze(0)  # one sample, whose layout covers all dims
    layout = common.make_layout(batch, batch, {})
    align = common.alignment(layout.numel) if layout.flat else 1
    run = config("scale", x.element_size())
    common.launch(
        scale_kernel,
        triton.cdiv(x.numel(), run.block),
        x.device,
        *(x, factor, layout.numel // align, layout.sizes, layout.dst_strides),
        ALIGN=align,
        WIDE=layout.numel >= common.WIDE_FROM,
        FLAT=layout.flat,
        NDIM=len(layout.sizes),
        BLOCK=run.block,
        num_warps=run.warps,
        enable_fp_fusion=True,
    )
