"""Providers and tolerances that the families of cases share."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch

import fused_mixup as fm
from fused_mixup import backends

from . import rehearsal
from .registry import OURS, OURS_TRITON, Provider

LAM = 0.3
SMOOTHING = 0.1


def our_providers(
    run: Callable, device: str, tolerance: tuple[float, float] | None = None
) -> dict[str, Provider | str]:
    """Providers of the chosen backend, and of Triton's kernels where they can run."""
    found: dict[str, Provider | str] = {OURS: Provider(run, tolerance)}
    key = device.upper()
    why = backends.reason_unavailable("triton", key)
    if why is None and backends.chosen(key) == "triton":
        why = f"is what {OURS!r} is here"
    if why is None and device == "cpu":
        why = "Triton's interpreter tells nothing about speed"
    found[OURS_TRITON] = why or Provider(run, tolerance, backend="triton")
    return found


def compiler(run: Callable, device: str, tolerance: tuple[float, float]) -> Provider | str:
    """Provider of ``run`` under torch.compile, which compiles before the clock starts."""
    if rehearsal.is_rehearsal():
        return "a rehearsal compiles nothing"
    if device == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "torch.compile needs a C++ compiler on the CPU"
    return Provider(torch.compile(run, dynamic=False), tolerance)


def rounding(dtype: torch.dtype) -> tuple[float, float]:
    """(rtol, atol) of eager code in ``dtype``, which rounds after each of up to four steps.

    The terms are of order one; a small difference of them keeps their absolute error.
    """
    eps = torch.finfo(dtype).eps
    return 4 * eps, 8 * eps


def reference(run: Callable) -> Callable:
    """``run`` on the reference backend, which is plain PyTorch."""

    def call(x):
        with fm.backend("reference"):
            return run(x)

    return call
