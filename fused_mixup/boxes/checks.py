"""Checks of boxes, their fields and keypoints; errors name the entry and, in lists, the sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..arguments import check_number, integer_tuple, kind
from ..tracing import has_host_values
from .formats import DTYPES

Lists = list[Tensor] | tuple[Tensor, ...]


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """(H, W) as ints."""
    sizes = integer_tuple("size", size)
    if len(sizes) != 2 or min(sizes) < 0:
        raise ValueError(f"size: expected the images' (H, W), got {kind(size)}")
    return sizes[0], sizes[1]


def check_share(min_visible: float) -> float:
    share = check_number("min_visible", min_visible)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"min_visible: expected a number in [0, 1], got {share}")
    return share


def check_serves(name: str, serves: bool, there: torch.device, device: torch.device) -> None:
    """Raise unless a plan, which is ``there``, serves tensors on ``device``."""
    if not serves:
        raise ValueError(
            f"plan: expected it on {device} like {name}, got {there}; use plan.to({str(device)!r})"
        )


# ------------------------------------------------------------------ lists


def is_list(name: str, value: Any) -> bool:
    if isinstance(value, Tensor):
        return False
    if isinstance(value, (list, tuple)):
        return True
    raise TypeError(
        f"{name}: expected a list with a tensor for each sample, or a tensor padded to "
        f"[B, N, …], got {kind(value)}"
    )


def pack(
    name: str,
    tensors: Lists,  # B of [n_i, …]
    batch_size: int,
    like: Sequence[int] | None = None,
    owner: str = "",
) -> tuple[Tensor, list[int]]:
    """The tensors of a list, one after the other, and how many rows each has.

    ``like`` is how many they have to have, as those of ``owner`` have.
    """
    if len(tensors) != batch_size:
        raise ValueError(
            f"{name}: expected {batch_size} tensors, one for each sample of the plan, got "
            f"{len(tensors)}"
        )
    if not tensors:
        return torch.empty(0), []
    # All together first: one by one, checking takes as long as mixing.
    try:
        if len({t.dtype for t in tensors}) > 1:
            tensors = _with_dtype(name, tensors)
        packed = torch.cat(tensors)
        rows = [*map(Tensor.numel, tensors)]
    except (AttributeError, TypeError, RuntimeError) as error:
        _refuse_list(name, tensors, error)
    if not packed.is_cpu:
        _refuse_list(name, tensors, None)
    if packed.numel() != packed.shape[0]:  # a row has several elements
        size = packed[:1].numel()
        rows = [n // size for n in rows] if size else [t.shape[0] for t in tensors]
    if like is not None and rows != like:
        i = next(i for i, n in enumerate(rows) if n != like[i])
        raise ValueError(
            f"{name}[{i}]: expected {like[i]} rows, as {owner}[{i}] has, got {rows[i]}"
        )
    return packed, rows


def _with_dtype(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, empty ones in the dtype of the others: torch.tensor([]) is float32."""
    dtype = next((t.dtype for t in tensors if t.numel()), tensors[0].dtype)
    alike = [t if t.numel() else t.to(dtype) for t in tensors]
    if len({t.dtype for t in alike}) > 1:
        _refuse_list(name, tuple(alike), None)
    return alike


def pack_objects(
    name: str, lists: Sequence[Any], batch_size: int, like: Sequence[int], owner: str
) -> tuple[list[Any], list[int]]:
    """As :func:`pack`, for lists of Python objects."""
    if len(lists) != batch_size:
        raise ValueError(f"{name}: expected {batch_size} lists, got {len(lists)}")
    for i, (values, n) in enumerate(zip(lists, like, strict=True)):
        if len(values) != n:
            raise ValueError(
                f"{name}[{i}]: expected {n} rows, as {owner}[{i}] has, got {len(values)}"
            )
    return [value for values in lists for value in values], [*like]


def _refuse_list(name: str, tensors: Lists, error: Exception | None) -> NoReturn:
    first = None
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}[{i}]: expected a tensor, got {kind(t)}; use torch.as_tensor")
        if t.ndim == 0:
            raise ValueError(f"{name}[{i}]: expected a row for each box, [n, …], got a scalar")
        if not t.is_cpu:
            raise ValueError(
                f"{name}[{i}]: expected it on the CPU, got {t.device}: the lengths of lists are "
                "read on the host, and a device would have to be waited for; pad the list to one "
                "tensor [B, N, …] and give count, by torch.nn.utils.rnn.pad_sequence"
            )
        if t.ndim == 1 and t.shape[0] == 0:
            continue  # takes any shape
        first = t if first is None else first
        if t.dtype != first.dtype:
            raise TypeError(
                f"{name}[{i}]: expected {first.dtype} as the samples before it, got {t.dtype}; "
                f"convert it with .to({first.dtype})"
            )
        if t.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"{name}[{i}]: expected shape {['n', *first.shape[1:]]} as the samples before it, "
                f"got {list(t.shape)}"
            )
    raise TypeError(f"{name}: expected dense tensors that torch.cat takes, got others") from error


# ------------------------------------------------------------------ padded tensors


