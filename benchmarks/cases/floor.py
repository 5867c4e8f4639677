"""Times the copy of a tensor: the floor that every share refers to."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import fused_mixup as fm
from fused_mixup import MixPlan

from ..registry import FLOOR, OURS, Case, Provider, Work
from ..timing import cache_bytes, rotate


def copy(case: Case, device: str) -> Work:
    """PyTorch's threaded copy on the CPU; our own kernel, 16 bytes a thread, on a GPU."""
    xs = rotate(lambda: torch.randn(case.shape, device=device))
    out = torch.empty_like(xs[0])
    identity = MixPlan.identity(case.shape[0])
    run = out.copy_ if device == "cpu" else lambda x: fm.mix(x, identity, out=out)
    size = out.numel() * out.element_size()
    return Work(xs, {OURS: Provider(run)}, torch.clone, size, size)


def cases(device: str) -> Iterator[Case]:
    # On a GPU the cache would hold much of a target of its own size.
    rows = cache_bytes(device) * (1 if device == "cpu" else 4) // 2**20
    shape = (rows, 2**20 // torch.float32.itemsize)
    yield Case(FLOOR, "all of a batch", shape, torch.float32, copy, FLOOR)
