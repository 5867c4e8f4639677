"""Checks of what label weights are computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import check_plain_tensor, integer_tuple, is_host_row, kind
from ..tracing import has_host_values


def check_floats(name: str, value: object, shape: str, dims: Sequence[int]) -> Tensor:
    check_plain_tensor(name, value)
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in dims:
        raise TypeError(f"{name}: expected a floating tensor {shape}, got {kind(value)}")
    return value.detach()


def check_integers(name: str, value: object, shape: Sequence[int | None]) -> Tensor:
    """Integers of a shape; None for any size."""
    check_plain_tensor(name, value)
    if (
        not isinstance(value, Tensor)
        or value.is_floating_point()
        or value.ndim != len(shape)
        or any(n is not None and m != n for m, n in zip(value.shape, shape, strict=True))
    ):
        sizes = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected integers of shape [{sizes}], got {kind(value)}")
    return value


def check_indices(name: str, value: Tensor, count: int) -> None:
    """Raise IndexError unless host values lie in [0, count): -1 would be the last one."""
    if has_host_values(value) and value.numel():
        low, high = (int(v) for v in torch.aminmax(value))
        if low < 0 or high >= count:
            got = low if low < 0 else high
            raise IndexError(f"{name}: expected indices in [0, {count}), got {got}")


def check_batch(name: str, value: Tensor, batch: int, like: str) -> None:
    if len(value) != batch:
        raise ValueError(f"{name}: expected {batch} rows as {like}, got {len(value)}")


def check_near(name: str, value: Tensor, device: torch.device, like: str) -> None:
    """Raise unless the rows of ``value`` are on ``device``, or one row on the CPU."""
    if value.device != device and not is_host_row(value):
        raise ValueError(
            f"{name}: expected it on {device} like {like}, got {value.device}; "
            f"use .to({str(device)!r})"
        )


def check_box(name: str, box: object, batch: int | None, dims: int | None) -> Tensor:
    box = check_integers(name, box, (batch, None if dims is None else 2 * dims))
    if box.shape[1] % 2 or box.shape[1] == 0:
        raise ValueError(
            f"{name}: expected shape [B, 2·D], D starts and D stops, got {list(box.shape)}"
        )
    return box


def check_size(size: Sequence[int], dims: int) -> tuple[int, ...]:
    sizes = integer_tuple("size", size)
    if len(sizes) != dims or min(sizes, default=1) < 1:
        raise ValueError(f"size: expected {dims} sizes >= 1 as the box has dims, got {sizes}")
    return sizes


def square(name: str, maps: Tensor) -> Tensor:
    """Maps [B, h, w]; those of g² tokens [B, g²] are squares."""
    if maps.ndim == 3:
        return maps
    g = math.isqrt(maps.shape[1])
    if g * g != maps.shape[1]:
        raise ValueError(
            f"{name}: expected a square number of tokens, got {maps.shape[1]}; leave class tokens "
            "out, and give other grids as [B, h, w]"
        )
    return maps.unflatten(1, (g, g))


def columns(rows: Tensor, device: torch.device) -> list[Tensor]:
    """The columns [B] of rows; numbers where one row on the host serves another device."""
    if rows.device != device and is_host_row(rows) and len(rows):
        return list(rows[0].unbind(0))
    return list(rows.unbind(1))
