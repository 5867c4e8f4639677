"""The calls of the ops of masks whose machine code is read, for ``triton_machine_code.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import fused_mixup.triton_kernels as tk
from fused_mixup import codes
from fused_mixup.plan import MixPlan
from fused_mixup.reference.pairing import transpose_pairing
from fused_mixup.schemas import MaskArguments


def _mask(
    batch: int,
    rank: int = 1,
    map_dtype: torch.dtype | None = None,
    interpolation: int = codes.NEAREST,
    size: int = 32,
) -> MaskArguments:
    code, threshold = torch.zeros(batch, dtype=torch.int32), torch.zeros(batch)
    tables = [torch.zeros(batch, rank, size) if rank else None] * 2
    stored = torch.zeros(batch, 7, 7, dtype=map_dtype) if map_dtype else None
    return MaskArguments(code, threshold, *tables, stored, interpolation)


def _plan(plan: MixPlan) -> tuple:
    return plan.partner_or_none, plan.blend, plan.box, plan.rule


def mask_cases(full: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """(name, call); ``full`` adds dtypes and layouts."""
    half, single, double = torch.bfloat16, torch.float32, torch.float64

    def image(dtype=half, batch=32, size=32):
        return torch.zeros(batch, 3, size, size, dtype=dtype)

    flip = MixPlan.uniform(32, "flip", 0.3)
    shuffled = MixPlan.per_sample(torch.rand(32), torch.randperm(32))
    boxes = MixPlan.per_sample(torch.rand(32), torch.randperm(32), box=[[0, 0, 8, 8]] * 32)

    def backward(x, plan, mask):
        transposed = transpose_pairing(plan.partner) if plan.rule == 0 else (None, None)
        partner, *rest = _plan(plan)
        tk.mix_masked_backward(x, partner, *transposed, *rest, *mask)

    def both(x, mask):
        out = torch.empty(64, *x.shape[1:], dtype=x.dtype)
        tk.mix_masked_out(x, x, *_plan(boxes), *mask, True, out)

    yield "mask mix_ flip bf16", lambda: tk.mix_masked_(image(), *_plan(flip), *_mask(32))
    yield "mask mix flip bf16", lambda: tk.mix_masked(image(), *_plan(flip), *_mask(32, 3))
    yield "mask mix tensor fp32", lambda: tk.mix_masked(image(single), *_plan(shuffled), *_mask(32))
    bilinear = _mask(32, 4, half, codes.BILINEAR)
    yield "mask mix everything bf16", lambda: tk.mix_masked(image(), *_plan(boxes), *bilinear)
    yield "mask mix clean bf16", lambda: both(image(), _mask(32, 3, torch.bool))
    yield "mask mix backward bf16", lambda: backward(image(), shuffled, _mask(32))
    yield "mask mean", lambda: tk.mask_mean(*_mask(32, 4, half, codes.BILINEAR, 1024), 1024, 1024)
    for batch, size in ((8, 32), (31, 64)):
        plan = MixPlan.uniform(batch, "flip", 1 / batch)
        yield (
            "mask again",
            lambda b=batch, p=plan, s=size: tk.mix_masked(
                image(batch=b, size=s), *_plan(p), *_mask(b, size=s)
            ),
        )
    if not full:
        return
    for name, dtype in (("uint8", torch.uint8), ("fp64", double)):
        yield (
            f"mask mix flip {name}",
            lambda d=dtype: tk.mix_masked_(image(d), *_plan(flip), *bilinear),
        )
    last = image().contiguous(memory_format=torch.channels_last)
    yield "mask mix channels_last", lambda: tk.mix_masked(last, *_plan(boxes), *bilinear)
    odd = torch.zeros(32, 5, 33, 32)[..., ::2, :]
    yield "mask mix strided", lambda: tk.mix_masked(odd, *_plan(shuffled), *_odd(32, 17))
    yield "mask mix backward flip fp64", lambda: backward(image(double), flip, bilinear)
    yield "mask mix backward everything", lambda: backward(image(), boxes, bilinear)


def _odd(batch: int, height: int) -> MaskArguments:
    mask = _mask(batch)
    return mask._replace(rows=torch.zeros(batch, 1, height))
