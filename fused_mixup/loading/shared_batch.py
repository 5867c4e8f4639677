"""Batches that a data loader's worker writes where the training process reads them.

As ``default_collate`` does, a worker makes a batch in shared memory, so that PyTorch hands it over
without a copy. Where shared memory runs out (most containers have 64 MiB) the batch is private,
and PyTorch shares it when it is sent; where that fails too, its bytes go through the pipe. Without
this the loader gets PyTorch's error, or waits for ever if only the sending fails.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import default_collate, get_worker_info

from ..tracing import collating, shared_storage

_earlier: Callable[[Tensor], tuple[Any, ...]] | None = None  # how tensors were sent before


def shared_batch(shape: torch.Size) -> Tensor:
    """An uninitialised uint8 tensor for a worker to fill and send."""
    send_without_room()
    size = shape.numel()
    if _has_room(size):
        try:
            storage = shared_storage(size)
        except RuntimeError:  # another process has taken the room
            pass
        else:
            return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage).view(shape)
    return torch.empty(shape, dtype=torch.uint8, device="cpu")


def collate(samples: list[Any]) -> Any:
    """``default_collate``; in a worker also where shared memory has no room for the batch."""
    if get_worker_info() is None or collating is None:
        return default_collate(samples)
    send_without_room()
    rules = {**collating.default_collate_fn_map, Tensor: _stack}
    return collating.collate(samples, collate_fn_map=rules)


def _stack(batch: list[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    if _has_room(len(batch) * batch[0].nbytes):
        try:
            return collating.collate_tensor_fn(batch, collate_fn_map=collate_fn_map)
        except RuntimeError:  # no memory; other errors come again
            pass
    return torch.stack(batch)


def send_without_room() -> None:
    """From now on this process can send tensors where shared memory has no room for them."""
    global _earlier
    if _earlier is None:
        reducers = ForkingPickler(io.BytesIO()).dispatch_table  # type: ignore[attr-defined]
        _earlier = reducers.get(Tensor, reduce_tensor)
        ForkingPickler.register(Tensor, _reduce)


def _has_room(size: int) -> bool:
    """Whether both threads of every worker (one collates, one sends) can share so many bytes.

    It is asked first: an allocation that fails leaves a file of PyTorch's in /dev/shm for ever.
    """
    try:
        system = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return True
    worker = get_worker_info()
    workers = worker.num_workers if worker else 1
    return system.f_bavail * system.f_frsize >= 2 * workers * size


def _reduce(t: Tensor) -> tuple[Any, ...]:
    """How a worker sends a tensor: as before, or as bytes where it cannot be shared."""
    assert _earlier is not None
    if t.layout == torch.strided and t.is_cpu and not t.is_nested and not t.requires_grad:
        size = t.untyped_storage().nbytes()
        if size and not t.is_shared():
            try:
                if not _has_room(size):
                    return _as_bytes(t)
                t.share_memory_()
            except RuntimeError:
                return _as_bytes(t)
    return _earlier(t)


def _as_bytes(t: Tensor) -> tuple[Any, ...]:
    t = t.resolve_conj().resolve_neg()
    t = t if t.untyped_storage().nbytes() == t.nbytes else t.clone()  # a view: its part alone
    values = torch.empty(0, dtype=torch.uint8, device="cpu").set_(t.untyped_storage())
    return _from_bytes, (values.numpy().tobytes(), t.dtype, t.shape, t.stride())


def _from_bytes(
    values: bytes, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...]
) -> Tensor:
    return torch.frombuffer(bytearray(values), dtype=dtype).as_strided(shape, stride)
