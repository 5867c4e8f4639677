"""The tensors of a new plan: one row for a batch or for each sample, and the partners."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import as_tensor, floats, integer, integers, kind
from ..tracing import has_host_values, is_plain
from .checks import (
    Facts,
    check_corners,
    check_int32,
    check_lam,
    check_partner_values,
    is_permutation,
)
from .rows import widen

try:
    import numpy as np

    torch.from_numpy(np.empty(0))
except (ImportError, RuntimeError):  # no NumPy, or not one that this PyTorch was built for
    np = None  # type: ignore[assignment]


def uniform_rows(
    batch_size: int, lam: float, box: Sequence[int] | None, index: Tensor | None
) -> tuple[list[Tensor], Facts]:
    """weight, blend and box of :meth:`MixPlan.uniform`, and the facts known of them."""
    lam = check_lam(lam)
    corners = () if box is None else check_corners(box)
    weight = lam, 1.0 - lam
    rows = host_rows(batch_size, weight, weight if box is None else (1.0, 0.0), corners)
    d = len(corners) // 2
    empty = not all(map(operator.lt, corners[:d], corners[d:]))
    stops = (0,) * d if empty else corners[d:]
    return rows, Facts(is_permutation(index), box is None and lam != 1.0, stops)


def host_rows(
    batch_size: int, weight: Sequence[float], blend: Sequence[float], corners: Sequence[int]
) -> list[Tensor]:
    """weight, blend and box: one row each, on the host, expanded to the batch."""
    rows = (weight, torch.float32, "f"), (blend, torch.float64, "d"), (corners, torch.int32, "i")
    if np is None or not is_plain():
        made = [torch.tensor([row], dtype=dtype, device="cpu") for row, dtype, _ in rows]
        return [row.expand(batch_size, -1) for row in made]
    # This takes a third of that time, as it calls PyTorch once for each.
    return [torch.from_numpy(_repeat_row(batch_size, row, code)) for row, _, code in rows]


def _repeat_row(count: int, row: Sequence[float], code: str) -> np.ndarray:
    memory = array(code, row)
    shape, strides = (count, len(row)), (0, memory.itemsize)
    return np.ndarray(shape, code, memory if row else None, strides=strides)


def pairing_of(
    batch_size: int,
    partner: str | Tensor,
    device: torch.device | str | None,
    pool: int | None = None,
) -> tuple[str, int, Tensor | None]:
    """The name of the pairing, B, and partner int32 [B] on ``device`` (None for a rule)."""
    batch_size = integer("batch_size", batch_size)
    if batch_size < 0:
        raise ValueError(f"batch_size: expected an int >= 0, got {batch_size}")
    if isinstance(partner, str):
        if partner not in ("flip", "roll", "self"):
            raise ValueError(
                f"partner: expected 'flip', 'roll', 'self' or integers [B], got {kind(partner)}"
            )
        return partner, batch_size, None
    index = integers("partner", partner, device)
    if index.shape != (batch_size,):
        raise ValueError(
            f"partner: expected shape [{batch_size}], got {list(index.shape)}; "
            "give one index for each sample"
        )
    check_partner_values(
        index, batch_size if pool is None else pool
    )  # before int32 can wrap a huge index around
    # A copy: later writes to the caller's tensor must not change the plan.
    index = index.to(device=device or index.device, dtype=torch.int32, copy=True)
    return "tensor", batch_size, index.contiguous()


def rows_per_sample(
    lam: Tensor | Sequence[float],  # [B]
    box: Tensor | Sequence[Sequence[int]] | None,  # [B, 2·D]
    cut: Tensor | Sequence[bool] | None,  # [B]
) -> tuple[Tensor, Tensor, Tensor]:
    """weight, blend and box of :meth:`MixPlan.per_sample`, on the device of ``lam``."""
    lam = floats("lam", lam)
    if lam.ndim != 1:
        raise ValueError(f"lam: expected shape [B], got {list(lam.shape)}")
    if lam.dtype in (torch.float16, torch.bfloat16):
        lam = lam.float()  # in half precision λ and 1-λ would not sum to one
    if has_host_values(lam):
        outside = lam[~((lam >= 0) & (lam <= 1))]  # NaN is outside too
        if len(outside):
            raise ValueError(f"lam: expected numbers in [0, 1], got {float(outside[0])}")
    weight = torch.stack((lam, 1 - lam), 1)
    boxes, has_box = _boxes(box, lam)
    if cut is not None and box is None:
        raise ValueError("cut: expected box to be given too: a row that is cut needs one")
    is_cut = has_box if cut is None else as_tensor("cut", cut, lam.device).to(lam.device)
    if is_cut.shape != lam.shape or (len(lam) and is_cut.dtype != torch.bool):
        raise ValueError(
            f"cut: expected bools of shape {list(lam.shape)}, got {is_cut.dtype} "
            f"{list(is_cut.shape)}"
        )
    is_cut = is_cut.bool()
    own, other = widen(weight).unbind(1)
    blend = torch.stack((own.where(~is_cut, 1.0), other.where(~is_cut, 0.0)), 1)
    # A box on a row that is not cut would still be pasted: empty it.
    return weight.float(), blend, torch.where(is_cut[:, None], boxes, 0)


def _boxes(box: Tensor | Sequence[Sequence[int]] | None, lam: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes int32 [B, 2·D] on the device of ``lam`` [B], and bool [B]: which are not empty."""
    batch_size = lam.shape[0]
    if box is None:
        boxes = torch.empty((batch_size, 0), dtype=torch.int32, device=lam.device)
        return boxes, torch.zeros(batch_size, dtype=torch.bool, device=lam.device)
    boxes = integers("box", box, lam.device).to(lam.device)
    check_int32("box", boxes)
    boxes = boxes.to(torch.int32)
    if boxes.numel() == 0 and batch_size == 0:
        boxes = boxes.view(0, boxes.shape[-1] if boxes.ndim == 2 else 0)
    if boxes.ndim != 2 or boxes.shape[0] != batch_size:
        raise ValueError(
            f"box: expected shape [{batch_size}, 2·D] (one row for each λ), got {list(boxes.shape)}"
        )
    d = boxes.shape[1] // 2
    return boxes, (boxes[:, d:] > boxes[:, :d]).all(1)
