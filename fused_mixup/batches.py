"""Shared memory of batches that a data loader's worker fills again and again.

Fresh memory is costly: the system clears it page by page, and maps it page by page, for longer than
it takes to mix a batch; and to hand it over, two processes have to talk to each other, for as long
again. So the worker keeps the memory of the batches that it has sent, and the process that started
it keeps it mapped: once sent, it is known there, and its name alone is sent from then on.

The worker marks each tensor that it sends, the process that receives it clears the mark when it has
let go. Memory is filled again when no mark is left and no tensor of the worker lies on it; where
somebody might still look at it unseen (a fork), it never is.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import weakref
from collections import defaultdict, deque
from multiprocessing.reduction import ForkingPickler
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

_TAIL = 64  # bytes behind a tensor, so that the marks have a cache line to themselves
_HELD = -1  # the last byte: whether a receiver holds the tensor
_KNOWN = -2  # whether the receiver knows this memory by its name
# A worker's own, of images and of targets: those on their way (prefetch_factor, 2 by default),
# those that the training step or the pinning thread holds, and some to spare. What the training
# process keeps longer than that is let go by the worker, and freed there.
_KEPT = 8


class _Name(NamedTuple):
    """Of memory that was made in the process ``pid``."""

    pid: int
    number: bytes


# ------------------------------------------------------------------ the worker


class _Shared:
    """Shared memory of a worker. Its last bytes are marks."""

    def __init__(self, size: int) -> None:
        self.storage = torch.UntypedStorage._new_shared(size + _TAIL, device="cpu")
        self.values = _bytes(self.storage)
        self.name = _Name(os.getpid(), secrets.token_bytes(16))

    def lend(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        # To PyTorch a batch is private memory: whatever is not sent by `_reduce` (views of it, the
        # batch again) is copied into other shared memory. So one receiver at most is on this one.
        self.shape, self.dtype = shape, dtype
        batch = self.values[:-_TAIL]
        self.lent = weakref.ref(batch)  # alive as long as a tensor of this process is on it
        _lent[self.values.ctypes.data] = self
        return _tensor(batch, self.shape, self.dtype)

    def is_free(self) -> bool:
        return not self.values[_HELD] and self.lent() is None

    def is_as_lent(self, t: Tensor) -> bool:
        same = (t.shape, t.dtype) == (self.shape, self.dtype) and t.is_contiguous()
        return same and self.lent() is not None

    def sent(self) -> tuple:
        """What `_receive` needs."""
        del _lent[self.values.ctypes.data]
        self.values[_HELD] = 1
        storage = None if self.values[_KNOWN] else self.storage
        forgotten = [_forgotten.popleft() for _ in range(len(_forgotten))]
        return self.name, storage, tuple(self.shape), self.dtype, forgotten


# Those that may be used again, the oldest first.
_shared: defaultdict[torch.dtype, deque[_Shared]] = defaultdict(deque)
_lent: weakref.WeakValueDictionary[int, _Shared] = weakref.WeakValueDictionary()  # by address
_forgotten: deque[_Name] = deque()  # what the receiver knows and need not any more


def shared_batch(shape: torch.Size, dtype: torch.dtype = torch.uint8) -> Tensor:
    """An uninitialised tensor for a worker to fill and send. Its memory is used again."""
    size, kept = shape.numel() * dtype.itemsize, _shared[dtype]
    memory = _take(kept, size)
    if memory is None:
        memory = _Shared(size)
        ForkingPickler.register(Tensor, _reduce)
    batch = memory.lend(shape, dtype)
    kept.append(memory)
    _let_go(kept, _KEPT)
    return batch


def _take(kept: deque[_Shared], size: int) -> _Shared | None:
    """Free memory of that size, out of the reach of other threads."""
    for _ in range(len(kept)):
        try:
            memory = kept.popleft()
        except IndexError:  # another thread has taken the rest
            break
        if len(memory.values) == size + _TAIL and memory.is_free():
            return memory
        kept.append(memory)
    return None


def _let_go(kept: deque[_Shared], most: int) -> None:
    while len(kept) > most:
        try:
            memory = kept.popleft()
        except IndexError:  # as above
            break
        if memory.values[_KNOWN]:
            _forgotten.append(memory.name)


def _reduce(t: Tensor) -> tuple:
    """How a worker sends a tensor: a batch as its memory, once, and any other as ever."""
    if t.layout == torch.strided and t.is_cpu and not t.is_nested:
        memory = _lent.get(t.data_ptr())
        if memory is not None and memory.is_as_lent(t):
            return _receive, memory.sent()
    return reduce_tensor(t)


# ------------------------------------------------------------------ the process that receives

_known: dict[_Name, np.ndarray] = {}  # memory of workers that this process has started
_forks = 0


def _receive(
    name: _Name,
    storage: torch.UntypedStorage | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    forgotten: list[_Name],
) -> Tensor:
    """The batch, on memory that is marked free when no tensor uses it any more."""
    for old in forgotten:
        _known.pop(old, None)
    values = _known.get(name)
    if values is None:
        if storage is None:
            raise RuntimeError(
                "batch: its memory is known to the process that started the data loader's worker, "
                "while that runs, and not here; send a copy: batch.clone()"
            )
        values = _bytes(storage)
        _know(name, values)
    batch = values[:-_TAIL]
    weakref.finalize(batch, _release, values, _forks).atexit = False
    return _tensor(batch, shape, dtype)  # keeps `batch` alive as long as its own memory is in use


def _know(name: _Name, values: np.ndarray) -> None:
    """Keep memory of a worker mapped for as long as there is the worker's process."""
    if name.pid not in {known.pid for known in list(_known)}:
        process = next((p for p in multiprocessing.active_children() if p.pid == name.pid), None)
        if process is None:
            return
        weakref.finalize(process, _forget_worker, name.pid).atexit = False
    _known[name] = values
    values[_KNOWN] = 1


def _forget_worker(pid: int) -> None:
    for name in list(_known):
        if name.pid == pid:
            _known.pop(name, None)


def _release(values: np.ndarray, forks: int) -> None:
    if forks == _forks:
        values[_HELD] = 0


def _bytes(storage: torch.UntypedStorage) -> np.ndarray:
    return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage).numpy()


def _tensor(values: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values).view(dtype).view(shape)


# ------------------------------------------------------------------ forks


def _forget() -> None:
    """A fork sees memory of before for as long as it runs: it is neither filled nor given back."""
    global _forks
    _forks += 1
    for kept in list(_shared.values()):
        _let_go(kept, 0)


def _forget_in_child() -> None:
    _forget()
    _forgotten.clear()
    _known.clear()


if hasattr(os, "register_at_fork"):
    # On both sides of it, for what another thread makes or receives meanwhile.
    os.register_at_fork(before=_forget, after_in_parent=_forget, after_in_child=_forget_in_child)
