"""The public ops that mix a batch: checks, then one call into ``ops.py``.

Every check happens here, in Python, before anything is written. Values that live on a GPU are
never read: plans are checked where they are built, and kernels clamp partners and boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .backends import implementation
from .checks import check_batch, check_out, check_samples, check_samples_out, check_writable
from .dtypes import BLENDABLE
from .plan.mix_plan import MixPlan
from .tracing import transforms_active

if TYPE_CHECKING:
    from numpy import ndarray


def count_write(x: Tensor) -> None:
    """Bump x's version: autograd cannot see a kernel write, and must refuse graphs that saved x."""
    if not (torch.compiler.is_compiling() or transforms_active() or x.is_inference()):
        torch.autograd.graph.increment_version(x)


def mix_(x: Tensor, plan: MixPlan) -> Tensor:
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

    Returns:
        x itself.

    Raises:
        TypeError: a dtype that cannot be blended (token ids, for example), or no tensor.
        ValueError: another batch size or device than the plan's, a box outside the image, a
            tensor that requires grad (use :func:`mix`), or one whose elements share memory.

    Notes:
        Arithmetic is float32 (float64 for float64), products and sum rounded one by one, so that
        float32 equals eager PyTorch bit for bit; half types are rounded once, at the end. uint8
        rounds half to even. A weight of exactly 0 drops its term. Deterministic. Under
        torch.compile values are not checked: kernels clamp partners and boxes.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    check_batch("x", x, plan, BLENDABLE)
    check_writable("x", x, "use mix(x, plan), which is differentiable")
    implementation().mix_(x, plan.partner_or_none, plan.blend, plan.box, plan.rule)
    count_write(x)
    return x


def mix(x: Tensor, plan: MixPlan, out: Tensor | None = None) -> Tensor:
    """Mix a batch out of place, differentiable. See :func:`mix_` for the rule and the numerics.

    Equivalent to (for a plan without boxes)::

        w = blend.to(x.dtype).view(B, 2, *[1] * (x.ndim - 1))
        x * w[:, 0] + x[partner] * w[:, 1]

    Args:
        x: [B, …], float16, bfloat16, float32, float64 or uint8; any strides.
        plan: a plan for B samples.
        out: written instead of a new tensor; shape, dtype and device of x, no memory shared with
            x. As everywhere in PyTorch, ``out`` and gradients exclude each other.

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
    if out is not None:
        check_out(x, out)
        implementation().mix_out(x, plan.partner_or_none, plan.blend, plan.box, plan.rule, out)
        count_write(out)
        return out
    return implementation().mix(x, plan.partner_or_none, plan.blend, plan.box, plan.rule)


def paste_(x: Tensor, plan: MixPlan) -> Tensor:
    """Paste the plan's boxes in place and touch nothing else: for masks and class maps.

    ``x[i] = x[partner_i]`` inside box_i, on the original values.

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
    if plan.blends:
        raise ValueError(
            "plan: expected one that only pastes boxes (CutMix), got one that blends values; "
            "labels and masks cannot be blended: use mix_ for images, MixedTarget for labels"
        )
    implementation().paste_(x, plan.partner_or_none, plan.box, plan.rule)
    count_write(x)
    return x


def mix_samples(
    samples: Sequence[Tensor | ndarray], plan: MixPlan, out: Tensor | None = None
) -> Tensor:
    """Mix samples that lie apart in memory straight into a batch: what a collate function does.

    ``out[i] = samples[partner_i]`` inside box_i, else
    ``blend_i0 * samples[i] + blend_i1 * samples[partner_i]``. Neither a stacked copy nor a float
    copy of an image is made: samples are read, and the batch is written once.

    Equivalent to::

        mix(torch.stack(samples), plan)[: len(out)]

    Args:
        samples: B tensors or NumPy arrays […], alike in shape and dtype, on the CPU: float16,
            bfloat16, float32, float64 or uint8; any strides.
        plan: a plan for B samples.
        out: [n, …] with n <= B, written instead of a new tensor of B rows: the first n mixes,
            of all B samples. It may be pinned or shared memory, but no memory of a sample.

    Returns:
        [B, …], contiguous, or ``out``.

    Raises:
        TypeError: no sequence of tensors and arrays (PIL images, for example), dtypes that differ
            or cannot be blended.
        ValueError: no samples, shapes that differ, another batch size than the plan's, a box
            outside the image, samples that are not on the CPU or require grad, an ``out`` that
            does not fit.

    Notes:
        Numerics are those of :func:`mix_`. Fastest where all samples have the same strides, either
        those of ``out`` or with channels last, as decoders give images; samples with other strides
        than the first are copied. Samples are never written, so arrays may be read-only. CPU only:
        forcing the Triton backend raises. Deterministic.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    tensors = check_samples(samples)
    first = tensors[0]
    check_batch("samples", first.expand(len(tensors), *first.shape), plan, None)
    if out is None:
        out = torch.empty((len(tensors), *first.shape), dtype=first.dtype, device=first.device)
    else:
        check_samples_out(tensors, out)
    implementation().mix_samples(
        tensors, plan.partner_or_none, plan.blend, plan.box, plan.rule, out
    )
    count_write(out)
    return out
