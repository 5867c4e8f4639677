"""``python -m fused_mixup.env``: what is installed and built, and which backend serves each op."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from typing import Any

import torch

from . import backends, memory
from .experimental import VARIABLE, experimental
from .forcing import BACKENDS, forced
from .gpus import form_of
from .names import MODULES
from .schemas import SCHEMAS


def report() -> str:
    """The environment as text: versions, hardware, compiled modules, choice of backend per op."""
    sections = {
        "fused_mixup": _version_rows(),
        "compiled modules": _module_rows(),
        f"chosen (backend: {forced()}; see FUSED_MIXUP_BACKEND)": _chosen_rows(),
        "not chosen": _other_rows(),
    }
    return "\n\n".join("\n".join([title, *_align(rows)]) for title, rows in sections.items())


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _version_rows() -> list[tuple[str, ...]]:
    package = importlib.import_module(__package__)
    off = memory.reason_off
    gpus = [f"{torch.cuda.get_device_name(i)}{_runs(i)}" for i in range(_gpu_count())]
    return [
        ("version", getattr(package, "__version__", "unknown")),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("PyTorch", torch.__version__),
        ("CUDA", f"{torch.version.cuda or 'none'} (of PyTorch)"),
        ("Triton", _version("triton")),
        ("GPU", ", ".join(gpus) or "none visible"),
        ("CPU", f"{_cpu_capability()}, {torch.get_num_threads()} threads"),
        ("memory of results", f"not reused: {off}" if off else "reused"),
        ("experimental", _experimental()),
    ]


def _experimental() -> str:
    """Whether kernels that no GPU has run yet may be used."""
    if experimental():
        return "on"
    value = os.environ.get(VARIABLE) or "0"
    if value != "0":
        return f"off; {VARIABLE}: expected 0 or 1, got {value!r}; set it to 0 or 1"
    return f"off; {VARIABLE}=1 turns it on"


def _runs(gpu: int) -> str:
    """Which of the compiled kernels a GPU runs: nothing is said where none are loaded."""
    info = backends.build_info()
    if info is None or backends.reason_unavailable("native", "CUDA") is not None:
        return ""
    major, minor = torch.cuda.get_device_capability(gpu)
    form = form_of(info.ARCH_LIST or "", (major, minor))
    said = {"binary": "runs the compiled kernels", "PTX": "its driver compiles the kernels' PTX"}
    none = "has no compiled kernels; set FUSED_MIXUP_BACKEND=triton"
    return f" ({major}.{minor}: {said.get(form or '', none)})"


def _gpu_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cpu_capability() -> str:
    known = torch.backends.cpu.get_cpu_capability()
    if backends.reason_unavailable("native", "CPU") is not None:
        return known
    native = importlib.import_module(f".{MODULES['CPU']}", __package__)
    return f"{known} (kernels: {native.cpu_capability()})"


def _module_rows() -> list[tuple[str, ...]]:
    info = backends.build_info()
    rows: list[tuple[str, ...]] = []
    for device, name in MODULES.items():
        why = backends.reason_unavailable("native", device)
        if why is None:
            text = _build_text(info, name) if info else "built; no record of the build"
        else:
            text = why
        rows.append((name, text))
    return rows


def _build_text(info: Any, name: str) -> str:
    text = f"PyTorch {info.TORCH}, {info.COMPILER}"
    if name == "_C_cuda":
        text += f", CUDA {info.CUDA_TOOLKIT} for {info.ARCH_LIST}"
    return text + (", DEBUG" if info.DEBUG else "")


def _serving_backend(op: str, device: str) -> str:
    backend = backends.chosen(device, op)
    if backends.reason_unavailable(backend, device, op) is not None:
        return f"{backend}: error"  # a forced backend that cannot run
    return backend


def _chosen_rows() -> list[tuple[str, ...]]:
    rows = [(op, *(_serving_backend(op, device) for device in backends.DEVICES)) for op in SCHEMAS]
    return [("op", *backends.DEVICES), *rows]


def _other_rows() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for device in backends.DEVICES:
        chosen = backends.chosen(device)
        for backend in BACKENDS:
            why = backends.reason_unavailable(backend, device)
            if why is not None:
                rows.append((device, backend, why))
            elif backend != chosen:
                order = "is forced" if forced() != "auto" else "comes first"
                rows.append((device, backend, f"can run, but {chosen} {order}"))
    return rows


if __name__ == "__main__":
    print(report())
