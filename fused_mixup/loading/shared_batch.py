"""Batches that a data loader's worker writes where the training process reads them.

As ``default_collate`` does, a worker makes a batch in shared memory, so that PyTorch hands it over
without a copy. Where shared memory runs out (most containers have 64 MiB) the batch is private,
and PyTorch shares it when it is sent; where that fails too, its bytes go through the pipe, as the
loader would otherwise wait for ever.
"""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from ..tracing import shared_storage


def shared_batch(shape: torch.Size) -> Tensor:
    """An uninitialised uint8 tensor for a worker to fill and send."""
    ForkingPickler.register(Tensor, _reduce)
    try:
        storage = shared_storage(shape.numel())
    except RuntimeError:  # too little shared memory
        return torch.empty(shape, dtype=torch.uint8, device="cpu")
    return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage).view(shape)


def _reduce(t: Tensor) -> tuple[Any, ...]:
    """How a worker sends a tensor: as PyTorch does, or as bytes where it cannot be shared."""
    if t.layout == torch.strided and t.is_cpu and not t.is_nested and not t.requires_grad:
        whole = t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes > 0
        if whole and not t.is_shared():
            try:
                t.share_memory_()
            except RuntimeError:
                return _unpack, (t.view(-1).view(torch.uint8).numpy().tobytes(), t.dtype, t.shape)
    return reduce_tensor(t)


def _unpack(values: bytes, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    return torch.frombuffer(bytearray(values), dtype=dtype).view(shape)
