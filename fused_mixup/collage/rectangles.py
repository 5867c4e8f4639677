"""The public function that pastes rectangles of other samples: :func:`mix_rectangles`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import kind
from ..backends import implementation
from ..dtypes import BLENDABLE
from ..frozen import count_write
from ..plan.rectangles import RectanglePlan
from .checks import check_movable, check_result, check_samples, new_result


def mix_rectangles(
    x: Tensor,  # [B, …, H, W]
    plan: RectanglePlan,
    other: Tensor | None = None,  # [M, …, H, W]
    out: Tensor | None = None,  # [B, …, H', W']
) -> Tensor:
    """Paste rectangles of other samples into a batch, resampled on the way: one pass, no copies.

    ``out[i, …, box_ik] = resample(x[source_ik, …, source_box_ik])`` for k = 0 … R-1, a later one
    over an earlier one, on ``x[i]`` itself or, with the plan's ``fill``, on a canvas of its size.
    Sources are always the original values.

    Equivalent to (ResizeMix: the whole partner in one box for all samples)::

        top, left, bottom, right = box
        small = torch.nn.functional.interpolate(x[partner], (bottom - top, right - left))
        out = x.clone()
        out[..., top:bottom, left:right] = small

    Args:
        x: [B, …, H, W], any strides. float16, bfloat16, float32, float64 or uint8 where the plan
            interpolates; any dtype for ``"none"`` and ``"nearest"``, which move values: class maps,
            and token ids [B, T] as ``ids.view(B, 1, T)``.
        plan: a plan for B samples.
        other: [M, …, H, W], samples that the plan's sources index instead of those of x (the last
            batch in RecursiveMix, a memory bank). Same dtype, device and shape of a sample.
        out: written instead of a new tensor; memory of its own.

    Returns:
        [B, …, H, W], or of the plan's ``size``, in the memory format of x; or ``out``.

    Raises:
        TypeError: a dtype that cannot be interpolated, or no tensor.
        ValueError: another batch size or device than the plan's, a rectangle outside, samples of
            another shape, a tensor that requires grad (there is no gradient: detach it).
        IndexError: a source that is no sample. Values are checked where they live on the CPU;
            kernels clamp them.

    Notes:
        Indices and weights are float32, as those of ``torch.nn.functional.interpolate`` for float32
        images: ``"nearest"`` equals it bit for bit; ``"bilinear"`` rounds each product and sum by
        itself, where PyTorch may fuse them: results differ by 2 units in the last place of the
        largest of the four values, and by one of the index times their difference. A weight of 0
        drops its term. Half types and uint8 are computed in float32 and rounded once (uint8 half to
        even), as PyTorch does for half, and not for uint8, where it
        computes in 16-bit integers. Not differentiable. Deterministic.

    Source: Qin et al., ResizeMix, 2020, arXiv 2012.11101; Yang et al., RecursiveMix, 2022,
    arXiv 2203.06844; Takahashi et al., RICAP, 2018, arXiv 1811.09030.
    """
    if not isinstance(plan, RectanglePlan):
        raise TypeError(f"plan: expected a RectanglePlan, got {kind(plan)}")
    check_samples("x", x, None if plan.moves else BLENDABLE)
    size = plan.size
    extent = tuple(x.shape[-2:])
    _check_plan(x, plan)
    if other is not None:
        _check_other(x, other)
    if size is not None and plan.fill is None and size != extent:
        raise ValueError(
            f"plan: expected size={extent} as x has without a fill, got {size}; give fill=0 for a "
            "canvas of another size"
        )
    if plan.fill is not None:
        check_fill(plan.fill, x.dtype)
    whole = extent if size is None or plan.fill is None else size
    if not torch.compiler.is_compiling():
        name, images = ("x", x) if other is None else ("other", other)
        plan.check_fit(images.shape[0], name, extent, whole)
    shape = torch.Size((*x.shape[:-2], *whole))
    if out is None:
        out = new_result(x, shape)
    else:
        check_result(out, shape, x, *([] if other is None else [other]))
    implementation().mix_rectangles(
        x, other, plan.source, plan.source_box, plan.box, plan.scale, plan.rule, plan.fill, out
    )
    count_write(out)
    return out


def _check_plan(x: Tensor, plan: RectanglePlan) -> None:
    if x.shape[0] != plan.batch_size:
        raise ValueError(
            f"x: expected shape [{plan.batch_size}, …] as in plan, got {list(x.shape)}; make a "
            "plan for this batch size"
        )
    if plan.device != x.device:
        raise ValueError(
            f"plan: expected it on {x.device} like x, got {plan.device}; "
            f"use plan.to({str(x.device)!r})"
        )


def _check_other(x: Tensor, other: Tensor) -> None:
    check_samples("other", other, None)
    if (other.dtype, other.device) != (x.dtype, x.device):
        raise ValueError(
            f"other: expected {x.dtype} on {x.device} like x, got {other.dtype} on {other.device}"
        )
    if other.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"other: expected samples of shape {list(x.shape[1:])} as in x, got "
            f"{list(other.shape[1:])}; resize them first"
        )
    if other.shape[0] == 0 and x.shape[0]:
        raise ValueError("other: expected at least one sample, got none")


def check_fill(fill: float, dtype: torch.dtype) -> None:
    """Raise ValueError for a fill that integers of this dtype do not hold."""
    check_movable("fill", dtype)
    if dtype.is_floating_point:
        return
    low, high = (0, 1) if dtype == torch.bool else _bounds(dtype)
    if not low <= fill <= high or fill != int(fill):
        raise ValueError(
            f"fill: expected a whole number from {low} to {high}, as x is {dtype}, got {fill}"
        )


def _bounds(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return max(info.min, -(2**53)), min(info.max, 2**53)  # the integers that a float holds
