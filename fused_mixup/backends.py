"""Which implementation serves which device, and how to force one.

Order of choice, for each op:
    CUDA tensors   native (C++/CUDA extension), then Triton, then the reference
    CPU tensors    native (C++ extension), then the reference (Triton only under its interpreter)
    other devices  the reference

That choice is registered once, when the package is imported, and never again: a dispatcher that
changes while other threads look kernels up crashes them.

``FUSED_MIXUP_BACKEND=auto|native|triton|reference`` or :class:`backend` forces one. Ops of the
second namespace (``names.CHOSEN``) then look the backend up at each call. A forced backend that
cannot run raises, with the reason; it never falls back.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import gpus, ops, reference
from .forcing import BACKENDS, force_in_process, forced
from .names import CHOSEN, MODULES, NAMESPACE
from .ops import default_op
from .schemas import CPU_ONLY, SCHEMAS, WITHOUT_KERNEL
from .tracing import in_forward_mode, skip_autograd, transforms_active

DEVICES = ("CPU", "CUDA")  # dispatch keys that have kernels of their own

_HERE = os.path.realpath(os.path.dirname(__file__))
_INSTALL = "pip install --no-build-isolation"
_LEAVE = f"Run Python from another directory, or build this one: {_INSTALL} -e ."
_INSTRUCTION_SETS = ("", "baseline", "avx2", "avx512")  # "": the best that the CPU has

_NO_KERNEL_OF_CPU_ONLY = (("native", "CUDA"), ("triton", "CPU"), ("triton", "CUDA"))

_reasons: dict[tuple[str, str], str] = {}  # (backend, device) -> why it cannot run
_registered: list[torch.library.Library] = []  # alive, as a registration ends with its Library


def reason_unavailable(backend: str, device: str, op: str | None = None) -> str | None:
    """Why ``backend`` cannot serve tensors on ``device`` ("CPU", "CUDA"), or None if it can.

    With ``op``: why it cannot serve that op there. Some have a kernel on the CPU alone.
    """
    why = _reasons.get((backend, device))
    if why is None and op in CPU_ONLY and (backend, device) in _NO_KERNEL_OF_CPU_ONLY:
        return f"{op} has a kernel in the CPU extension alone, as its samples lie on the host"
    if why is None and op is not None and (backend, device) in WITHOUT_KERNEL.get(op, ()):
        return f"{op} has no kernel there; plain PyTorch runs it on the device"
    return why


def chosen(device: str, op: str | None = None) -> str:
    """The backend for ``device`` (or ``op`` there) now; a forced one even if it cannot run."""
    name = forced()
    return _default_backend(device, op) if name == "auto" else name


def _default_backend(device: str, op: str | None) -> str:
    order = BACKENDS if device == "CUDA" else ("native", "reference")
    return next(b for b in order if reason_unavailable(b, device, op) is None)


def _load_native(device: str) -> str | None:
    name = f"{__package__}.{MODULES[device]}"
    if device == "CUDA" and torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    if not _is_in_package(name):
        return _why_not_built(name)
    why = _cuda_mismatch(name) if device == "CUDA" else None
    if why is not None:
        return why
    try:
        importlib.import_module(name)
    except Exception as error:  # any error: the other backends still work
        return (
            f"{name} does not load: {type(error).__name__}: {error}; build it again for this "
            f"PyTorch ({torch.__version__}): {_INSTALL} ."
        )
    return None


def _is_in_package(module: str) -> bool:
    """Whether the module exists in this copy of the package."""
    return _folder_of(module) == _HERE


def _folder_of(module: str) -> str | None:
    # With an editable install of another checkout, find_spec returns that checkout's module.
    spec = importlib.util.find_spec(module)
    return os.path.realpath(os.path.dirname(spec.origin)) if spec and spec.origin else None


def _why_not_built(name: str) -> str:
    short = name.rpartition(".")[2]
    if (folder := next((f for f, names in _hidden().items() if short in names), None)) is not None:
        return (
            f"{name} is not built in {_HERE}, which hides the one installed in {folder}; {_LEAVE}"
        )
    info = build_info()
    if info and short in info.LEFT_OUT:
        why = f"{name} was left out when built: {info.LEFT_OUT[short]}"
        if info.TORCH_CUDA is None and torch.version.cuda:
            why += f". This PyTorch ({torch.__version__}) has it: {_INSTALL} ."
        return why
    what = "a C++ compiler" if short == "_C" else "nvcc (CUDA_HOME) and a CUDA PyTorch"
    return f"{name} is not built; install with {what}: {_INSTALL} -e ."


def build_info() -> Any:
    """The module that setup.py wrote beside the compiled ones, or None."""
    try:
        return importlib.import_module("._build_info", __package__)
    except ImportError:
        return None


def _cuda_mismatch(name: str) -> str | None:
    """Why a module may not be loaded: another CUDA runtime, or no kernels for this GPU."""
    info = build_info()
    if info is None:
        return None
    built, here = (str(v or "").split(".")[0] for v in (info.CUDA_TOOLKIT, torch.version.cuda))
    if built not in ("", here):  # it would load a second CUDA runtime next to PyTorch's
        return (
            f"{name} is built for CUDA {info.CUDA_TOOLKIT} (with PyTorch {info.TORCH}), and this "
            f"PyTorch ({torch.__version__}) is for CUDA {torch.version.cuda}; build it for this "
            f"one, with an nvcc of CUDA {here}: {_INSTALL} ."
        )
    why = gpus.why_none_runs(info.ARCH_LIST or "")
    return why and f"{name} is {why}; build it for this GPU: {_INSTALL} ."


def _hidden() -> dict[str, list[str]]:
    """Installed packages that this one hides: folder -> the modules that are compiled there."""
    missing = [name for name in MODULES.values() if not _is_in_package(f"{__package__}.{name}")]
    hidden: dict[str, list[str]] = {}
    for name in missing:
        for entry in sys.path:
            folder = os.path.join(os.path.realpath(entry), "fused_mixup")
            if any(os.path.exists(os.path.join(folder, name + end)) for end in EXTENSION_SUFFIXES):
                hidden.setdefault(folder, []).append(name)
        if (editable := _folder_of(f"{__package__}.{name}")) is not None:
            hidden.setdefault(editable, []).append(name)
    return hidden


def warn_where_shadowed(stacklevel: int) -> None:
    """Warn where this package has no compiled modules and hides an installed one that has.

    Once: processes that this one starts with multiprocessing stay silent.
    """
    hidden = _hidden()
    if hidden and multiprocessing.parent_process() is None:
        other, names = next(iter(hidden.items()))
        warnings.warn(
            f"fused_mixup is imported from {_HERE}, without the compiled {' and '.join(names)}, "
            f"and hides the one installed in {other}, which has it and is faster. {_LEAVE}",
            stacklevel=stacklevel + 1,
        )


def _load_triton() -> dict[str, str | None]:
    """Why Triton cannot serve each device. Triton itself is imported at the first call."""
    if importlib.util.find_spec("triton") is None:
        return dict.fromkeys(DEVICES, "Triton is not installed; pip install triton")
    # This does not ask for a GPU: that would initialise CUDA when the package is imported, and a
    # process with CUDA cannot be forked. A CUDA tensor is proof enough.
    built = torch.version.cuda or torch.version.hip
    gpu = None if built else f"this PyTorch ({torch.__version__}) is built without CUDA"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    cpu = None if interpreted else "Triton runs CPU tensors only with TRITON_INTERPRET=1"
    return {"CPU": cpu, "CUDA": gpu}


def _triton(name: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return getattr(importlib.import_module(".triton_kernels", __package__), name)(*args)

    return call


def _refuse_sparse(op: str, args: Iterable[Any]) -> None:
    """Raise ValueError for sparse tensors, which dispatch to no device's kernels."""
    for t in args:
        if isinstance(t, Tensor) and t.layout != torch.strided:
            raise ValueError(
                f"fused_mixup, {op}: expected dense tensors, got {t.layout}; use .to_dense()"
            )
        if isinstance(t, (list, tuple)):
            _refuse_sparse(op, t)


