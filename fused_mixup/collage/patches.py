"""The public function that rearranges patches: :func:`mix_patches`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import kind
from ..backends import implementation
from ..dtypes import BLENDABLE
from ..frozen import count_write
from ..plan.patches import PatchPlan
from .checks import check_result, check_samples, new_result


def mix_patches(
    x: Tensor,  # [B, …, H, W]
    plan: PatchPlan,
    out: Tensor | None = None,  # [B, …, H, W]
) -> Tensor:
    """Take each patch of a batch from elsewhere, and blend two such images by a mask: one pass.

    ``T(x)[i, j] = x[sample_ij, index_ij]`` for patch j, zeros where ``index_ij < 0``; with a mask
    ``out = m · T(x) + (1 - m) · T'(x)``. Sources are always the original values.

    Equivalent to (PuzzleMix: a transport of each side, and a mask, both on the grid of patches)::

        own, theirs = transport(x, plan.index), transport(x[plan.partner], plan.partner_index)
        m = torch.nn.functional.interpolate(plan.mask[:, None], x.shape[-2:])
        m * own + (1 - m) * theirs

    Args:
        x: [B, …, H, W], any strides; float16, bfloat16, float32, float64 or uint8 where the plan
            has a mask, any dtype where it only moves patches.
        plan: a plan for B samples. Its grids have to divide H and W.
        out: written instead of a new tensor, of shape, dtype and device of x; memory of its own.

    Returns:
        [B, …, H, W] in the memory format of x, or ``out``.

    Raises:
        TypeError: a dtype that cannot be blended, or no tensor.
        ValueError: another batch size or device than the plan's, a grid that does not divide x, a
            tensor that requires grad (there is no gradient: detach it).

    Notes:
        Arithmetic is float32 (float64 for float64), ``1 - m`` in float32, products and sum rounded
        one by one; half types are rounded once, uint8 half to even. m = 1 gives the bits of T(x),
        m = 0 those of T'(x): a weight of 0 drops its term. Pixel y lies in row ``y // (H / mh)`` of
        the mask, exactly; ``interpolate(mode="nearest")`` rounds, and for some sizes (41 pixels a
        cell) misses that. Indices that live on a GPU are clamped. Deterministic.

    Source: Kim et al., Puzzle Mix, 2020, arXiv 2009.06962; Kim et al., Co-Mixup, 2021,
    arXiv 2102.03065.
    """
    if not isinstance(plan, PatchPlan):
        raise TypeError(f"plan: expected a PatchPlan, got {kind(plan)}")
    check_samples("x", x, None if plan.mask is None else BLENDABLE)
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
    if not torch.compiler.is_compiling():
        plan.check_fit("x", x.shape[-2:])
    if out is None:
        out = new_result(x, x.shape)
    else:
        check_result(out, x.shape, x)
    implementation().mix_patches(
        x, plan.sample, plan.index, plan.partner, plan.partner_index, plan.mask, out
    )
    count_write(out)
    return out
