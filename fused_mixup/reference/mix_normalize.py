"""From a decoder's bytes to the model's input, in plain PyTorch: flip, mix, normalise, erase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..op_checks import check_mix_normalize
from .mixing import inside_box, mix
from .noise import noise


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
