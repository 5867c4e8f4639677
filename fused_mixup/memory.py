"""Memory of results that is used again when nobody holds the result any more.

Fresh memory is costly on the CPU: the system clears it page by page, and maps it page by page, for
longer than it takes to mix a batch or to find the gradient of a loss. PyTorch gives it back each
time, so the storages of the last results are kept here, and one that no tensor lies on serves the
next result of its size.

Whether nobody holds a storage is read from two counts: of the tensors (and arrays and capsules) on
it, which PyTorch keeps, and of the references to the Python object of the storage, which Python
keeps. What the second is for an object that nobody else has differs between versions of Python, so
it is found by trial when the package is imported; where it tells nothing, nothing is kept.
"""

from __future__ import annotations

import platform
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from .schemas import NAMESPACE
from .tracing import storage_users

_KEPT = 4  # results: a batch and a gradient, each of them made while the one before is in use
_LEAST, _MOST = 2**20, 2**28  # bytes: below, malloc does well; above, too much would be kept

_kept: deque[UntypedStorage] = deque(maxlen=_KEPT)  # in use or not
_alone = 0  # references to a storage in `_unused` that nobody else has


def recycled(
    shape: torch.Size, dtype: torch.dtype = torch.uint8, stride: tuple[int, ...] | None = None
) -> Tensor:
    """An uninitialised tensor on the CPU, contiguous or of dense strides."""
    size = shape.numel() * dtype.itemsize
    keep = reason_off is None and _LEAST <= size <= _MOST
    storage = _unused(size) if keep else None
    if storage is None:
        storage = _fresh(size)
    empty = torch.empty(0, dtype=dtype, device="cpu")
    result = empty.set_(storage, 0, shape, *([] if stride is None else [stride]))
    if keep:
        _kept.append(storage)
    return result


def _fresh(size: int) -> UntypedStorage:
    return torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()


def _unused(size: int) -> UntypedStorage | None:
    """A storage of that size that nobody has, out of the reach of other threads."""
    for _ in range(len(_kept)):
        try:
            storage = _kept.popleft()
        except IndexError:  # another thread has taken it
            return None
        if storage.is_shared():  # sent to another process, which may look at it unseen
            continue
        # No tensor, array or capsule lies on it, and no caller has the storage itself.
        alone = storage_users(storage) == 1
        if alone and sys.getrefcount(storage) <= _alone and storage.nbytes() == size:
            return storage
        _kept.append(storage)
    return None


def empty_cache() -> None:
    """Give memory that waits for its next use back to the system."""
    _kept.clear()


let_go = empty_cache  # its name in 0.1.0


def recycled_like(x: Tensor) -> Tensor:
    """``empty_like`` for batches and gradients of csrc/cpu, which asks for those of 1 MiB on.

    An exception of a signal (Ctrl-C) leaves it; csrc/cpu sees to it that it is raised once more.
    """
    dense = x.is_contiguous() or any(
        x.ndim == ndim and x.is_contiguous(memory_format=of) for ndim, of in _CHANNELS_LAST
    )
    if dense and reason_off is None:
        try:
            return recycled(x.shape, x.dtype, x.stride())
        except (MemoryError, RuntimeError):
            empty_cache()
    return torch.empty_like(x)


_CHANNELS_LAST = (4, torch.channels_last), (5, torch.channels_last_3d)


# ------------------------------------------------------------------ whether it works here


def _find_reason_off() -> str | None:
    """Why memory is not used again, None if it is. Sets how many references are none."""
    global _alone
    if storage_users(_fresh(1)) is None:
        return f"PyTorch {torch.__version__} does not tell how many tensors share memory"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "this Python is free-threaded, and counts references late"
    try:
        for _alone in range(1, 9):
            if _is_used_again(lambda x: None):
                break
        works = _is_used_again(lambda x: None) and not any(map(_is_used_again, _HOLDERS))
    except Exception as error:
        return f"trying it failed: {error}"
    if not works:
        return f"Python {platform.python_version()} counts references in a way not known here"
    return None


_HOLDERS: tuple[Callable[[Tensor], Any], ...] = (
    lambda x: x,
    lambda x: x[1:],
    lambda x: x.untyped_storage(),
    lambda x: [x.untyped_storage()],
    torch.utils.dlpack.to_dlpack,  # type: ignore[attr-defined]
)


def _is_used_again(hold: Callable[[Tensor], Any]) -> bool:
    """Whether the memory of a result serves the next one, while what ``hold`` gives is held."""
    shape = torch.Size((_LEAST,))
    empty_cache()
    first = recycled(shape)
    address, _held = first.data_ptr(), hold(first)
    del first
    again = recycled(shape).data_ptr() == address
    empty_cache()
    return again


reason_off: str | None = None  # the trial runs what it tries
reason_off = _find_reason_off()

_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_library.define("recycled_like(Tensor x) -> Tensor")
_library.impl("recycled_like", recycled_like, "CPU")
_library.impl("recycled_like", torch.library.fallthrough_kernel, "AutogradCPU")
