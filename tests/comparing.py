"""Every exact comparison of the tests uses the equality defined here."""

from __future__ import annotations

import torch
from torch import Tensor


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether both have one dtype and shape and equal or NaN elements; zeros may differ in sign.

    A kernel that skips a term does not give its sign to a zero.
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.is_floating_point and a.dtype.itemsize == 1:  # float8: as bytes
        a, b = a.view(torch.uint8), b.view(torch.uint8)
    if a.dtype.is_complex:
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    return bool(((a == b) | ((a != a) & (b != b))).all())
