"""The ops that mix a batch, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..dtypes import arithmetic
from ..op_checks import (
    check_mix_normalize,
    check_out,
    check_plan,
    check_samples,
    check_transpose,
)
from .blending import inside_box, mix_rows, term, weight_columns
from .noise import noise
from .pairing import partner_rows


def mix(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> Tensor:
    check_plan(x, pairing, partner, blend, box)
    return mix_rows(x, partner_rows(x, partner, pairing), blend, box, arithmetic(x.dtype))


def mix_backward(
    grad: Tensor,  # [B, …]
    partner: Tensor | None,  # [B]
    sources: Tensor | None,  # [B]
    offsets: Tensor | None,  # [B+1]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
) -> Tensor:
    # out_i = a_i x_i + b_i x_p(i)  =>  grad_j = a_j g_j + sum over p(i) = j of b_i g_i
    check_plan(grad, pairing, partner, blend, box)
    check_transpose(pairing, sources, offsets, len(grad))
    acc = arithmetic(grad.dtype)
    g = grad.to(acc)
    w0, w1 = weight_columns(blend, grad, acc)
    inside = inside_box(box, grad)
    own = torch.where(inside, 0, term(w0, g))
    other = torch.where(inside, g, term(w1, g))
    index = partner_rows(torch.arange(len(grad), device=grad.device), partner, pairing)
    own.index_add_(0, index, other)
    return torch.empty_like(grad).copy_(own)


def mix_(x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int) -> None:
    x.copy_(mix(x, partner, blend, box, pairing))


def mix_out(
    x: Tensor, partner: Tensor | None, blend: Tensor, box: Tensor, pairing: int, out: Tensor
) -> None:
    check_out(out, x)
    out.copy_(mix(x, partner, blend, box, pairing))


def paste_(x: Tensor, partner: Tensor | None, box: Tensor, pairing: int) -> None:
    check_plan(x, pairing, partner, None, box)
    x.copy_(torch.where(inside_box(box, x), partner_rows(x, partner, pairing), x))


def mix_samples(
    samples: Sequence[Tensor],  # B of […]
    partner: Tensor | None,  # [B]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
    out: Tensor,  # [n, …]
) -> None:
    check_samples(samples, out)
    mixed = mix(torch.stack(list(samples)), partner, blend, box, pairing)
    out.copy_(mixed[: out.shape[0]])


def mix_normalize(
    images: Sequence[Tensor],  # one of [B, C, H, W], or B of [C, H, W]
    partner: Tensor | None,  # [B]
    blend: Tensor,  # [B, 2]
    box: Tensor,  # [B, 2·D]
    pairing: int,
    mean: Sequence[float],  # C
    std: Sequence[float],  # C
    flip: Tensor | None,  # [B]
    erase_box: Tensor | None,  # [B, N, 4]
    erase_value: Tensor | None,  # [B or 1, N or 1, C or 1]
    erase_noise: Tensor | None,  # [B]
    first: bool,
    out: Tensor,  # [B, C, H, W]
) -> None:
    check_mix_normalize(images, mean, std, flip, erase_box, erase_value, erase_noise, out)
    x = images[0] if len(images) == 1 and images[0].ndim == 4 else torch.stack(list(images))
    if flip is not None:
        x = torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x)
    m, s = (
        torch.tensor(v, dtype=torch.float32, device=x.device).view(-1, 1, 1) for v in (mean, std)
    )
    if first:  # bytes are rounded to bytes, as in mix
        x = mix(x if x.dtype == torch.uint8 else x.float(), partner, blend, box, pairing)
    y = (x.float() - m) / s
    if not first:
        y = mix(y, partner, blend, box, pairing)
    if erase_box is not None:
        fill = _fill(erase_value, erase_noise, y)
        for k in range(erase_box.shape[1]):
            y = torch.where(inside_box(erase_box[:, k], y), fill(k), y)
    out.copy_(y)


def _fill(value: Tensor | None, keys: Tensor | None, y: Tensor) -> Callable[[int], Tensor]:
    """A function of k that gives what fills the boxes [:, k], broadcasting to y."""
    if keys is not None:
        values = noise(keys, *y.shape[1:])
        return lambda k: values
    assert value is not None
    return lambda k: value[:, min(k, value.shape[1] - 1), :, None, None]
