"""Small tensors are sent to another process by value.

A data loader's worker sends each tensor in its own shared memory, and both processes exchange
messages to set that up: for a small tensor this takes a hundred times as long as sending its
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


def send_by_value(cls: C) -> C:
    """Class decorator: an instance is sent with its small CPU tensors as numbers."""
    ForkingPickler.register(cls, _reduce)
    return cls


class _Numbers(NamedTuple):
    values: list  # flat; no array, as NumPy may be missing
    dtype: torch.dtype
    rows: tuple[int, ...]  # the shape of the values
    shape: tuple[int, ...]  # the shape to which they are expanded


def _reduce(instance: Any) -> tuple:
    make, values = instance.__reduce__()
    return _rebuild, (make, [*map(_numbers_of, values)])


def _rebuild(make: Callable[..., Any], values: list[Any]) -> Any:
    return make(*map(_tensor_of, values))


def _tensor_of(value: Any) -> Any:
    if not isinstance(value, _Numbers):
        return value
    rows = torch.tensor(value.values, dtype=value.dtype, device="cpu").view(value.rows)
    return rows.expand(value.shape)


def _numbers_of(value: Any) -> Any:
    if type(value) is not Tensor or not value.is_cpu or value.ndim == 0:
        return value
    if value.requires_grad or value.is_shared():  # a shared tensor stays shared
        return value
    rows = value[:1] if value.stride(0) == 0 else value
    if rows.nbytes > _MOST:
        return value
    return _Numbers(rows.flatten().tolist(), rows.dtype, tuple(rows.shape), tuple(value.shape))
