"""The public ops that mix a batch: checks, then one call into ``ops.py``.

Every check happens here, in Python, before anything is written. Values that live on a GPU are
never read: plans are checked where they are built, and kernels clamp partners and boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import kind
from .backends import implementation
from .checks import check_batch, check_memory, check_out, check_writable, span
from .dtypes import BLENDABLE
from .frozen import count_write
from .memory import recycled_tensor
from .plan.checks import check_no_pool
from .plan.mix_plan import MixPlan
from .reference.masks import mix_with, paste_rows, pool_rows
from .reference.pairing import partner_rows
from .schemas import MaskArguments
from .tracing import transforms_active


def mix_(x: Tensor, plan: MixPlan, *, other: Tensor | None = None) -> Tensor:
    """Mix a batch in place: MixUp, CutMix, or both, as ``plan`` says. No copy of the batch.

    ``x[i] = x[partner_i]`` inside box_i, else ``blend_i0 * x[i] + blend_i1 * x[partner_i]``, always
    on the original values.

    Equivalent to (for a plan without boxes)::

        w = blend.to(x.dtype).view(B, 2, *[1] * (x.ndim - 1))
        x.copy_(x * w[:, 0] + x[partner] * w[:, 1])

    Args:
        x: [B, …], float16, bfloat16, float32, float64 or uint8; any strides. The last D dims are
            the axes of the plan's boxes.
        plan: a plan for B samples.
        other: [M, …], where the partners are taken from in place of x, as in :func:`mix`.

    Returns:
        x itself.

    Raises:
        TypeError: a dtype that cannot be blended (token ids, for example), or no tensor.
        ValueError: another batch size or device than the plan's, a box outside the image, a
            tensor that requires grad (use :func:`mix`), one whose elements share memory, or
            ``other`` in memory of x.

    Notes:
        Arithmetic is float32 (float64 for float64), products and sum rounded one by one, so that
        float32 equals eager PyTorch bit for bit; half types are rounded once, at the end. uint8
        rounds half to even. A weight of exactly 0 drops its term. Deterministic. Under
        torch.compile values are not checked: kernels clamp partners and boxes.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    check_batch("x", x, plan, BLENDABLE)
    check_writable("x", x, "use mix(x, plan), which is differentiable")
    if other is not None:
        _mix_from_(x, plan, other)
        return x
    check_no_pool(plan.pool)
    rows = plan.partner_or_none, plan.blend, plan.box, plan.rule
    if plan.mask is None:
        implementation().mix_(x, *rows)
    elif plan.pairing in ("flip", "self"):
        implementation().mix_masked_(x, *rows, *plan.mask.arguments)
    else:  # rows that wait for each other need a copy
        x.copy_(implementation().mix_masked(x, *rows, *plan.mask.arguments))
    count_write(x)
    return x


def mix(
    x: Tensor,
    plan: MixPlan,
    out: Tensor | None = None,
    *,
    other: Tensor | None = None,
    clean: bool = False,
) -> Tensor:
    """Mix a batch out of place, differentiable. See :func:`mix_` for the rule and the numerics.

    Equivalent to (for a plan without boxes)::

        w = blend.to(x.dtype).view(B, 2, *[1] * (x.ndim - 1))
        x * w[:, 0] + x[partner] * w[:, 1]

    Args:
        x: [B, …], float16, bfloat16, float32, float64 or uint8; any strides.
        plan: a plan for B samples.
        out: written instead of a new tensor; shape, dtype and device of x, no memory shared with
            x. As everywhere in PyTorch, ``out`` and gradients exclude each other.
        other: [M, …], where the partners are taken from in place of x: the last batch, a memory
            bank, the unlabelled half. Dtype, device and samples as in x. A plan for M other than B
            is made with ``pool=M``.
        clean: return [2B, …], the batch as it is and behind it the mixed one, in one pass.

    Returns:
        A tensor like x (its memory format kept), or ``out``.

    Raises:
        TypeError, ValueError: as :func:`mix_`; an ``out`` that does not fit.

    Notes:
        The backward is the same kernel with the plan transposed; it works for pairings that are
        no permutation, and double backward works too. torch.func (grad, vmap, jvp) and forward-mode
        differentiation get the same values from plain PyTorch, which is slower. On the CPU each
        process reuses the memory of the last four results and gradients of 1 to 256 MiB (contiguous
        and channels_last) once nothing references them: fresh memory costs three times the mixing.

    Source: Zhang et al., 2018, arXiv 1710.09412; Verma et al., Manifold Mixup, 2019,
    arXiv 1806.05236.
    """
    check_batch("x", x, plan, BLENDABLE)
    if other is not None or clean or plan.mask is not None or plan.pool is not None:
        pooled = other is not None or clean or plan.pool is not None
        mixed = _mix_pool(x, plan, out, other, clean) if pooled else _mix_by_mask(x, plan, out)
        if out is not None:
            count_write(out)
        return mixed
    if out is not None:
        check_out(x, out)
        implementation().mix_out(x, plan.partner_or_none, plan.blend, plan.box, plan.rule, out)
        count_write(out)
        return out
    return implementation().mix(x, plan.partner_or_none, plan.blend, plan.box, plan.rule)


