"""Small tensors by value, in what is sent to another process.

A data loader's worker sends each tensor in shared memory of its own, and both processes talk to
each other before it is there: for a small one that takes a hundred times as long as sending the
numbers.
"""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .accelerate import teach

_MOST = 16384  # bytes

C = TypeVar("C", bound=type)


def sent_by_value(cls: C) -> C:
    """Have instances of ``cls`` sent with their small tensors on the CPU as numbers."""
    ForkingPickler.register(cls, _reduced)
    return cls


class _Numbers(NamedTuple):
    values: list  # of the rows, flat; no array, as NumPy may be missing
    dtype: torch.dtype
    rows: tuple[int, ...]  # the shape of what is sent
    shape: tuple[int, ...]  # to which that is expanded


def _reduced(instance: Any) -> tuple:
    state = {name: _numbers_of(value) for name, value in instance.__dict__.items()}
    return _rebuilt, (type(instance), state)


def _rebuilt(cls: type, state: dict[str, Any]) -> Any:
    teach()
    instance: Any = object.__new__(cls)
    for name, value in state.items():
        if isinstance(value, _Numbers):
            rows = torch.tensor(value.values, dtype=value.dtype, device="cpu").view(value.rows)
            value = rows.expand(value.shape)
        object.__setattr__(instance, name, value)
    return instance


def _numbers_of(value: Any) -> Any:
    if type(value) is not Tensor or not value.is_cpu or value.ndim == 0:
        return value
    if value.requires_grad or value.is_shared():  # who shares memory means to
        return value
    rows = value[:1] if value.stride(0) == 0 else value
    if rows.nbytes > _MOST:
        return value
    return _Numbers(rows.flatten().tolist(), rows.dtype, tuple(rows.shape), tuple(value.shape))
