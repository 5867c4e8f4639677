"""Masks of FMix in plain PyTorch: a low-frequency image as three products, and its threshold.

The published code indexes the axis of rows where it means that of real and imaginary parts, so
that of its spectrum rows 0 and 1 and two columns are left: with their coefficients Z_0 and Z_1,

    value(y, x) = Re S_0(y) + 2 Re(S_1(y) e^(2πi x/W)),   S_c(y) = Σ_k Z_c[k] e^(2πi k y/H).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..codes import DRAW_FREQUENCY
from .random import Stream, exp_negative, log, normal, short_uniform, square_root, turn


def frequencies(height: int, width: int) -> int:
    """How many coefficients the sums have."""
    return min(width // 2 + 1 + width % 2, height)


def fmix_tables(
    stream: Stream,
    unit: Tensor,  # [U]
    size: Sequence[int],
    decay: Tensor,  # [U]
    own: Tensor,  # [U], λ
    ceils: Tensor,  # [U]
) -> tuple[Tensor, Tensor, Tensor]:
    """rows [U, 3, H], columns [U, 3, W] and the threshold [U] above which λ·H·W pixels lie."""
    height, width = size
    z = _coefficients(stream, unit, height, width, decay)
    rows = _rows(z, height)
    at = torch.arange(width, device=unit.device)
    cosine, sine = turn(at, width)
    columns = torch.stack((torch.ones_like(cosine), cosine, sine)).float()
    columns = columns.expand(len(unit), 3, width)

    values = rows[:, 0, :, None] * columns[:, 0, None, :]
    for k in range(1, 3):
        values = values + rows[:, k, :, None] * columns[:, k, None, :]
    ordered = values.flatten(1).sort(1, descending=True).values
    wanted = own * (float(height) * float(width))
    count = wanted.long()
    count = count + (ceils & (count.double() < wanted))
    total = height * width
    threshold = ordered.gather(1, count.clamp(max=total - 1)[:, None])[:, 0]
    threshold = torch.where(count < total, threshold, -float("inf"))
    return rows, columns, threshold


def _coefficients(
    stream: Stream, unit: Tensor, height: int, width: int, decay: Tensor
) -> list[Tensor]:
    """Re Z_0, Im Z_0, Re Z_1, Im Z_1, each [U, K]: normal, and smaller for higher frequencies."""
    k = torch.arange(frequencies(height, width), device=unit.device)
    words = stream.words(unit[:, None], DRAW_FREQUENCY + k)
    real_0, real_1, imaginary_0, imaginary_1 = (normal(short_uniform(w)) for w in words)
    side = float(max(height, width))
    column = torch.minimum(k, width - k).double() * side / float(width)
    row = torch.full_like(column, side) / float(height)
    real, imaginary = (
        exp_negative(log(f.clamp(min=1.0)) * torch.where(decay > 0.0, decay, 0.0)[:, None])
        for f in (column, square_root(column * column + row * row))
    )
    return [real_0 * real, imaginary_0 * imaginary, real_1 * real, imaginary_1 * imaginary]


def _rows(z: list[Tensor], height: int) -> Tensor:
    """Re S_0(y), 2 Re S_1(y) and -2 Im S_1(y): float32 [U, 3, H].

    Sums run from k = 0 on. Row H-y has the same cosines as row y, and the sines of the other sign.
    """
    device = z[0].device
    y = torch.arange(height // 2 + 1, device=device)
    cosine, sine = turn(torch.arange(height, device=device), height)
    coefficient = torch.stack([z[0], z[1], z[2], z[3], z[2], z[3]])[..., None]  # [6, U, K, 1]
    sums = torch.zeros((), dtype=torch.float64, device=device)
    for k in range(z[0].shape[1]):
        j = k * y % height
        c, s = cosine[j], sine[j]
        waves = torch.stack((c, s, c, s, s, c))[:, None]  # [6, 1, Y]
        sums = sums + coefficient[:, :, k] * waves
    a, b, c, d, e, f = sums.unbind()
    near = torch.stack((a - b, (c - d) * 2.0, (e + f) * -2.0), 1)
    far = torch.stack((a + b, (c + d) * 2.0, (f - e) * -2.0), 1)
    return torch.cat((near, far[..., 1 : (height + 1) // 2].flip(2)), 2).float()
