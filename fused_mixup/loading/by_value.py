"""Small tensors by value, in what is sent to another process.

A data loader's worker sends each tensor in shared memory of its own, and both processes talk to
each other before it is there: for a small one that takes a hundred times as long as sending the
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

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
    make, values = instance.__reduce__()
    return _rebuilt, (make, [*map(_numbers_of, values)])


def _rebuilt(make: Callable[..., Any], values: list[Any]) -> Any:
    return make(*map(_tensor_of, values))


def _tensor_of(value: Any) -> Any:
    if not isinstance(value, _Numbers):
        return value
    rows = torch.tensor(value.values, dtype=value.dtype, device="cpu").view(value.rows)
    return rows.expand(value.shape)


def _numbers_of(value: Any) -> Any:
    if type(value) is not Tensor or not value.is_cpu or value.ndim == 0:
        return value
    if value.requires_grad or value.is_shared():  # who shares memory means to
        return value
    rows = value[:1] if value.stride(0) == 0 else value
    if rows.nbytes > _MOST:
        return value
    return _Numbers(rows.flatten().tolist(), rows.dtype, tuple(rows.shape), tuple(value.shape))
