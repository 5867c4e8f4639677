"""Checks of the arguments of mix_rectangles and mix_patches, for the reference and Triton.

csrc/common/collage_arguments.h checks the same for the native backends.
"""

from __future__ import annotations

from torch import Tensor

from ..arguments import expect, expect_shape
from ..codes import MAX_RECTANGLES, RAW, RESIZE_ALIGNED, RESIZE_NEAREST
from ..dtypes import BLENDABLE


def check_rectangles(
    x: Tensor,  # [B, …, H, W]
    other: Tensor | None,  # [M, …, H, W]
    source: Tensor,  # [B, R]
    source_box: Tensor,  # [B, R, 4]
    box: Tensor,  # [B, R, 4]
    scale: Tensor | None,  # [B, R, 2]
    resample: int,
    fill: float | None,
    out: Tensor,  # [B, …, H', W']
) -> None:
    expect(x.ndim >= 3, "x", "shape [B, …, H, W]", list(x.shape))
    expect(RAW <= resample <= RESIZE_ALIGNED, "resample", "0 to 3", resample)
    if resample > RESIZE_NEAREST:
        expect(x.dtype in BLENDABLE, "x", "floats or uint8, to interpolate", x.dtype)
    batch = x.shape[0]
    if other is not None:
        expect(other.dtype == x.dtype, "other", str(x.dtype), other.dtype)
        fits = other.ndim == x.ndim and other.shape[1:] == x.shape[1:]
        expect(fits, "other", f"samples of shape {list(x.shape[1:])}", list(other.shape))
    rows = source.shape[1] if source.ndim == 2 else 0
    expect(source.ndim == 2 and rows <= MAX_RECTANGLES, "source", "[B, R], R <= 4", rows)
    expect_shape("source", source, batch, rows)
    expect_shape("source_box", source_box, batch, rows, 4)
    expect_shape("box", box, batch, rows, 4)
    if scale is not None:
        expect_shape("scale", scale, batch, rows, 2)
        expect(scale.is_floating_point(), "scale", "floats", scale.dtype)
    for name, t in (("source", source), ("source_box", source_box), ("box", box)):
        expect(not t.is_floating_point(), name, "integers", t.dtype)
    expect(out.dtype == x.dtype, "out", str(x.dtype), out.dtype)
    fits = out.ndim == x.ndim and out.shape[:-2] == x.shape[:-2]
    fits = fits and (fill is not None or out.shape == x.shape)
    expect(fits, "out", "the shape of x (with a fill any height and width)", list(out.shape))
    if batch and rows and other is not None:
        expect(other.shape[0] > 0, "other", "at least one sample", other.shape[0])


def check_patches(
    x: Tensor,  # [B, …, H, W]
    sample: Tensor | None,  # [B] or [B, gh, gw]
    index: Tensor | None,  # [B, gh, gw]
    partner: Tensor | None,  # likewise
    partner_index: Tensor | None,
    mask: Tensor | None,  # [B, mh, mw]
    out: Tensor,
) -> None:
    expect(x.ndim >= 3, "x", "shape [B, …, H, W]", list(x.shape))
    _check_side("sample", "index", sample, index, x)
    _check_side("partner", "partner_index", partner, partner_index, x)
    both = (mask is None) == (partner is None)
    expect(both, "partner", "a tensor where there is a mask, and only there", partner is None)
    both = mask is not None or partner_index is None
    expect(both, "partner_index", "None without a mask", "a tensor")
    if mask is not None:
        expect(x.dtype in BLENDABLE, "x", "floats or uint8", x.dtype)
        expect(mask.is_floating_point(), "mask", "floats", mask.dtype)
        _check_grid("mask", mask, x)
    expect(out.dtype == x.dtype, "out", str(x.dtype), out.dtype)
    expect_shape("out", out, *x.shape)


def _check_side(
    sample_name: str, index_name: str, sample: Tensor | None, index: Tensor | None, x: Tensor
) -> None:
    for name, t in ((sample_name, sample), (index_name, index)):
        if t is not None:
            expect(not t.is_floating_point(), name, "integers", t.dtype)
    if index is not None:
        _check_grid(index_name, index, x)
    if sample is not None and sample.ndim == 3:
        _check_grid(sample_name, sample, x)
        if index is not None:
            expect_shape(sample_name, sample, *index.shape)
    elif sample is not None:
        expect_shape(sample_name, sample, x.shape[0])


def _check_grid(name: str, t: Tensor, x: Tensor) -> None:
    expect(t.ndim == 3 and t.shape[0] == x.shape[0], name, "[B, gh, gw]", list(t.shape))
    height, width = x.shape[-2:]
    gh, gw = t.shape[1:]
    fits = gh > 0 and gw > 0 and height % gh == 0 and width % gw == 0
    expect(fits, name, f"a grid that divides {height} x {width}", (gh, gw))
