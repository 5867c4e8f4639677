"""Memory of batches that are filled again and again: by a collate function, or by mixing.

Fresh memory is costly: the system clears it page by page, and maps it page by page, for longer than
it takes to mix a batch. So the memory of a batch is used again when the last tensor on it is gone.

In a data loader's worker it is shared memory, and the worker keeps that of the batches that it has
sent. The worker marks it when it sends a batch, the process that receives it clears the mark when
it has let go. Memory is filled again when the mark is cleared and no tensor of the worker lies on
it; where somebody might still look at it unseen (a fork), it never is.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from multiprocessing.reduction import ForkingPickler

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

try:
    import numpy as np
except ImportError:  # PyTorch does without it
    np = None  # type: ignore[assignment]

# ------------------------------------------------------------------ in one process

_SPARE = 2  # batches that wait to be filled: one is filled while another is trained on
_LEAST, _MOST = 2**20, 2**28  # bytes: below, malloc does well; above, too much would be kept

_free: deque[np.ndarray] = deque(maxlen=_SPARE)  # the ones let go last


def recycled(
    shape: torch.Size, dtype: torch.dtype = torch.uint8, stride: tuple[int, ...] | None = None
) -> Tensor:
    """An uninitialised tensor on the CPU. Its memory is used again when no tensor lies on it."""
    size = shape.numel() * dtype.itemsize
    values = _spare(size)
    if values is None:
        values = _fresh(size)
    memory = values[:]
    weakref.finalize(memory, _free.append, values).atexit = False
    storage = torch.from_numpy(memory).untyped_storage()  # keeps `memory` alive while it is in use
    empty = torch.empty(0, dtype=dtype, device="cpu")
    return empty.set_(storage, 0, shape, *([] if stride is None else [stride]))


def _fresh(size: int) -> np.ndarray:
    return torch.empty(size, dtype=torch.uint8, device="cpu").numpy()


def _spare(length: int) -> np.ndarray | None:
    for _ in range(_SPARE):
        try:
            values = _free.pop()
        except IndexError:  # none left, another thread may have taken it
            return None
        if len(values) == length:
            return values
        _free.appendleft(values)
    return None


def let_go() -> None:
    """Give memory that waits for its next use back to the system."""
    _free.clear()


def recycled_like(x: Tensor) -> Tensor | None:
    """Memory for a result like ``x``; None where a tensor of PyTorch's own does as well, or must.

    At most two results of at most 256 MiB wait for their next use.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return None
    if torch._C._are_functorch_transforms_active() or type(x) is not Tensor:
        return None
    if np is None or not x.is_cpu or not _LEAST <= x.nbytes <= _MOST:
        return None
    if x.requires_grad and torch.is_grad_enabled():
        return None
    if x.is_contiguous():
        return recycled(x.shape, x.dtype)
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return recycled(x.shape, x.dtype, x.stride())
    return None


# ------------------------------------------------------------------ from a worker

_TAIL = 64  # bytes behind a batch, so that the flag has a cache line to itself
# A worker's own: those on their way (prefetch_factor, 2 by default), those that the training step
# or the pinning thread holds, and some to spare. What the training process keeps longer than that
# is let go by the worker, and freed there.
_KEPT = 8


class _Shared:
    """Shared memory of a worker. Its last byte says whether a receiver holds the batch in it."""

    def __init__(self, size: int) -> None:
        self.storage = torch.UntypedStorage._new_shared(size + _TAIL, device="cpu")
        self.values = _bytes(self.storage)

    def lend(self, shape: torch.Size) -> Tensor:
        # To PyTorch a batch is private memory: whatever is not sent by `_reduce` (views of it, the
        # batch again) is copied into other shared memory. So one receiver at most is on this one.
        batch = self.values[:-_TAIL].reshape(shape)
        self.lent = weakref.ref(batch)  # alive as long as a tensor of this process is on it
        _lent[self.values.ctypes.data] = self
        return torch.from_numpy(batch)

    def is_free(self) -> bool:
        return not self.values[-1] and self.lent() is None

    def is_as_lent(self, t: Tensor) -> bool:
        batch = self.lent()
        same = batch is not None and (t.shape, t.stride()) == (batch.shape, batch.strides)
        return same and t.dtype == torch.uint8


_shared: deque[_Shared] = deque(maxlen=_KEPT)  # those that may be used again, the oldest first
_lent: weakref.WeakValueDictionary[int, _Shared] = weakref.WeakValueDictionary()  # by address
_forks = 0


def _forget() -> None:
    """A fork sees memory of before for as long as it runs: it is neither filled nor given back."""
    global _forks
    _forks += 1
    _shared.clear()


if hasattr(os, "register_at_fork"):
    # On both sides of it, for what another thread makes or receives meanwhile.
    os.register_at_fork(before=_forget, after_in_parent=_forget, after_in_child=_forget)


def shared_batch(shape: torch.Size) -> Tensor:
    """An uninitialised uint8 tensor for a worker to fill and send. Its memory is used again."""
    memory = _take(shape.numel() + _TAIL)
    if memory is None:
        memory = _Shared(shape.numel())
        ForkingPickler.register(Tensor, _reduce)
    batch = memory.lend(shape)
    _shared.append(memory)
    return batch


def _take(length: int) -> _Shared | None:
    """Free memory of that length, out of the reach of other threads."""
    for _ in range(len(_shared)):
        try:
            memory = _shared.popleft()
        except IndexError:  # another thread has taken the rest
            break
        if len(memory.values) == length and memory.is_free():
            return memory
        _shared.append(memory)
    return None


def _reduce(t: Tensor) -> tuple:
    """How a worker sends a tensor: a batch as its memory, once, and any other as ever."""
    if t.layout == torch.strided and t.is_cpu and not t.is_nested:
        address = t.data_ptr()
        memory = _lent.get(address)
        if memory is not None and memory.is_as_lent(t):
            del _lent[address]
            memory.values[-1] = 1
            return _receive, (memory.storage, tuple(t.shape))
    return reduce_tensor(t)


def _receive(storage: torch.UntypedStorage, shape: tuple[int, ...]) -> Tensor:
    """The batch, on memory that is marked free when no tensor uses it any more."""
    values = _bytes(storage)
    batch = values[:-_TAIL].reshape(shape)
    weakref.finalize(batch, _release, values, _forks).atexit = False
    return torch.from_numpy(batch)  # keeps `batch` alive as long as its own memory is in use


def _release(values: np.ndarray, forks: int) -> None:
    if forks == _forks:
        values[-1] = 0


def _bytes(storage: torch.UntypedStorage) -> np.ndarray:
    return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage).numpy()