def paste_(x: Tensor, plan: MixPlan) -> Tensor:
    """Paste the plan's boxes in place and touch nothing else: for masks and class maps.

    ``x[i] = x[partner_i]`` inside box_i, on the original values; with a mask also where m < ½.

    Equivalent to::

        x.copy_(torch.where(inside_box, x[partner], x))

    Args:
        x: [B, …, spatial], any dtype, any strides.
        plan: a plan for B samples that pastes but does not blend.

    Returns:
        x itself.

    Raises:
        TypeError, ValueError: as :func:`mix_` (any dtype is legal here); a plan that the host knows
            to blend: class indices cannot be blended.

    Notes:
        In place, without a copy, for any pairing; bits are moved, never read. Deterministic.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    check_batch("x", x, plan, None)
    check_writable("x", x, "detach it first")
    if plan.blends and plan.mask is None:
        raise ValueError(
            "plan: expected one that only pastes boxes (CutMix), got one that blends values; "
            "labels and masks cannot be blended: use mix_ for images, MixedTarget for labels"
        )
    check_no_pool(plan.pool)
    if plan.mask is not None:
        _paste_by_mask_(x, plan)
    else:
        implementation().paste_(x, plan.partner_or_none, plan.box, plan.rule)
    count_write(x)
    return x


# ------------------------------------------------------------------ masks and pools

NO_MASK = MaskArguments(None, None, None, None, None, 0)


def mask_arguments(plan: MixPlan) -> MaskArguments:
    return NO_MASK if plan.mask is None else plan.mask.arguments


def plan_arguments(plan: MixPlan) -> tuple[Tensor | None, Tensor, Tensor, int]:
    return plan.partner_or_none, plan.blend, plan.box, plan.rule


def _mix_from_(x: Tensor, plan: MixPlan, other: Tensor) -> None:
    """``mix_`` with partners from ``other``; x has been checked."""
    pool = _check_other(x, plan, other)
    if torch.is_grad_enabled() and pool.requires_grad:
        raise ValueError(
            "other: expected a tensor that does not require grad, as x is written, got one that "
            "does; use mix(x, plan, other=other), which is differentiable"
        )
    if _touch(x, pool):
        raise ValueError("other: expected memory of its own, got memory of x, which is written")
    rows = plan_arguments(plan)
    implementation().mix_masked_out(x, pool, *rows, *mask_arguments(plan), False, x)
    count_write(x)


def _mix_by_mask(x: Tensor, plan: MixPlan, out: Tensor | None) -> Tensor:
    """``mix`` by a plan that has a mask; the arguments but ``out`` have been checked."""
    arguments = *plan_arguments(plan), *mask_arguments(plan)
    if out is None:
        return implementation().mix_masked(x, *arguments)
    check_out(x, out)
    implementation().mix_masked_out(x, None, *arguments, False, out)
    return out


def _mix_pool(
    x: Tensor, plan: MixPlan, out: Tensor | None, other: Tensor | None, clean: bool
) -> Tensor:
    """``mix`` with partners from ``other``, or behind the clean batch; x has been checked."""
    pool = _check_other(x, plan, other)
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or pool.requires_grad)
    if needs_grad or transforms_active():
        if out is not None:
            raise ValueError("out: expected no gradients of x and other; leave out away")
        partners = pool_rows(pool, plan.partner_or_none, plan.rule, len(x))
        mixed = mix_with(x, partners, plan.blend, plan.box, mask_arguments(plan))
        return torch.cat((x, mixed)) if clean else mixed
    if out is None:
        out = _new_result(x, clean)
    else:
        for t in (x, pool):
            _check_pool_out(t, x, out, clean)
    rows = plan_arguments(plan)
    implementation().mix_masked_out(x, other, *rows, *mask_arguments(plan), clean, out)
    return out


def _paste_by_mask_(x: Tensor, plan: MixPlan) -> Tensor:
    """``paste_`` by a plan that has a mask: the partner where m < ½, and in the box."""
    partners = partner_rows(x, plan.partner_or_none, plan.rule)
    x.copy_(paste_rows(x, partners, plan.box, mask_arguments(plan)))
    return x


def _new_result(x: Tensor, clean: bool) -> Tensor:
    """An empty tensor [B or 2B, …] in the memory format of x."""
    like = torch.empty_like(x, device="meta")
    shape = torch.Size(((2 if clean else 1) * x.shape[0], *x.shape[1:]))
    batch_first = x.shape[0] < 2 or like.stride(0) == max(like.stride())
    stride = like.stride() if batch_first else None
    if x.is_cpu and not torch.compiler.is_compiling():
        return recycled_tensor(shape, x.dtype, stride)
    if stride is None:
        return torch.empty(shape, dtype=x.dtype, device=x.device)
    return torch.empty_strided(shape, stride, dtype=x.dtype, device=x.device)


def _check_other(x: Tensor, plan: MixPlan, other: Tensor | None) -> Tensor:
    """The tensor that partners are taken from."""
    if other is None:
        if plan.pool is not None:
            raise ValueError(
                f"other: expected the {plan.pool} samples that the plan takes partners from, got "
                "None"
            )
        return x
    if not isinstance(other, Tensor):
        raise TypeError(f"other: expected a tensor [M, …] like x, got {kind(other)}")
    check_memory("other", other)
    count = x.shape[0] if plan.pool is None else plan.pool
    expected = (count, *x.shape[1:])
    if (other.shape, other.dtype, other.device) != (expected, x.dtype, x.device):
        alike = (other.shape[1:], other.dtype, other.device) == (x.shape[1:], x.dtype, x.device)
        remedy = "; make a plan with pool=M" if alike else ""
        raise ValueError(
            f"other: expected {list(expected)} {x.dtype} on {x.device}, got {list(other.shape)} "
            f"{other.dtype} on {other.device}{remedy}"
        )
    return other


def _check_pool_out(t: Tensor, x: Tensor, out: Tensor, clean: bool) -> None:
    expected = ((2 if clean else 1) * x.shape[0], *x.shape[1:])
    if not isinstance(out, Tensor):
        raise TypeError(f"out: expected a tensor, got {kind(out)}")
    if (out.shape, out.dtype, out.device) != (expected, x.dtype, x.device):
        raise ValueError(
            f"out: expected {list(expected)} {x.dtype} on {x.device}, got {list(out.shape)} "
            f"{out.dtype} on {out.device}"
        )
    check_writable("out", out, "detach it first")
    if _touch(t, out):
        raise ValueError("out: expected memory of its own, got memory of x or other")


def _touch(a: Tensor, b: Tensor) -> bool:
    """Whether a lies in memory between the first and the last element of b, or b of a."""
    if torch.compiler.is_compiling() or not a.numel() or not b.numel():
        return False
    (first, last), (other_first, other_last) = span(a), span(b)
    return first <= other_last and other_first <= last
