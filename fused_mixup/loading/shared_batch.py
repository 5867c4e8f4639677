"""Shared memory of batches that a data loader's worker fills again and again.

Fresh memory is costly: the system clears it page by page, and maps it page by page, for longer than
it takes to mix a batch; and to hand it over, two processes have to talk to each other, for as long
again. So the worker keeps the memory of the batches that it has sent, and the process that started
it keeps it mapped: once sent, it is known there, and its name alone is sent from then on.

The worker marks memory as held when it sends a tensor on it, the process that receives it clears
the mark when it has let go. Memory is filled again when it is not held and no tensor of the worker
lies on it; where somebody might still look at it unseen (a fork), it never is.

Where there is little shared memory (64 MiB in most containers) nothing is kept: a batch is private
memory, which PyTorch copies into shared memory when it sends it; and numbers in a pipe, where even
that cannot be had.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import secrets
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import get_worker_info

from ..tracing import shared_storage

_TAIL = 64  # bytes behind a tensor, so that the marks have a cache line to themselves
_HELD = -1  # the last byte: whether a receiver holds the tensor
_KNOWN = -2  # whether the receiver knows this memory by its name
# A worker's own, of images and of targets: those on their way (prefetch_factor, 2 by default),
# those that the training step or the pinning thread holds, and some to spare. What the training
# process keeps longer than that is let go by the worker, and freed there.
_KEPT = 8


class _Name(NamedTuple):
    """Of a worker's memory."""

    pid: int
    worker: bytes  # random, as another process may come to have the same pid
    number: int


# ------------------------------------------------------------------ the worker


class _Shared:
    """Shared memory of a worker, the tensor on it, and behind that the marks _HELD and _KNOWN."""

    def __init__(self, size: int) -> None:
        self.storage = shared_storage(size + _TAIL)
        self.values = _bytes(self.storage)
        self.name = _Name(os.getpid(), _worker, next(_numbers))
        self.was_sent = self.was_let_go = False

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
        return same and not t.requires_grad and self.lent() is not None

    def sent(self) -> tuple:
        """What `_receive` needs."""
        del _lent[self.values.ctypes.data]
        self.values[_HELD] = 1
        self.was_sent = True
        storage = None if self.values[_KNOWN] else self.storage
        forgotten = _told()
        if self.was_let_go:  # by another thread, maybe before it knew that this is sent
            forgotten.append(self.name.number)
        return self.name, storage, tuple(self.shape), self.dtype, forgotten

    def let_go(self) -> None:
        self.was_let_go = True
        if self.was_sent:
            _forgotten.append(self.name.number)


_worker = secrets.token_bytes(16)
_numbers = itertools.count()
# Those that may be used again, the oldest first.
_shared: defaultdict[torch.dtype, deque[_Shared]] = defaultdict(deque)
_lent: weakref.WeakValueDictionary[int, _Shared] = weakref.WeakValueDictionary()  # by address
_forgotten: deque[int] = deque()  # numbers of what was sent and is not any more: still to be told
_cleared_at_exit = False
_is_scarce = False  # there was too little of it to keep any


def shared_batch(shape: torch.Size, dtype: torch.dtype = torch.uint8) -> Tensor:
    """An uninitialised tensor for a worker to fill and send. Its memory is used again."""
    size, kept = shape.numel() * dtype.itemsize, _shared[dtype]
    ForkingPickler.register(Tensor, _reduce)
    memory = _take(kept, size) or _new(size, _KEPT - len(kept))
    if memory is None:
        return torch.empty(shape, dtype=dtype, device="cpu")
    batch = memory.lend(shape, dtype)
    kept.append(memory)
    _let_go(kept, _KEPT)
    return batch


def _new(size: int, more: int) -> _Shared | None:
    """Fresh memory, if every worker of the loader could have ``more`` of it; else none is kept."""
    global _is_scarce
    worker = get_worker_info()
    workers = worker.num_workers if worker else 1
    if not _is_scarce and _room() >= workers * max(more, 1) * (size + _TAIL):
        _clear_at_exit()
        try:
            return _Shared(size)
        except RuntimeError:  # another process has taken the room
            pass
    _is_scarce = True
    for kept in list(_shared.values()):
        _let_go(kept, 0)
    return None


