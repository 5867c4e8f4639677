"""Small tensors by value, in what is pickled.

A data loader's worker sends each tensor in shared memory of its own, and both processes talk to
each other before one is there: for small ones that takes a hundred times as long as sending the
numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_MOST = 16384  # bytes


class _Packed(NamedTuple):
    rows: np.ndarray
    shape: tuple[int, ...]  # to which one row is expanded


def packed(value: Any) -> Any:
    """A small tensor on the CPU as its numbers; anything else as it is."""
    if type(value) is not Tensor or not value.is_cpu or value.layout != torch.strided:
        return value
    if value.ndim == 0 or value.requires_grad:
        return value
    rows = value[:1] if value.stride(0) == 0 else value
    if rows.nbytes > _MOST:
        return value
    return _Packed(rows.numpy(), tuple(value.shape))


def unpacked(value: Any) -> Any:
    """What :func:`packed` was given."""
    if not isinstance(value, _Packed):
        return value
    return torch.from_numpy(value.rows).expand(value.shape)
