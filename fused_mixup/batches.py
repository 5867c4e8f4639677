"""Memory of batches that a collate function fills again and again.

Fresh memory is costly: the kernel clears it page by page, and maps it page by page, for longer than
it takes to mix a batch. So the memory of a batch is used again when the last tensor on it is gone.

In a data loader's worker it is shared memory, and the worker keeps that of the batches that it has
sent. The last byte of each says whether it is in use: the worker sets it when it hands the memory
out, the training process clears it when it has let go.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

# ------------------------------------------------------------------ in one process

_SPARE = 2  # batches that wait to be filled: one is filled while another is trained on

_free: deque[np.ndarray] = deque(maxlen=_SPARE)


def recycled_batch(shape: torch.Size) -> Tensor:
    """An uninitialised uint8 tensor. Its memory is used again when no tensor lies on it."""
    size = shape.numel()
    try:
        values = _free.pop()
        if values.size != size:
            _free.clear()  # batches have another size now
            raise IndexError
    except IndexError:  # none left, another thread may have taken it
        values = np.empty(size, np.uint8)
    batch = values.reshape(shape)
    weakref.finalize(batch, _free.append, values).atexit = False
    return torch.from_numpy(batch)  # keeps `batch` alive as long as its own memory is in use


# ------------------------------------------------------------------ from a worker

_TAIL = 64  # bytes behind a batch, so that the flag has a cache line to itself
# A worker's own: those on their way (prefetch_factor, 2 by default), those that the training step
# or the pinning thread holds, and some to spare. What the training process keeps longer than that
# is let go by the worker, and freed there.
_KEPT = 8

_sent: deque[Tensor] = deque(maxlen=_KEPT)


class _SharedBatch(Tensor):
    """A batch on its way out of a worker: arrives as a plain tensor that gives the memory back."""

    memory: Tensor
    # What is computed from it in the worker is a plain tensor, and is sent as one.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _receive, (self.memory, tuple(self.shape))


def shared_batch(shape: torch.Size) -> Tensor:
    """An uninitialised uint8 tensor for a worker to fill and send. Its memory is used again."""
    size = shape.numel()
    for memory in _sent:
        if len(memory) == size + _TAIL and not memory[-1]:
            break
    else:
        storage = torch.UntypedStorage._new_shared(size + _TAIL, device="cpu")
        memory = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)
        _sent.append(memory)
    memory[-1] = 1
    batch = memory[:size].view(shape).as_subclass(_SharedBatch)
    batch.memory = memory
    return batch


def _receive(memory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The batch, on memory that is marked free when no tensor uses it any more."""
    values = memory.numpy()
    batch = values[: len(values) - _TAIL].reshape(shape)
    weakref.finalize(batch, _release, values, os.getpid()).atexit = False
    return torch.from_numpy(batch)  # keeps `batch` alive as long as its own memory is in use


def _release(values: Any, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork that has inherited the tensor
        values[-1] = 0