def check_padded(
    name: str, t: Any, batch_size: int, device: torch.device | None, most: int | None, owner: str
) -> None:
    if not isinstance(t, Tensor):
        raise TypeError(f"{name}: expected a tensor [B, N, …], as {owner} is, got {kind(t)}")
    if t.ndim < 2 or t.shape[0] != batch_size:
        raise ValueError(
            f"{name}: expected shape [{batch_size}, N, …] for the samples of the plan, got "
            f"{list(t.shape)}"
        )
    if most is not None and t.shape[1] != most:
        raise ValueError(
            f"{name}: expected shape [{batch_size}, {most}, …], a row for each of {owner}, got "
            f"{list(t.shape)}"
        )
    if device is not None and t.device != device:
        raise ValueError(f"{name}: expected it on {device} like {owner}, got {t.device}")


def check_count(count: Tensor | None, owner: str, t: Tensor) -> None:
    """``count``: how many of the rows of the padded tensor ``t`` are there."""
    if count is None:
        return
    name = "count" if owner == "boxes" else f"count of {owner}"
    if not isinstance(count, Tensor) or count.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name}: expected an int64 or int32 tensor [B], got {kind(count)}")
    if count.shape != t.shape[:1] or count.device != t.device:
        raise ValueError(
            f"{name}: expected shape [{t.shape[0]}] on {t.device}, got {list(count.shape)} on "
            f"{count.device}"
        )
    if has_host_values(count) and count.numel():
        low, high = (int(n) for n in torch.aminmax(count))
        if low < 0 or high > t.shape[1]:
            raise ValueError(
                f"{name}: expected numbers in [0, {t.shape[1]}], the rows of {owner}, got "
                f"{low if low < 0 else high}"
            )


# ------------------------------------------------------------------ values


def check_box_dtype(name: str, boxes: Tensor) -> None:
    if boxes.dtype not in DTYPES:
        raise TypeError(f"{name}: expected boxes of floats or integers, got {boxes.dtype}")
    if boxes.shape[-1] != 4:
        raise ValueError(f"{name}: expected 4 numbers a box, got shape {list(boxes.shape)}")
    if boxes.requires_grad:
        raise ValueError(
            f"{name}: expected boxes that do not require grad, as no gradient reaches them; "
            "use .detach()"
        )


def check_corners(
    name: str,
    corners: Tensor,  # [T, 4] or [B, N, 4]
    format: str,
    rows: Sequence[int] | None,  # of each sample, where they are packed
    count: Tensor | None = None,  # [B]
) -> None:
    """Raise ValueError for a box that the host knows to be reversed, infinite or NaN."""
    if not has_host_values(corners) or corners.numel() == 0:
        return
    sides = corners[..., 2:] - corners[..., :2]  # NaN for an infinite or unknown corner
    if count is not None:
        there = torch.arange(corners.shape[1]) < count.unsqueeze(1)
        sides = sides.where(there.unsqueeze(-1), 0)
    low, high = (float(v) for v in torch.aminmax(sides))
    if low >= 0 and high < math.inf:
        return
    first = (~((sides >= 0) & (sides < math.inf))).nonzero()[0].tolist()
    sample = first[0] if rows is None else sample_of_row(first[0], rows)
    what = "x1 <= x2 and y1 <= y2" if format == "xyxy" else "a width and a height >= 0"
    finite = bool(sides[tuple(first[:-1])].isfinite().all())
    got = "one that is reversed" if finite else "infinity or NaN"
    raise ValueError(f"{name}[{sample}]: expected finite boxes with {what}, got {got}")


def sample_of_row(row: int, rows: Sequence[int]) -> int:
    """The sample that a row of packed ones belongs to; ``rows``: how many each sample has."""
    stop = 0
    for i, n in enumerate(rows):
        stop += n
        if row < stop:
            return i
    return len(rows)


def check_points(
    name: str,
    points: Tensor,  # [T, …, 2 or 3] or [B, N, …, 2 or 3]
    size: tuple[int, int],
    rows: Sequence[int] | None,  # of each sample, where they are packed
    count: Tensor | None = None,  # [B]
) -> None:
    """Raise unless these are keypoints, inside the image where they are labelled."""
    if points.ndim < (2 if rows is not None else 3) or points.shape[-1] not in (2, 3):
        raise ValueError(
            f"{name}: expected x, y, and perhaps visibility, in the last dim, got shape "
            f"{list(points.shape)}"
        )
    if points.dtype == torch.bool or points.is_complex():
        raise TypeError(f"{name}: expected floats or integers, got {points.dtype}")
    if not has_host_values(points) or points.numel() == 0:
        return
    x, y = points[..., 0], points[..., 1]
    bad = ~((x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0]))
    if points.shape[-1] == 3:
        bad &= points[..., 2] != 0
    if rows is None and count is not None:
        there = torch.arange(points.shape[1]) < count.unsqueeze(1)
        bad &= there.view(*there.shape, *[1] * (bad.ndim - 2))
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        i = first if rows is None else sample_of_row(first, rows)
        raise ValueError(
            f"{name}[{i}]: expected points with 0 <= x < {size[1]} and 0 <= y < {size[0]}, got one "
            "outside the image, or NaN; give points that are not labelled visibility 0, in a third "
            "column"
        )
