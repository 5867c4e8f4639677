"""Chooses the backends of a GPU test; without a GPU one skipped test stands for all cases."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from gpu_cases import QUICK

from fused_mixup import backends
from fused_mixup.schemas import WITHOUT_KERNEL

GPU = torch.cuda.is_available()


def cases_with_kernel(cases, backend: str):
    """Those whose op has a kernel in ``backend``, if that runs at all."""
    missing = {op for op, places in WITHOUT_KERNEL.items() if (backend, "CUDA") in places}
    return [case for case in cases if case.op not in missing]


def skipped_case(why: str, name: str, values: int, *marks):
    """The one skipped test that stands for all cases that cannot run."""
    return pytest.param(*[None] * values, marks=[pytest.mark.skip(reason=why), *marks], id=name)


def run_on_gpu(each_quick_case: bool = False, gpus: int = 1):
    """Run a test for each ``kernel_backend`` on CUDA, and for each quick case if asked.

    The reference is left out. It is written for readers: it copies rows from the host, which
    synchronises, and makes full-size temporaries.
    """
    names, gpu = ["kernel_backend", *["case"] * each_quick_case], pytest.mark.gpu
    found = []
    if torch.cuda.device_count() < gpus or not GPU:
        why = "needs a second GPU" if GPU else "PyTorch sees no GPU"
        found.append(skipped_case(why, "none", len(names), gpu))
    else:
        for name in ("native", "triton"):
            why = backends.reason_unavailable(name, "CUDA")
            if why is not None:
                why = f"{name} on cuda: {why}"
                found.append(skipped_case(why, f"cuda-{name}", len(names), gpu))
            elif each_quick_case:
                found += [
                    pytest.param(name, c, id=f"cuda-{name}-{c}", marks=gpu)
                    for c in cases_with_kernel(QUICK, name)
                ]
            else:
                found.append(pytest.param(name, id=f"cuda-{name}", marks=gpu))
    return pytest.mark.parametrize(names, found, indirect=["kernel_backend"])


def interpreted_cases() -> list:
    if os.environ.get("TRITON_INTERPRET") != "1":
        return [skipped_case("Triton runs on the GPU, not interpreted", "none", 1)]
    if importlib.util.find_spec("triton") is None:
        return [skipped_case("Triton is not installed", "none", 1)]
    return [pytest.param(case, id=str(case)) for case in cases_with_kernel(QUICK, "triton")]
