"""What a plan is made of: one row for a batch, the partners of a pairing, one copy of all."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from .plan_checks import check_partner_values, integer, integers
from .tracing import is_plain

try:
    import numpy as np

    torch.from_numpy(np.empty(0))
except (ImportError, RuntimeError):  # there is none, or none that this PyTorch was built for
    np = None  # type: ignore[assignment]


def host_rows(
    batch_size: int, weight: Sequence[float], blend: Sequence[float], corners: Sequence[int]
) -> list[Tensor]:
    """A row each on the host, whatever the default device, that stands for all."""
    rows = (weight, torch.float32, "f"), (blend, torch.float64, "d"), (corners, torch.int32, "i")
    if np is None or not is_plain():
        made = [torch.tensor([row], dtype=dtype, device="cpu") for row, dtype, _ in rows]
        return [row.expand(batch_size, -1) for row in made]
    # A third of the time of that, as PyTorch is called once for each.
    return [torch.from_numpy(_repeated(batch_size, row, code)) for row, _, code in rows]


def _repeated(count: int, row: Sequence[float], code: str) -> np.ndarray:
    memory = array(code, row)
    shape, strides = (count, len(row)), (0, memory.itemsize)
    return np.ndarray(shape, code, memory if row else None, strides=strides)


def pairing_of(
    batch_size: int, partner: str | Tensor, device: torch.device | str | None
) -> tuple[str, int, Tensor | None]:
    """The name of the pairing, B, and where it is no rule partner int32 [B] on ``device``."""
    batch_size = integer("batch_size", batch_size)
    if batch_size < 0:
        raise ValueError(f"batch_size: expected an int >= 0, got {batch_size}")
    if isinstance(partner, str):
        if partner not in ("flip", "roll", "self"):
            raise ValueError(
                f"partner: expected 'flip', 'roll', 'self' or integers [B], got {partner!r}"
            )
        return partner, batch_size, None
    index = integers("partner", partner)
    if index.shape != (batch_size,):
        raise ValueError(
            f"partner: expected shape [{batch_size}], got {list(index.shape)}; "
            "give one index for each sample"
        )
    check_partner_values(index, batch_size)  # before int32 can wrap a huge index around
    # A copy: what the caller writes to its tensor later must not reach into the plan.
    index = index.to(device=device or index.device, dtype=torch.int32, copy=True)
    return "tensor", batch_size, index.contiguous()


def copy_packed(tensors: Sequence[Tensor], device: torch.device, non_blocking: bool) -> list:
    flat = [t.contiguous().view(-1).view(torch.uint8) for t in tensors]
    buffer = torch.cat(flat)
    if non_blocking and device.type == "cuda":
        buffer = buffer.pin_memory()
    buffer = buffer.to(device, non_blocking=non_blocking)
    parts = buffer.split([f.numel() for f in flat])
    return [p.view(t.dtype).view(t.shape) for p, t in zip(parts, tensors, strict=True)]
