"""Shared memory of batches that a data loader's worker fills again and again.

Fresh memory is costly: the system clears it page by page, and maps it page by page, for longer than
it takes to mix a batch. So the worker keeps the memory of the batches that it has sent. It marks it
when it sends a batch, the process that receives it clears the mark when it has let go. Memory is
filled again when the mark is cleared and no tensor of the worker lies on it; where somebody might
still look at it unseen (a fork), it never is.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from multiprocessing.reduction import ForkingPickler

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

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