def _room() -> float:
    """How many bytes of shared memory are left, where the system tells it."""
    try:
        system = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return math.inf
    return system.f_bavail * system.f_frsize


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
            kept.popleft().let_go()
        except IndexError:  # as above
            break


def _clear_at_exit() -> None:
    """Memory that has a name in the file system stays there until it is let go by its maker."""
    global _cleared_at_exit
    if not _cleared_at_exit:
        _cleared_at_exit = True
        Finalize(None, _shared.clear, exitpriority=-10)  # when what is on its way has been sent


def _reduce(t: Tensor) -> tuple:
    """How a worker sends a tensor: a batch as its memory, once, and any other as ever."""
    if t.layout == torch.strided and t.is_cpu and not t.is_nested:
        memory = _lent.get(t.data_ptr())
        if memory is not None and memory.is_as_lent(t):
            return _receive, memory.sent()
        if _is_scarce:
            return _receive_private, (_worker, _told(), *_reduce_private(t))
    return reduce_tensor(t)


def _reduce_private(t: Tensor) -> tuple:
    """As ever, or as bytes where there is no shared memory: the loader would wait for ever."""
    whole = t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes > 0
    if whole and not t.requires_grad and not t.is_shared():
        try:
            if _room() < t.nbytes:
                raise RuntimeError
            t.share_memory_()
        except RuntimeError:
            return _of_bytes, (_bytes(t.untyped_storage()).tobytes(), t.dtype, tuple(t.shape))
    return reduce_tensor(t)


def _told() -> list[int]:
    """Numbers of memory that the receiver is told to forget."""
    return [_forgotten.popleft() for _ in range(len(_forgotten))]


# ------------------------------------------------------------------ the process that receives

# Memory of workers that this process has started: by worker, and by number.
_known: dict[bytes, dict[int, np.ndarray]] = {}
_forks = 0


def _receive(
    name: _Name,
    storage: torch.UntypedStorage | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    forgotten: list[int],
) -> Tensor:
    """The batch, on memory that is marked free when no tensor uses it any more."""
    values = _known.get(name.worker, {}).get(name.number)
    if values is None:
        if storage is None:
            raise RuntimeError(
                "batch: its memory is known to the process that started the data loader's worker, "
                "while that runs, and not here; send a copy: batch.clone()"
            )
        values = _bytes(storage)
        _know(name, values)
    _forget_numbers(name.worker, forgotten)
    batch = values[:-_TAIL]
    weakref.finalize(batch, _release, values, _forks).atexit = False
    return _tensor(batch, shape, dtype)  # keeps `batch` alive as long as its own memory is in use


def _receive_private(
    worker: bytes, forgotten: list[int], rebuild: Callable[..., Tensor], args: tuple
) -> Tensor:
    _forget_numbers(worker, forgotten)
    return rebuild(*args)


def _of_bytes(values: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(bytearray(values), dtype=dtype).view(shape)


def _forget_numbers(worker: bytes, numbers: list[int]) -> None:
    for number in numbers:
        _known.get(worker, {}).pop(number, None)


def _know(name: _Name, values: np.ndarray) -> None:
    """Keep memory of a worker mapped for as long as there is the object of its process."""
    memories = _known.get(name.worker)
    if memories is None:
        process = next((p for p in multiprocessing.active_children() if p.pid == name.pid), None)
        if process is None:
            return
        memories = _known[name.worker] = {}
        weakref.finalize(process, _known.pop, name.worker, None).atexit = False
    memories[name.number] = values
    values[_KNOWN] = 1


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
    global _worker, _cleared_at_exit, _is_scarce
    _forget()
    _worker, _cleared_at_exit, _is_scarce = secrets.token_bytes(16), False, False
    _forgotten.clear()
    _known.clear()


if hasattr(os, "register_at_fork"):
    # On both sides of it, for what another thread makes or receives meanwhile.
    os.register_at_fork(before=_forget, after_in_parent=_forget, after_in_child=_forget_in_child)