def _reference(name: str) -> Callable[..., Any]:
    """The reference, which raises where PyTorch takes None for a tensor."""
    arguments = SCHEMAS[name].lstrip("(").split(", ")

    def call(*args: Any) -> Any:
        for argument, t in zip(arguments, args, strict=False):
            if t is None and argument.startswith(("Tensor ", "Tensor(")):
                raise TypeError(
                    f"fused_mixup, {name}, {argument.split()[1]}: expected a tensor, got None"
                )
        return getattr(reference, name)(*args)

    return call


def _fallback(name: str) -> Callable[..., Any]:
    """The reference, for every device without kernels of its own."""
    run = _reference(name)

    def call(*args: Any) -> Any:
        _refuse_sparse(name, args)
        return run(*args)

    return call


def _forced_op(name: str, device: str | None) -> Callable[..., Any]:
    """The op of ``names.CHOSEN`` for a device; None for all devices without own kernels."""
    default, triton, run = default_op(name), _triton(name), _reference(name)

    def call(*args: Any) -> Any:
        backend = forced()
        if device is None:
            _refuse_sparse(name, args)
        if backend == "reference":
            return run(*args)
        if backend != "auto":
            _refuse_unavailable(backend, device, name)
        if backend == "triton":
            return triton(*args)
        with skip_autograd():  # native kernels are the default wherever they exist
            return default(*args)

    return call


def _refuse_unavailable(backend: str, device: str | None, op: str) -> None:
    if device is None:
        why: str | None = "it has no kernels for this device"
    else:
        why = reason_unavailable(backend, device, op)
    if why is not None:
        raise RuntimeError(
            f"the {backend} backend is forced but cannot run on {device or 'such'} tensors: {why}. "
            "Set FUSED_MIXUP_BACKEND=auto to let the package choose"
        )


def load() -> None:
    """Load what is built and register it; called once, when the package is imported."""
    instruction_set = os.environ.get("FUSED_MIXUP_CPU", "")
    if instruction_set not in _INSTRUCTION_SETS:
        raise ValueError(
            f"FUSED_MIXUP_CPU: expected one of {_INSTRUCTION_SETS[1:]}, got {instruction_set!r}"
        )
    force_in_process(os.environ.get("FUSED_MIXUP_BACKEND", "auto"))
    for device in DEVICES:
        why = _load_native(device)
        if why is not None:
            _reasons["native", device] = why
    for device, why in _load_triton().items():
        if why is not None:
            _reasons["triton", device] = why
    _registered[:] = (torch.library.Library(of, "IMPL") for of in (NAMESPACE, CHOSEN))
    defaults, choosing = _registered
    for name in SCHEMAS:
        # This key covers every device without kernels of its own.
        defaults.impl(name, _fallback(name), "CompositeExplicitAutograd")
        choosing.impl(name, _forced_op(name, None), "CompositeExplicitAutograd")
        for device in DEVICES:
            if _default_backend(device, name) == "triton":
                defaults.impl(name, _triton(name), device)
            choosing.impl(name, _forced_op(name, device), device)


def implementation() -> ModuleType:
    """The module to call ops in: ``ops``, or ``reference`` under transforms that the ops lack.

    Those are torch.func's (vmap, grad, jvp) and forward-mode differentiation.
    """
    return reference if transforms_active() or in_forward_mode() else ops
