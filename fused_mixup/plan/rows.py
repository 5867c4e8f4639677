"""Rows of a plan, converted, moved to a device, and shown as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import is_host_row
from ..tracing import has_host_values


def map_rows(convert: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """``convert(t)``; one row on the host stays one row."""
    return convert(t[:1]).expand(len(t), -1) if is_host_row(t) and len(t) else convert(t)


def widen(t: Tensor) -> Tensor:
    """``t`` in float64, or in float32 on a device that has no float64 (Apple's GPUs)."""
    try:
        return t.double()
    except TypeError:
        return t.float()


def to_device(t: Tensor, device: torch.device) -> Tensor:
    """``t`` on ``device``, in float32 where that device has no float64."""
    try:
        return t.to(device)
    except TypeError:
        return t.float().to(device)


def copy_packed(tensors: Sequence[Tensor], device: torch.device, non_blocking: bool) -> list[Any]:
    flat = [t.contiguous().view(-1).view(torch.uint8) for t in tensors]
    buffer = torch.cat(flat)
    if non_blocking and device.type == "cuda":
        buffer = buffer.pin_memory()
    buffer = buffer.to(device, non_blocking=non_blocking)
    parts = buffer.split([f.numel() for f in flat])
    try:
        return [p.view(t.dtype).view(t.shape) for p, t in zip(parts, tensors, strict=True)]
    except TypeError:  # the device has no float64
        return [to_device(t, device) for t in tensors]


def format_rows(
    partner: Tensor,  # [B]
    weight: Tensor,  # [B, 2]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
) -> list[str]:
    """Lines of text for a plan's first rows; none where they live on a device."""
    if not all(map(has_host_values, (partner, weight, box))):
        return []
    shown = min(len(weight), 8)
    columns = (t[:shown].tolist() for t in (partner, weight, blend, box))
    rows = [
        f"  {i}: partner {other}, weight ({w[0]:.4g}, {w[1]:.4g}), "
        f"blend ({b[0]:.4g}, {b[1]:.4g}), box {corners or 'none'}"
        for i, (other, w, b, corners) in enumerate(zip(*columns, strict=True))
    ]
    return rows if shown == len(weight) else [*rows, f"  … {len(weight) - shown} more"]
