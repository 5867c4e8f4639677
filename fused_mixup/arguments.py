"""Conversion of arguments to ints, floats and tensors, and how an error shows a value.

All checks share it. A value that cannot be converted raises a TypeError that names the argument.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def kind(value: object) -> str:
    """How an error shows a value: a number or a name as it is, of anything else no data."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {list(value.shape)} on {value.device}"
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        shown = repr(value)
        return shown if len(shown) <= 60 else f"{shown[:56]}…"
    if isinstance(value, (list, tuple, dict, set)):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"


def names(keys: Iterable[Any]) -> str:
    """How an error shows keys or heads: a list where they are few, else their number."""
    shown = sorted(map(str, keys))
    return str(shown) if sum(map(len, shown)) <= 200 else f"{len(shown)} of them"


def integer(name: str, value: int) -> int:
    """Any kind of integer (NumPy's too) as an int."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {kind(value)}") from None


def integer_tuple(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, Tensor) and values.device.type != "cpu":
        raise TypeError(f"{name}: expected ints on the host, got {kind(values)}")
    try:
        return tuple(map(operator.index, values))
    except TypeError:
        raise TypeError(f"{name}: expected a sequence of ints, got {kind(values)}") from None


def check_number(name: str, value: float) -> float:
    if isinstance(value, (int, float)):  # first: the symbols of a compiler pass as numbers
        return float(value)
    if isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected a number, got {type(value).__name__}; for values that live on a "
            "device give settings=plan_settings(…)"
        )
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return float(value)


def check_choice(name: str, value: object, choices: Mapping[str, int], others: str = "") -> int:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}{others}, got {kind(value)}")
    return choices[value]


def as_tensor(name: str, value: object, device: torch.device | str | None = None) -> Tensor:
    """``value`` itself if it is a tensor, else a tensor of it on ``device`` (or PyTorch's)."""
    try:
        # torch.as_tensor would move a tensor to the default device.
        t = value if isinstance(value, Tensor) else torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected a tensor or a sequence, got {kind(value)}") from None
    if t.requires_grad:
        raise ValueError(
            f"{name}: expected a tensor that does not require grad, as no gradient reaches it; "
            "use .detach()"
        )
    return t


def integers(
    name: str, value: Tensor | Sequence[Any], device: torch.device | str | None = None
) -> Tensor:
    t = as_tensor(name, value, device)
    signed = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if t.numel() and t.dtype not in signed:
        raise TypeError(f"{name}: expected integers, got {t.dtype}")
    return t


def floats(name: str, value: Tensor | Sequence[float]) -> Tensor:
    t = as_tensor(name, value)
    if not t.is_floating_point():
        raise TypeError(f"{name}: expected floats, got {t.dtype}")
    return t


def check_plain_tensor(name: str, x: Any) -> None:
    """Raise TypeError for a DTensor: a kernel would take the shard of one process for the whole."""
    cls = type(x)
    if cls is Tensor or cls is torch.nn.Parameter:
        return
    if hasattr(cls, "full_tensor") and hasattr(cls, "to_local"):  # needs no import
        raise TypeError(
            f"{name}: expected a plain tensor, got a {cls.__name__}, of which each process holds "
            "a part; use .full_tensor(), or .to_local() where each process works on its own part"
        )


def is_host_row(t: Tensor) -> bool:
    """True for a tensor whose rows are one row on the CPU, which kernels take as arguments."""
    return t.is_cpu and (t.stride(0) == 0 or t.shape[0] <= 1)


def expect(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise ValueError for an argument of an op that is not as ``expected``."""
    if not holds:
        raise ValueError(f"fused_mixup, {name}: expected {expected}, got {got}")


def expect_shape(name: str, t: Tensor | None, *sizes: int) -> None:
    got = None if t is None else tuple(t.shape)
    expect(got == sizes, name, f"shape {list(sizes)}", got and list(got))
