"""Which of this machine's GPUs compiled kernels run on, asked without initialising CUDA.

A process that has initialised CUDA cannot be forked, so importing the package must not do it.
NVIDIA's management library tells the compute capabilities without.
"""

from __future__ import annotations

import ctypes
import re

Capability = tuple[int, int]  # (9, 0) is sm_90

_NAME = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?")


def capabilities() -> list[Capability]:
    """The compute capability of each GPU of this machine; [] where they cannot be asked for."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return []
        try:
            return _ask(nvml)
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):  # no driver, or one without these functions
        return []


def _ask(nvml: ctypes.CDLL) -> list[Capability]:
    count, found = ctypes.c_uint(), []
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    for i in range(count.value):
        gpu, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        if nvml.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(gpu)) != 0:
            return []  # one that this process may not see
        args = gpu, ctypes.byref(major), ctypes.byref(minor)
        if nvml.nvmlDeviceGetCudaComputeCapability(*args) != 0:
            return []
        found.append((major.value, minor.value))
    return found


def form_of(arch_list: str, gpu: Capability) -> str | None:
    """What a GPU runs of a build: "binary", "PTX", which its driver compiles, or None.

    Args:
        arch_list: as ``TORCH_CUDA_ARCH_LIST``: "8.0;9.0a;10.0+PTX". A name such as "Hopper"
            counts as a binary for every GPU.
    """
    forms = set()
    for name in arch_list.replace(" ", ";").split(";"):
        parts = _NAME.fullmatch(name)
        if name and parts is None:
            return "binary"
        if parts:
            arch, only, ptx = (int(parts[1]), int(parts[2])), parts[3], parts[4]
            same = gpu == arch if only == "a" else gpu[0] == arch[0] and gpu >= arch
            forms.add("binary" if same else None)
            forms.add("PTX" if ptx and not only and gpu >= arch else None)
    return next((form for form in ("binary", "PTX") if form in forms), None)


def why_none_runs(arch_list: str) -> str | None:
    """Why no GPU of this machine has kernels in a build; None where one has, or none is there."""
    found = capabilities()
    if not found or any(form_of(arch_list, gpu) for gpu in found):
        return None
    gpus = ", ".join(sorted({f"{major}.{minor}" for major, minor in found}))
    return f"built for {arch_list}, and the GPU here is {gpus}"
