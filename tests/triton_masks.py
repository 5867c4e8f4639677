"""Masks of every form and function, for the tests of the Triton kernels that mix by masks."""

from __future__ import annotations

import torch
from triton_place import DEVICE

from fused_mixup import codes
from fused_mixup.schemas import MaskArguments

SIGMOID = codes.MASK_STORED + codes.MASK_SIGMOID
CODES = (
    0,
    codes.MASK_SEPARABLE,
    codes.MASK_SEPARABLE + codes.MASK_THRESHOLD,
    codes.MASK_SEPARABLE + codes.MASK_PARITY + codes.MASK_INVERT,
    codes.MASK_STORED,
    codes.MASK_STORED + codes.MASK_THRESHOLD + codes.MASK_INVERT,
)


def mask_of(
    size: int,
    height: int,
    width: int,
    code: tuple[int, ...] = CODES,
    rank: int = 3,
    stored: tuple[int, int] | None = (2, 3),
    dtype: torch.dtype = torch.float32,
    interpolation: int = codes.NEAREST,
) -> MaskArguments:
    """Codes in turn; tables of multiples of 1/8, a map that has 0 and 1."""
    pick = torch.Generator().manual_seed(size + rank)
    number = torch.tensor([code[i % len(code)] for i in range(size)], dtype=torch.int32)
    threshold = torch.full((size,), 0.5)
    rows = columns = values = None
    if rank:
        rows = torch.randint(0, 4, (size, rank, height), generator=pick) / 8
        columns = torch.randint(0, 4, (size, rank, width), generator=pick) / 8
        parity = (number & codes.MASK_FUNCTION) == codes.MASK_PARITY
        rows[parity], columns[parity] = (rows[parity] * 8) % 2, (columns[parity] * 8) % 2
        fine = (number & codes.MASK_FUNCTION) == codes.MASK_IDENTITY
        rows[fine] *= torch.rand(rows[fine].shape, generator=pick)  # sums that are rounded
    if stored is not None:
        values = torch.rand((size, *stored), generator=pick)
        values[:, 0, :2] = torch.tensor([0.0, 1.0])[: stored[1]]
        values = (values > 0.5) if dtype == torch.bool else values
        values = values.round().to(dtype) if dtype == torch.uint8 else values.to(dtype)
    tensors = (number, threshold, rows, columns, values)
    moved = (None if t is None else t.to(DEVICE) for t in tensors)
    return MaskArguments(*moved, interpolation)
