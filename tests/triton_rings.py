"""Launches of the rings of bulk copies, for ``triton_machine_code.py``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import torch

import fused_mixup.triton_kernels as tk
from fused_mixup.experimental import VARIABLE
from fused_mixup.plan import MixPlan


def _mix(batch: int, dtype: torch.dtype, pairing, boxed: bool = False) -> None:
    x = torch.zeros(batch, 3, 32, 64, dtype=dtype)
    if boxed or isinstance(pairing, torch.Tensor):
        boxes = [[0, 0, 8, 8]] * batch if boxed else None
        plan = MixPlan.per_sample(torch.rand(batch), pairing, box=boxes)
    else:
        plan = MixPlan.uniform(batch, pairing, 0.3)
    os.environ[VARIABLE] = "1"  # no GPU has run these kernels yet
    try:
        tk.mix_(x, plan.partner_or_none, plan.blend, plan.box, plan.rule)
    finally:
        del os.environ[VARIABLE]


def ring_cases() -> Iterator[tuple[str, Callable[[], None]]]:
    half, single, double = torch.bfloat16, torch.float32, torch.float64
    for name, dtype in (("fp32", single), ("bf16", half), ("uint8", torch.uint8), ("fp64", double)):
        yield f"ring flip {name}", lambda d=dtype: _mix(32, d, "flip")
    for name, dtype in (("fp32", single), ("bf16", half)):
        yield f"ring 256 {name}", lambda d=dtype: _mix(256, d, torch.randperm(256))
    yield "ring flip bf16 boxes", lambda: _mix(32, half, "flip", boxed=True)
    yield "ring roll fp16 200", lambda: _mix(200, torch.float16, "roll")
    yield "ring 32 fp64", lambda: _mix(32, double, torch.randperm(32))
