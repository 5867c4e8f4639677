"""``mix_samples``: samples that lie apart in memory, mixed straight into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ..backends import implementation
from ..checks import check_batch, check_no_mask, check_samples, check_samples_out
from ..frozen import count_write
from ..plan.mix_plan import MixPlan
from .shared_batch import send_without_room

if TYPE_CHECKING:
    from numpy import ndarray


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
    check_no_mask(plan, "stack the samples and use mix(x, plan)")
    if not torch.compiler.is_compiling() and get_worker_info() is not None:
        send_without_room()
    if out is None:
        out = torch.empty((len(tensors), *first.shape), dtype=first.dtype, device=first.device)
    else:
        check_samples_out(tensors, out)
    implementation().mix_samples(
        tensors, plan.partner_or_none, plan.blend, plan.box, plan.rule, out
    )
    count_write(out)
    return out
