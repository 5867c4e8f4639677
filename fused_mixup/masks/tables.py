"""Masks that are sums of a few products of a row and a column, above a threshold; FMix is one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import check_number
from ..codes import MASK_INVERT, MASK_RANK, MASK_SEPARABLE, MASK_THRESHOLD
from .fields import check_host, check_same, float_table, image_size, integer_rows, mask_of
from .mix_mask import MixMask


def row_table_mask(
    rows: Tensor,  # [B, R, H]
    columns: Tensor,  # [B, R, W]
    threshold: Tensor,  # [B]
    complement: bool = False,
) -> MixMask:
    """Where a sum of products of rows and columns lies above a threshold.

    ``m[y, x] = 1`` where ``Σ_k rows[k, y] · columns[k, x] > threshold``, else 0.

    Equivalent to::

        s = (rows[:, :, :, None] * columns[:, :, None, :]).sum(1)
        m = (s > threshold[:, None, None]).float()

    Args:
        rows: [B, R, H] floats, R up to 4.
        columns: [B, R, W].
        threshold: [B].
        complement: give the mask 1 - m.

    Returns:
        A mask of B samples on the device of ``rows``.

    Raises:
        TypeError: no floats.
        ValueError: shapes or devices that do not fit, NaN in values on the CPU.

    Notes:
        Values are rounded to float32; each product and each sum is rounded by itself, in the order
        of k. No value is read from a device.

    Source: the form of an image of rank R; :func:`fmix_mask` is one.
    """
    tables = float_table("rows", rows, "B, R, H"), float_table("columns", columns, "B, R, W")
    level = float_table("threshold", threshold, "B")
    check_same("columns", tables[1], "rows", tables[0])
    check_same("threshold", level, "rows", tables[0])
    ranks = {t.shape[1] for t in tables}
    if len(ranks) > 1 or not 1 <= tables[0].shape[1] <= MASK_RANK:
        raise ValueError(
            f"rows, columns: expected [B, R, H] and [B, R, W] with R from 1 to {MASK_RANK}, got "
            f"{list(tables[0].shape)} and {list(tables[1].shape)}"
        )
    check_host("threshold", ~level.isnan(), "numbers that are not NaN")
    code = MASK_SEPARABLE + MASK_THRESHOLD + (MASK_INVERT if complement else 0)
    row, column = (t.float() for t in tables)
    return mask_of(code, tables[0], level.float(), rows=row, columns=column)


def fmix_mask(
    normals: Tensor,  # [B, 2, K, 2]
    count: Tensor | Sequence[int],  # [B]
    size: Sequence[int],
    decay: float = 3.0,
) -> MixMask:
    """The mask of FMix: the ``count`` largest pixels of a random image of low frequency.

    The published code fills rows 0 and 1 of a spectrum, and so its image has rank 3. With
    ``s_r[k] = max(sqrt(f_k² + (r/H)²), 1/max(H, W))^-decay``, f_k the k-th of ``fftfreq(W)``::

        Z[k, c] = s_0[k] · normals[0, k, c] + i · s_1[k] · normals[1, k, c]
        S_c(y)  = Σ_k Z[k, c] · e^(2πi·k·y/H)           k < min(K, H)
        v[y, x] = Re S_0(y) + 2 Re(S_1(y) · e^(2πi·x/W))

    and m = 1 on the ``count`` largest v, else 0: a table of three numbers a row, no FFT, no image.

    Equivalent to (the published code)::

        spectrum = normals_of_all_rows * scale[:, :, None]      # [H, K, 2]
        image = np.real(np.fft.irfftn(spectrum[0] + 1j * spectrum[1], (H, W)))
        m = np.zeros(H * W)
        m[image.reshape(-1).argsort()[::-1][:count]] = 1

    Args:
        normals: [B, 2, K, 2], standard normal, K = W//2 + 1 (W//2 + 2 for odd W): of the published
            ``np.random.randn(1, H, K, 2)``, ``[:, :2]``.
        count: [B] integers from 0 to H·W: ``floor`` or ``ceil`` of λ·H·W.
        size: (H, W), of 3 and more.
        decay: the power δ by which frequencies fall, from 0 to 10.

    Returns:
        A mask of B samples on the device of ``normals``: tables of 3·B·(H + W) float32.

    Raises:
        TypeError: ``normals`` that are no floats, ``count`` that are no integers.
        ValueError: shapes or devices that do not fit; on the CPU also a count out of range.

    Notes:
        The label weight of FMix is λ, or take ``mask.mean()``. The threshold is the largest value
        that is left out, of the float32 image that kernels compute; of equal values at the border
        none is taken. Sines are those of PyTorch, which devices round differently in the last bit
        of float64; they are rounded to float32 here. No value is read from a device. Finding the
        threshold sorts B·H·W values once.

    Source: Harris et al., FMix, 2020, arXiv 2002.12047.
    """
    height, width = image_size(size, 3)
    n = float_table("normals", normals, "B, 2, K, 2").double()
    terms = width // 2 + 1 + width % 2
    if n.shape[1:] != (2, terms, 2):
        raise ValueError(f"normals: expected [B, 2, {terms}, 2], got shape {list(n.shape)}")
    number = integer_rows("count", count, "B").to(n.device)
    check_same("count", number, "normals", n)
    pixels = height * width
    check_host("count", (number >= 0) & (number <= pixels), f"integers from 0 to {pixels}")
    power = check_number("decay", decay)
    if not 0.0 <= power <= 10.0:  # float32 holds what is drawn by these
        raise ValueError(f"decay: expected a number in [0, 10], got {decay}")
    rows, columns = _fmix_tables(n, height, width, power)
    s = rows[:, 0, :, None] * columns[:, 0, None, :]
    for k in (1, 2):
        s = s + rows[:, k, :, None] * columns[:, k, None, :]
    falling = s.flatten(1).sort(1, descending=True).values
    least = torch.full((len(n), 1), -math.inf, device=n.device)
    at = number.clamp(0, pixels)[:, None]
    threshold = torch.cat((falling, least), 1).gather(1, at)[:, 0]
    return row_table_mask(rows, columns.contiguous(), threshold)


def _turns(count: int, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of 2π·k·y/n for k < count, y < n; whole turns are taken off in integers."""
    k = torch.arange(count, device=device)[:, None] * torch.arange(n, device=device)
    angle = k.remainder(n).double() * (2 * math.pi / n)
    return angle.cos(), angle.sin()


def _fmix_tables(n: Tensor, height: int, width: int, decay: float) -> tuple[Tensor, Tensor]:
    terms = n.shape[2]
    k = torch.arange(terms, device=n.device, dtype=torch.float64)
    along = torch.minimum(k, width - k) / width
    least = 1.0 / max(height, width)
    first, second = (
        (along**2 + (r / height) ** 2).sqrt().clamp(min=least) ** -decay for r in (0, 1)
    )
    real, imaginary = n[:, 0] * first[:, None], n[:, 1] * second[:, None]  # [B, K, 2]
    used = min(terms, height)
    cos, sin = _turns(used, height, n.device)
    real, imaginary = real[:, :used], imaginary[:, :used]

    def real_sum(c: int) -> Tensor:
        return real[..., c] @ cos - imaginary[..., c] @ sin

    rows = (real_sum(0), 2 * real_sum(1), -2 * (real[..., 1] @ sin + imaginary[..., 1] @ cos))
    cos, sin = _turns(2, width, n.device)
    columns = torch.stack((torch.ones_like(cos[1]), cos[1], sin[1]))[None]
    return torch.stack(rows, 1).float(), columns.float().expand(len(n), -1, -1)
