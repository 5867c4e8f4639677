"""What the constructors of masks share: arguments as tensors, and the fields of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_tensor, integer_tuple, kind
from ..tracing import has_host_values
from .mix_mask import MixMask


def image_size(size: Sequence[int], least: int = 1) -> tuple[int, int]:
    values = integer_tuple("size", size)
    if len(values) != 2 or min(values) < least:
        raise ValueError(f"size: expected (H, W) of {least} and more, got {list(values)}")
    return values[0], values[1]


def float_table(name: str, value: object, shape: str) -> Tensor:
    """A tensor of floats of as many dims as ``shape`` has names, for example "B, R, H"."""
    t = as_tensor(name, value)
    if not t.is_floating_point():
        raise TypeError(f"{name}: expected floats [{shape}], got {t.dtype}; use .float()")
    check_dims(name, t, shape)
    return t


def check_dims(name: str, t: Tensor, shape: str) -> None:
    if t.ndim != shape.count(",") + 1:
        raise ValueError(f"{name}: expected shape [{shape}], got {list(t.shape)}")


def integer_rows(name: str, value: object, shape: str) -> Tensor:
    """int64 of the dims of ``shape``; numbers on the host become a tensor there."""
    t = as_tensor(name, value)
    if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
        raise TypeError(f"{name}: expected integers [{shape}], got {t.dtype}")
    check_dims(name, t, shape)
    return t.long()


def check_choice_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        expected = " or ".join(map(repr, choices))
        raise ValueError(f"{name}: expected {expected}, got {kind(value)}")


def check_same(name: str, t: Tensor, first_name: str, first: Tensor) -> None:
    """Raise ValueError unless both have as many samples, on one device."""
    if t.device != first.device:
        raise ValueError(f"{name}: expected {first.device} as {first_name}, got {t.device}")
    if t.shape[0] != first.shape[0]:
        raise ValueError(f"{name}: expected {first.shape[0]} rows as {first_name}, got {len(t)}")


def check_host(name: str, holds: Tensor, expected: str) -> None:
    """Raise ValueError unless all of ``holds``; values on a device are not waited for."""
    if has_host_values(holds) and not bool(holds.all()):
        raise ValueError(f"{name}: expected {expected}, got other values")


def mask_of(code: int, first: Tensor, threshold: float | Tensor = 0.0, **fields: Any) -> MixMask:
    """A mask of one code for all samples, with as many of them as ``first`` has."""
    batch, device = first.shape[0], first.device
    number = torch.full((1,), code, dtype=torch.int32, device=device).expand(batch)
    if not isinstance(threshold, Tensor):
        threshold = torch.full((1,), threshold, device=device).expand(batch)
    return MixMask(number, threshold, **fields)
