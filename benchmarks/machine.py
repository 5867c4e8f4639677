"""The machine, the versions and the settings, on which every figure depends."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

import fused_mixup as fm
from fused_mixup import backends

from .timing import last_level_cache

PACKAGES = (
    "triton",
    "numpy",
    "timm",
    "torchvision",
    "kornia",
    "keras",
    "liger-kernel",
    "pytest-benchmark",
)
# OpenMP reads these when PyTorch loads, and keeps each thread on its own core.
PINNED = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}


def machine(device: str) -> dict:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0].split(":", 1)[1].strip() if models else name
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "device": gpu or name,
        "cpu": name,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cache_mib": last_level_cache() // 2**20,
    }


def versions() -> dict:
    found = {
        "fused_mixup": fm.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def best_isa() -> str:
    """The best instruction set of the CPU kernels that this machine runs; "" without kernels."""
    if backends.reason_unavailable("native", "CPU") is not None:
        return ""
    return importlib.import_module("fused_mixup._C").cpu_capability()


def settings(device: str, full: bool, seconds: float, isa: str) -> dict:
    return {
        "device": device,
        "full": full,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "pinned": " ".join(f"{k}={os.environ.get(k, v)}" for k, v in PINNED.items()),
        "backend": backends.chosen(device.upper()),
        "isa": isa if device == "cpu" else "",
    }


def today() -> str:
    return datetime.date.today().isoformat()
