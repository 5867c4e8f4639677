"""Reuse of the memory of results, once nothing references them.

Fresh memory is costly on the CPU: the system maps and clears it page by page, which takes longer
than mixing a batch or computing the gradient of a loss. PyTorch frees it each time, so this module
keeps the storages of the last results, and the next result reuses one of its size that no tensor
references. Batches may change in size from one to the next: what is kept is limited by bytes.

Two counts tell whether a storage is in use: PyTorch counts the tensors (and arrays and capsules)
on it, and Python the references to its Python object. The second count of an object without other
holders differs between versions of Python, so a trial finds it when the package is imported; where
the trial fails, no memory is kept.
"""

from __future__ import annotations

import math
import platform
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from .names import NAMESPACE
from .tracing import storage_users

# Results of one size: a batch and a gradient, and of each the one before, which is still in use.
_KEPT = 4
# Times the largest: batches of several resolutions, one or two of each.
_BUDGET = 8
_LEAST, _MOST = 2**20, 2**28  # bytes: below, malloc is fast; above, too much would be kept

# Some of them are in use. New ones come last; a search turns the others round.
_kept: deque[UntypedStorage] = deque()
_alone = 0  # the count of references that `_take_unused` sees of a storage without other holders


def recycled_tensor(
    shape: torch.Size, dtype: torch.dtype = torch.uint8, stride: tuple[int, ...] | None = None
) -> Tensor:
    """An uninitialised tensor on the CPU, contiguous or of dense strides."""
    size = shape.numel() * dtype.itemsize
    keep = reason_off is None and _LEAST <= size <= _MOST
    storage = _take_unused(size) if keep else None
    if storage is None:
        storage = _fresh_storage(size)
    empty = torch.empty(0, dtype=dtype, device="cpu")
    result = empty.set_(storage, 0, shape, *([] if stride is None else [stride]))
    if keep:
        _keep(storage, size)
    return result


def _keep(storage: UntypedStorage, size: int) -> None:
    """Keep a storage, and let the first ones go where there are too many."""
    _kept.append(storage)
    sizes = [kept.nbytes() for kept in list(_kept)]
    over = sizes.count(size) > _KEPT
    excess = sum(sizes) - _BUDGET * max(sizes)
    for _ in sizes[:-1]:
        if not over and excess <= 0:
            return
        try:
            oldest = _kept.popleft()
        except IndexError:  # another thread has taken it
            return
        if excess > 0:
            excess -= oldest.nbytes()
        elif oldest.nbytes() == size:
            over = False
        else:
            _kept.append(oldest)


def _fresh_storage(size: int) -> UntypedStorage:
    return torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()


def _take_unused(size: int) -> UntypedStorage | None:
    """Take a storage of ``size`` bytes that is not in use out of the kept ones, or None."""
    for _ in range(len(_kept)):
        try:
            storage = _kept.popleft()
        except IndexError:  # another thread has taken it
            return None
        if storage.is_shared():  # another process may use it, which no count shows
            continue
        # No tensor, array or capsule uses it, and no caller has the storage itself.
        alone = storage_users(storage) == 1
        if alone and sys.getrefcount(storage) <= _alone and storage.nbytes() == size:
            return storage
        _kept.append(storage)
    return None


def empty_cache() -> None:
    """Free the memory that is kept for reuse."""
    _kept.clear()


let_go = empty_cache  # its name in 0.1.0


def recycled_like(x: Tensor) -> Tensor:
    """``empty_like`` in reused memory; csrc/cpu calls it for batches and gradients from 1 MiB on.

    The exception of a signal (Ctrl-C) may leave it; csrc/cpu raises that exception again.
    """
    dense = x.is_contiguous() or any(
        x.ndim == ndim and x.is_contiguous(memory_format=layout) for ndim, layout in _CHANNELS_LAST
    )
    if dense and reason_off is None:
        try:
            return recycled_tensor(x.shape, x.dtype, x.stride())
        except (MemoryError, RuntimeError):
            empty_cache()
    return torch.empty_like(x)


def recycled_scratch(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Memory of ``shape``, contiguous, no larger than x, that lives as long as a call.

    On the CPU it lies in memory of x's size, so that calls of many shapes reuse the same.
    """
    count = math.prod(shape)
    if not x.is_cpu or count > x.numel():
        return x.new_empty(shape)
    return recycled_tensor(torch.Size((x.numel(),)), x.dtype)[:count].view(shape)


_CHANNELS_LAST = (4, torch.channels_last), (5, torch.channels_last_3d)


# ------------------------------------------------------------------ whether it works here


def _find_reason_off() -> str | None:
    """Why memory is not reused, None if it is. Sets ``_alone``."""
    global _alone
    if storage_users(_fresh_storage(1)) is None:
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
    """Whether the next result reuses the memory of one while the value of ``hold`` is alive."""
    shape = torch.Size((_LEAST,))
    empty_cache()
    first = recycled_tensor(shape)
    address, _held = first.data_ptr(), hold(first)
    del first
    again = recycled_tensor(shape).data_ptr() == address
    empty_cache()
    return again


reason_off: str | None = None  # turns reuse on for the trial
reason_off = _find_reason_off()

_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_library.define("recycled_like(Tensor x) -> Tensor")
_library.impl("recycled_like", recycled_like, "CPU")
_library.impl("recycled_like", torch.library.fallthrough_kernel, "AutogradCPU")
