"""The mixes that paste a box, and plain MixUp: mixup, cutmix, saliencymix, resizemix, tla."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import kind
from .calls import check_call
from .draws import (
    Box,
    clipped_box,
    cut_share,
    draw_cut_box,
    draw_derangement,
    draw_lam,
    draw_scale,
    outside_share,
)
from .numbers import check_lam, choice, number, whole
from .pairs import Pairs, Targets, pair
from .values import blend, box_mask, paste_box_, paste_resized_

_MODES = "nearest", "nearest-exact", "bilinear", "bicubic", "area"

SaliencyMap = Callable[[Tensor], Any]


@torch.no_grad()
def mixup(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Tensor, Targets]:
    """MixUp: ``lam * img + (1 - lam) * img[index]``.

    Equivalent to::

        lam = np.random.beta(alpha, alpha)
        index = torch.randperm(len(img))
        lam * img + (1 - lam) * img[index], (gt_label, gt_label[index], lam)

    Args:
        img: [N, C, H, W], or two views [N, 2, C, H, W], or of any floats or bytes.
        gt_label: [N, …].
        alpha: of Beta(α, α), > 0.
        lam: given instead of drawn, in [0, 1].
        dist_mode: partners come from the batches of all processes; ``idx_shuffle_mix`` gives
            their permutation.
        compat: see :mod:`fused_mixup.openmixup`.

    Returns:
        A new tensor, and ``(y_a, y_b, lam)``, λ a float.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412.
    """
    compat = check_call(mixup, img, gt_label, dist_mode, compat, kwargs)
    lam = draw_lam(alpha, lam)
    pairs = pair(img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat))
    return blend(pairs.as_float(), lam), (*pairs.labels, lam)


@torch.no_grad()
def cutmix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """CutMix: a box of the partner, in place.

    Equivalent to::

        lam = np.random.beta(alpha, alpha)
        index = torch.randperm(len(img))      # again, up to 10 times, while index[i] == i somewhere
        img[:, :, y0:y1, x0:x1] = img[index, :, y0:y1, x0:x1]
        lam = 1 - (y1 - y0) * (x1 - x0) / (H * W)

    Args:
        img, gt_label, alpha, lam, dist_mode: as :func:`mixup`; images of any dtype.
        return_mask: also return float32 [N, 1, H, W], 1 inside the box.
        compat: ``"0.2.9"`` draws one permutation, whatever fixed points it has.

    Returns:
        ``img`` itself, written (a new tensor for two views), or ``(img, mask)``; and
        ``(y_a, y_b, lam)``, λ a NumPy float: the share outside the box.

    Source: Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    compat = check_call(cutmix, img, gt_label, dist_mode, compat, kwargs)
    lam = draw_lam(alpha, lam)
    draw = torch.randperm if compat == "0.2.9" else draw_derangement
    pairs = pair(
        img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat), draw=draw
    )
    return _pasted(pairs, draw_cut_box(pairs.size, cut_share(lam)), return_mask)


@torch.no_grad()
def saliencymix(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    lam: float | None = None,
    dist_mode: bool = False,
    return_mask: bool = False,
    *,
    saliency: Tensor | SaliencyMap | None = None,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """SaliencyMix: the box of CutMix around the most salient pixel of a partner, in place.

    The saliency of one image, the first sample's partner, places the box of the whole batch, as
    in the paper's code.

    Args:
        img, gt_label, alpha, lam, dist_mode, return_mask: as :func:`cutmix`.
        saliency: a map [H, W] of that image, or a function from it [C, H, W] to a map, such as
            :func:`fused_mixup.saliency.spectral_residual`. By default OpenCV's
            ``StaticSaliencyFineGrained``, as OpenMixup has it: that needs opencv-contrib-python.

    Returns:
        As :func:`cutmix`.

    Raises:
        RuntimeError: no OpenCV with its saliency module, and no ``saliency``.

    Source: Uddin et al., SaliencyMix, 2021, arXiv 2006.01791.
    """
    compat = check_call(saliencymix, img, gt_label, dist_mode, compat, kwargs)
    if saliency is not None and not callable(saliency):
        _checked_map(saliency, img.shape[-2:])
    detector = _opencv_detector() if saliency is None else None
    lam = draw_lam(alpha, lam)
    pairs = pair(img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat))
    if pairs.other is not None and dist_mode:
        image = pairs.other[pairs.index[0]]
    else:  # of two views, the first one of a drawn row
        image = pairs.images[pairs.shuffle[0]]
    peak = _peak(image, saliency if detector is None else detector)
    sides = [int(n * cut_share(lam)) for n in pairs.size]
    return _pasted(pairs, clipped_box(pairs.size, peak, sides), return_mask)


