"""Which implementation serves which device, and how to force one.

Order of choice, each op on its own:
    CUDA tensors   native (C++/CUDA extension), then Triton, then the reference
    CPU tensors    native (C++ extension), then the reference (Triton only under its interpreter)
    other devices  the reference

``FUSED_MIXUP_BACKEND=auto|native|triton|reference`` or :func:`backend` forces one. A forced
backend that cannot run raises when an op is called, with the reason; it never falls back.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterable, Iterator

import torch

from . import reference
from .ops import CPU_ONLY, NAMESPACE, SCHEMAS

BACKENDS = ("native", "triton", "reference")
DEVICES = ("CPU", "CUDA")  # dispatch keys that have kernels of their own
MODULES = {"CPU": "_C", "CUDA": "_C_cuda"}

_NAMES = ("auto", *BACKENDS)
_INSTRUCTION_SETS = ("", "baseline", "avx2", "avx512")  # of csrc/cpu; "": the best there is

_NO_KERNEL_OF_CPU_ONLY = (("native", "CUDA"), ("triton", "CPU"), ("triton", "CUDA"))

_reasons: dict[tuple[str, str], str] = {}  # (backend, device) -> why it cannot run
_forced: str = "auto"
_from_environment = os.environ.get("FUSED_MIXUP_BACKEND", "auto")
_entered: dict[object, str] = {}  # backend() contexts that are open, in the order of entering
_lock = threading.Lock()
_default: torch.library.Library | None = None  # kept alive: its registrations go with it
_override: torch.library.Library | None = None


def reason_unavailable(backend: str, device: str, op: str | None = None) -> str | None:
    """Why ``backend`` cannot serve tensors on ``device`` ("CPU", "CUDA"), or None if it can.

    With ``op``: why it cannot serve that op there. Some have a kernel on the CPU alone.
    """
    why = _reasons.get((backend, device))
    if why is None and op in CPU_ONLY and (backend, device) in _NO_KERNEL_OF_CPU_ONLY:
        return f"{op} has a kernel in the CPU extension alone, as its samples lie on the host"
    return why


def chosen(device: str, op: str | None = None) -> str:
    """The backend that serves ``device`` (or ``op`` there) now; a forced one even if it cannot."""
    if _forced != "auto":
        return _forced
    order = BACKENDS if device == "CUDA" else ("native", "reference")
    return next(b for b in order if reason_unavailable(b, device, op) is None)


def _load_native(device: str) -> str | None:
    name = f"fused_mixup.{MODULES[device]}"
    if device == "CUDA" and torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        what = "a C++ compiler" if device == "CPU" else "nvcc (CUDA_HOME) beside a CUDA PyTorch"
        return f"{name} is not built; install with {what}: pip install --no-build-isolation -e ."
    except (ImportError, OSError) as error:
        return f"{name} does not load: {error}; build it again for this PyTorch"
    return None


def _load_triton() -> dict[str, str | None]:
    """Per device, why Triton cannot serve it. Triton itself is imported at the first call."""
    if importlib.util.find_spec("triton") is None:
        return dict.fromkeys(DEVICES, "Triton is not installed; pip install triton")
    # Whether a GPU is there is not asked: that would start CUDA when the package is imported, and
    # a process that has started it cannot be forked. A CUDA tensor is proof enough.
    built = torch.version.cuda or torch.version.hip
    gpu = None if built else f"this PyTorch ({torch.__version__}) is built without CUDA"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    cpu = None if interpreted else "Triton runs CPU tensors only with TRITON_INTERPRET=1"
    return {"CPU": cpu, "CUDA": gpu}


def _triton(name: str) -> Callable:
    def call(*args):
        return getattr(importlib.import_module("fused_mixup.triton_kernels"), name)(*args)

    return call


def _register(
    library: torch.library.Library, device: str, backend: str, names: Iterable[str] = SCHEMAS
) -> None:
    """Serve ``device`` with ``backend``, or with an error that says why it cannot be."""
    for name in names:
        why = reason_unavailable(backend, device, name)
        if why is not None:
            library.impl(name, _refusal(backend, device, why), device, allow_override=True)
        elif backend == "triton":
            library.impl(name, _triton(name), device, allow_override=True)
        elif backend == "reference":
            library.impl(name, getattr(reference, name), device, allow_override=True)


def _refusal(backend: str, device: str, why: str) -> Callable:
    def refuse(*args, **kwargs):
        raise RuntimeError(
            f"the {backend} backend is forced but cannot run on {device} tensors: {why}. "
            "Set FUSED_MIXUP_BACKEND=auto to let the package choose"
        )

    return refuse


def load() -> None:
    """Load what is built and register it; called once, when the package is imported."""
    global _default
    instruction_set = os.environ.get("FUSED_MIXUP_CPU", "")
    if instruction_set not in _INSTRUCTION_SETS:
        raise ValueError(
            f"FUSED_MIXUP_CPU: expected one of {_INSTRUCTION_SETS[1:]}, got {instruction_set!r}"
        )
    for device in DEVICES:
        why = _load_native(device)
        if why is not None:
            _reasons["native", device] = why
    for device, why in _load_triton().items():
        if why is not None:
            _reasons["triton", device] = why
    _default = torch.library.Library(NAMESPACE, "IMPL")
    for name in SCHEMAS:  # every device without kernels of its own
        _default.impl(name, getattr(reference, name), "CompositeExplicitAutograd")
    for device in DEVICES:
        if chosen(device) == "triton":
            served = [op for op in SCHEMAS if reason_unavailable("triton", device, op) is None]
            _register(_default, device, "triton", served)
    _force(_from_environment)


def _unknown(name: str) -> str:
    return f"backend: expected one of {_NAMES}, got {name!r} (argument or FUSED_MIXUP_BACKEND)"


def _force(name: str) -> None:
    """Lay ``name``'s implementations over those chosen by default, or take that layer off."""
    global _forced, _override
    if name not in _NAMES:
        raise ValueError(_unknown(name))
    if _override is not None:
        _override._destroy()
        _override = None
    _forced = name
    if name == "auto":
        return
    _override = torch.library.Library(NAMESPACE, "IMPL")
    with _quiet_override():
        for device in DEVICES:
            _register(_override, device, name)
        if name != "reference":
            why = "it has no kernels for this device"
            for op in SCHEMAS:  # devices without kernels of their own
                refusal = _refusal(name, "such", why)
                _override.impl(op, refusal, "CompositeExplicitAutograd", allow_override=True)


@contextlib.contextmanager
def _quiet_override() -> Iterator[None]:
    """The dispatcher warns where a kernel is laid over another; here that is the purpose."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*overrid.*")
        yield


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Force a backend for every op called inside, in this process (all of its threads).

    It also reaches code compiled before. Equivalent to ``FUSED_MIXUP_BACKEND`` for a while.

    Args:
        name: ``"auto"``, ``"native"``, ``"triton"`` or ``"reference"``.

    Raises:
        ValueError: an unknown name.
        RuntimeError: from the op called inside, where that backend cannot run.
    """
    if name not in _NAMES:
        raise ValueError(_unknown(name))
    entry = object()
    with _lock:
        _entered[entry] = name
        _force(name)
    try:
        yield
    finally:
        # Threads may leave in another order than they came: what stays is the last still inside.
        with _lock:
            del _entered[entry]
            _force([_from_environment, *_entered.values()][-1])
