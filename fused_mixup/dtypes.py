"""Which dtypes the kernels take, and in which they compute."""

from __future__ import annotations

import torch

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BLENDABLE = (*FLOATING, torch.uint8)
NORMALIZED = FLOATING[:3]  # of what mix_normalize gives; it takes uint8 too


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and products: float64 for float64, float32 for the rest."""
    return torch.float64 if dtype == torch.float64 else torch.float32