@torch.no_grad()
def resizemix(
    img: Tensor,
    gt_label: Any,
    scope: tuple[float, float] = (0.1, 0.8),
    dist_mode: bool = False,
    alpha: float = 1.0,
    lam: float | None = None,
    use_alpha: bool = False,
    interpolate_mode: str = "nearest",
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """ResizeMix: the whole partner, resized into a box, in place.

    Equivalent to::

        index = torch.randperm(len(img))
        tau = np.random.uniform(*scope)      # Beta(α, α) with use_alpha, where that is in scope
        img[:, :, y0:y1, x0:x1] = F.interpolate(img[index], (y1 - y0, x1 - x0))

    Args:
        img, gt_label, dist_mode, return_mask: as :func:`cutmix`.
        scope: bounds of τ, the share of each side that the box takes before it is clipped.
        alpha: of Beta(α, α), with ``use_alpha``.
        lam: τ, given instead of drawn; clamped to ``scope``, though not in ``dist_mode``.
        interpolate_mode: as ``F.interpolate``'s.
        compat: sides swapped where images are not square, and the mask transposed against the
            box, as in OpenMixup.

    Returns:
        As :func:`cutmix`. Where the box is empty, images stay and λ is 1; OpenMixup raises.

    Source: Qin et al., ResizeMix, 2020, arXiv 2012.11101.
    """
    compat = check_call(resizemix, img, gt_label, dist_mode, compat, kwargs)
    scope = _scope(scope)
    choice("interpolate_mode", interpolate_mode, _MODES)
    check_lam(alpha if use_alpha else 1.0, lam)
    pairs = pair(img, gt_label, dist_mode, kwargs.get("idx_shuffle_mix"), compat=bool(compat))
    tau = draw_scale(scope, alpha, lam, use_alpha, clamp=not dist_mode)
    h, w = pairs.size
    x0, y0, x1, y1 = drawn = draw_cut_box((h, w) if compat else (w, h), tau)
    box = min(y0, h), min(x0, w), min(y1, h), min(x1, w)
    target = _pasted(pairs, box, return_mask, interpolate_mode, exact=bool(compat))
    if compat and return_mask:
        (out, _), labels = target
        target = (out, box_mask(pairs, drawn)), labels
    return target


@torch.no_grad()
def tla(
    img: Tensor,
    gt_label: Any,
    alpha: float = 1.0,
    dist_mode: bool = False,
    patch_size: int = 16,
    lam: float | None = None,
    return_mask: bool = False,
    *,
    compat: bool | str = False,
    **kwargs: Any,
) -> tuple[Any, Targets]:
    """Token-Label Alignment: CutMix with a box of whole patches.

    Args:
        img, gt_label, alpha, lam: as :func:`mixup`; sides are multiples of ``patch_size``.
        patch_size: pixels along a side of a patch.
        return_mask: also return float32 [N, 1, H, W], 1 inside the box.

    Returns:
        A new tensor, float, or ``(img, mask)``; and ``(y_a, y_b, lam)``, λ a NumPy float.

    Source: Xiao et al., Token-Label Alignment, 2023, arXiv 2210.06455.
    """
    compat = check_call(tla, img, gt_label, dist_mode, compat, kwargs, ranks=False)
    h, w = img.shape[-2:]
    patch_size = whole("patch_size", patch_size, 1)
    if h % patch_size or w % patch_size:
        raise ValueError(
            f"patch_size: expected a divisor of the sides {h} and {w}, got {kind(patch_size)}; "
            "resize the images"
        )
    lam = draw_lam(alpha, lam)
    pairs = pair(img, gt_label, False, compat=bool(compat))
    cells = h // patch_size, w // patch_size
    y0, x0, y1, x1 = box = draw_cut_box(cells, cut_share(lam))
    pairs = pairs.to_float32()
    if pairs.images.data_ptr() == img.data_ptr():
        pairs.images = pairs.images.clone()
    pixels = y0 * patch_size, x0 * patch_size, y1 * patch_size, x1 * patch_size
    out, (y_a, y_b, _) = _pasted(pairs, pixels, return_mask)
    return out, (y_a, y_b, outside_share(box, cells))


def _scope(scope: Any) -> tuple[float, float]:
    if not isinstance(scope, (tuple, list)):
        raise TypeError(f"scope: expected two shares, got {kind(scope)}")
    if len(scope) != 2:
        raise AssertionError(f"scope: expected two shares, got {len(scope)}")
    return number("scope", scope[0], 0), number("scope", scope[1], 0)


def _pasted(
    pairs: Pairs, box: Box, return_mask: bool, resample: str = "", *, exact: bool = False
) -> tuple[Any, Targets]:
    lam = outside_share(box, pairs.size)
    if resample:
        out = paste_resized_(pairs, box, resample, exact=exact)
    else:
        out = paste_box_(pairs, box)
    return (out, box_mask(pairs, box)) if return_mask else out, (*pairs.labels, lam)


# ------------------------------------------------------------------ the most salient pixel


def _opencv_detector() -> SaliencyMap:
    """OpenCV's map of an image, in steps of 1/255."""
    try:
        from cv2.saliency import StaticSaliencyFineGrained_create
    except ImportError as error:
        raise RuntimeError(
            f"saliencymix needs OpenCV's saliency module ({error}); pip install "
            "opencv-contrib-python, or give saliency=fused_mixup.saliency.spectral_residual"
        ) from None

    def detect(image: Tensor) -> Any:
        pixels = image.float().cpu().numpy().transpose(1, 2, 0)
        _, found = StaticSaliencyFineGrained_create().computeSaliency(pixels)
        return (found * 255).astype("uint8")

    return detect


def _peak(image: Tensor, saliency: Any) -> list[int]:
    """Row and column of the largest value, the first of ties."""
    found = saliency(image) if callable(saliency) else saliency
    values = _checked_map(found, image.shape[-2:])
    return [int(i) for i in np.unravel_index(values.argmax(), image.shape[-2:])]


def _checked_map(found: Any, size: torch.Size) -> np.ndarray:
    """An array of ``size``, perhaps with dims of one number before."""
    values = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
    if values.size != size.numel() or values.shape[-2:] != size or values.dtype.kind not in "bfiu":
        raise ValueError(
            f"saliency: expected a map {list(size)} of numbers of one image, got "
            f"{list(values.shape)} of {values.dtype}"
        )
    return values
