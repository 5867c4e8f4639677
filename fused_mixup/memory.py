"""Memory of results that is used again when nobody holds the result any more.

Fresh memory is costly on the CPU: the system clears it page by page, and maps it page by page, for
longer than it takes to mix a batch or to find the gradient of a loss. PyTorch gives it back each
time, so the storages of the last results are kept here, and one that no tensor lies on serves the
next result of its size.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections import deque

import torch
from torch import Tensor, UntypedStorage

from .ops import NAMESPACE
from .tracing import storage_users

_KEPT = 4  # results: a batch and a gradient, each of them made while the one before is in use
_LEAST, _MOST = 2**20, 2**28  # bytes: below, malloc does well; above, too much would be kept

_kept: deque[UntypedStorage] = deque(maxlen=_KEPT)  # in use or not


def recycled(
    shape: torch.Size, dtype: torch.dtype = torch.uint8, stride: tuple[int, ...] | None = None
) -> Tensor:
    """An uninitialised tensor on the CPU, contiguous or of dense strides."""
    size = shape.numel() * dtype.itemsize
    storage = _unused(size) if _LEAST <= size <= _MOST else None
    if storage is None:
        storage = _fresh(size)
    empty = torch.empty(0, dtype=dtype, device="cpu")
    result = empty.set_(storage, 0, shape, *([] if stride is None else [stride]))
    if _LEAST <= size <= _MOST:
        _kept.append(storage)
    return result


def _fresh(size: int) -> UntypedStorage:
    return torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()


def _references_of_one_variable() -> int:
    storage = UntypedStorage(0)
    return sys.getrefcount(storage)  # another number in other versions of Python


_ALONE = _references_of_one_variable()


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
        if alone and sys.getrefcount(storage) <= _ALONE and storage.nbytes() == size:
            return storage
        _kept.append(storage)
    return None


def let_go() -> None:
    """Give memory that waits for its next use back to the system."""
    _kept.clear()


def recycled_like(x: Tensor) -> Tensor:
    """``empty_like`` for batches and gradients of csrc/cpu, which asks for those of 1 MiB on."""
    dense = x.is_contiguous() or any(
        x.ndim == ndim and x.is_contiguous(memory_format=of) for ndim, of in _CHANNELS_LAST
    )
    if dense:
        try:
            return recycled(x.shape, x.dtype, x.stride())
        except KeyboardInterrupt:  # C++ would make a bare RuntimeError of it: once more, after it
            threading.Timer(0.001, _thread.interrupt_main).start()
        except (MemoryError, RuntimeError):
            let_go()
    return torch.empty_like(x)


_CHANNELS_LAST = (4, torch.channels_last), (5, torch.channels_last_3d)

_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_library.define("recycled_like(Tensor x) -> Tensor")
_library.impl("recycled_like", recycled_like, "CPU")
_library.impl("recycled_like", torch.library.fallthrough_kernel, "AutogradCPU")
