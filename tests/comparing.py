"""When a result counts as equal to another: what every exact comparison of the tests means."""

from __future__ import annotations

import torch
from torch import Tensor


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal, or both NaN, in the same dtype and shape; zeros may differ in sign.

    A term that a kernel leaves out leaves no sign on a zero.
    """
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.is_floating_point and a.dtype.itemsize == 1:  # float8 cannot be compared, only moved
        a, b = a.view(torch.uint8), b.view(torch.uint8)
    if a.dtype.is_complex:
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    return bool(((a == b) | ((a != a) & (b != b))).all())
