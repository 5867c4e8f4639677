"""Maps from an image alone: a blur, and the spectral residual."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

_LARGEST = 128  # images are made this small before their spectrum is taken
_TINY = 1e-10  # keeps the log of a magnitude finite
_GREY = (0.2989, 0.587, 0.114)


def gaussian_blur(maps: Tensor, size: Sequence[int], sigma: Sequence[float]) -> Tensor:
    """Maps […, H, W] blurred by a Gaussian, reflected at the edges.

    Equivalent to::

        torchvision.transforms.functional.gaussian_blur(maps, size, sigma)

    Args:
        maps: […, H, W], floating; sides larger than half of ``size``.
        size: odd width and height of the kernel.
        sigma: along the width and along the height, above 0.

    Raises:
        ValueError: an even size, a sigma that is not above 0, maps too small for the size.
    """
    for n, s, extent in zip(size, sigma, (maps.shape[-1], maps.shape[-2]), strict=True):
        if n < 1 or n % 2 == 0 or n // 2 >= extent:
            raise ValueError(
                f"size: expected odd sizes below {2 * extent}, twice a side of the maps, got {n}"
            )
        if not s > 0:
            raise ValueError(f"sigma: expected numbers above 0, got {s}")
    (wide, high) = lines = [_line(n, s, maps) for n, s in zip(size, sigma, strict=True)]
    x, y = (len(line) // 2 for line in lines)
    kernel = torch.mm(high[:, None], wide[None])[None, None]
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return conv2d(pad(flat, (x, x, y, y), mode="reflect"), kernel).reshape(maps.shape)


def _line(size: int, sigma: float, like: Tensor) -> Tensor:
    half = (size - 1) * 0.5
    at = torch.linspace(-half, half, size, dtype=like.dtype, device=like.device)
    values = torch.exp(-0.5 * (at / sigma).pow(2))
    return values / values.sum()


@torch.no_grad()
def spectral_residual(images: Tensor, blur: int = 7, sigma: float = 3.0, box: int = 3) -> Tensor:
    """Saliency from what is unusual in an image's spectrum.

    ``|F⁻¹(exp(L - mean(L)) · F(x) / |F(x)|)|`` with ``L = log |F(x)|`` and a mean over ``box`` ×
    ``box`` frequencies, blurred. Needs no network.

    Args:
        images: [B, C, H, W] or [C, H, W], floating; of 3 channels or 1 (others are averaged).
        blur, sigma: of the Gaussian that blurs the map; 0 for none.
        box: frequencies that are averaged, odd.

    Returns:
        [B, H, W] or [H, W], >= 0, in the dtype of the images (float32 for half precision).

    Notes:
        Images higher than 128 pixels are analysed at 128 × 128, and maps enlarged.

    Source: Hou and Zhang, Saliency detection: a spectral residual approach, CVPR 2007; the form
    of GuidedMixup, 2023, arXiv 2306.16612.
    """
    if images.ndim not in (3, 4) or not images.is_floating_point():
        raise ValueError(
            f"images: expected floats [B, C, H, W] or [C, H, W], got {images.dtype} "
            f"{list(images.shape)}"
        )
    if box < 1 or box % 2 == 0:
        raise ValueError(f"box: expected an odd number of frequencies, got {box}")
    if 0 in images.shape:
        raise ValueError(f"images: expected images with pixels, got {list(images.shape)}")
    if images.ndim == 3:
        return spectral_residual(images[None], blur, sigma, box)[0]
    if images.dtype in (torch.float16, torch.bfloat16):
        images = images.float()
    grey = _grey(images)
    height, width = grey.shape[-2:]
    large = height > _LARGEST
    if large:
        grey = interpolate(grey, (_LARGEST, _LARGEST), mode="bilinear", antialias=True)
    spectrum = torch.fft.fft2(grey)
    magnitude = (spectrum.real**2 + spectrum.imag**2 + _TINY).sqrt()
    log = magnitude.log()
    kernel = torch.full((1, 1, box, box), 1.0 / (box * box), dtype=log.dtype, device=log.device)
    around = conv2d(pad(log, (box // 2,) * 4, mode="replicate"), kernel)
    found = torch.fft.ifft2(spectrum * ((log - around).exp() / magnitude))
    saliency = (found.real**2 + found.imag**2).sqrt()
    if blur:
        saliency = gaussian_blur(saliency, (blur, blur), (sigma, sigma))
    if large:
        saliency = interpolate(saliency, (height, width), mode="bilinear", antialias=True)
    return saliency[:, 0]


def _grey(images: Tensor) -> Tensor:
    """[B, 1, H, W]."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = torch.tensor(_GREY, dtype=images.dtype, device=images.device)
    return (images * weights.view(3, 1, 1)).sum(1, keepdim=True)
