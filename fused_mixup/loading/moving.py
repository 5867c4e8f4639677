"""Batches of any structure, moved to a device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..batch_mix.structure import New, items, replace
from ..batch_mix.tv_tensors import is_tv_tensor
from ..checks import as_array


def map_leaves(change: Callable[[Any], Any], batch: Any) -> Any:
    """``batch`` with ``change(value)`` for each value that is no structure, or moves itself."""
    if hasattr(batch, "to"):
        return change(batch)
    entries = items(batch)
    if entries is None:
        return change(batch)
    news = {}
    for key, value in entries:
        made = map_leaves(change, value)
        if made is not value:
            news[(key,)] = New(made)
    return replace(batch, news)


def is_plain_memory(value: Any) -> bool:
    """Whether ``value`` is a tensor whose elements are all that there is to it."""
    return (
        isinstance(value, Tensor)
        and (type(value) is Tensor or is_tv_tensor(value))
        and value.layout == torch.strided
        and not (value.is_nested or value.is_quantized or value.requires_grad)
    )


def as_tensor(value: Any) -> Any:
    """A NumPy array of numbers as a tensor on the same memory; anything else as it is."""
    numpy = sys.modules.get("numpy")  # without it there can be no array
    if numpy is None or not isinstance(value, numpy.ndarray) or value.dtype.kind not in "biufc":
        return value
    try:
        return as_array("batch", value)
    except TypeError:  # a dtype that PyTorch does not have
        return value


def move(value: Any, device: torch.device) -> Any:
    """One leaf on ``device``; what cannot be moved as it is."""
    made = as_tensor(value)
    if made is not value and device.type == "cpu" and not value.flags.writeable:
        made = made.clone()  # entries are mixed in place, and what comes may be written
    value = made
    to = getattr(value, "to", None)
    if to is None or getattr(value, "device", None) == device:
        return value
    # A copy to the host that is not waited for would be read too early; Apple's GPUs may copy
    # from host memory after it has been freed.
    if device.type not in ("cuda", "xpu"):
        return to(device)
    try:
        return to(device, non_blocking=True)
    except TypeError:  # some containers take the device alone
        return to(device)
