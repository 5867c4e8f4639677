"""What every mix checks before it draws: keywords, images, labels, processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from ..arguments import kind
from .compat import check_compat
from .pairs import check_images, check_labels, check_ranks

# What OpenMixup's models hand to its functions, which do not read it.
_UNREAD = ("idx_shuffle_mix", "return_mask")
_UNREAD_BY = {
    "attentivemix": ("beta", "grid_size"),
    "mixpro": ("mask_mix", "num_class"),
    "smmix": ("alpha",),
    "tokenmix": ("num_classes", "smoothing"),
    "transmix": ("mix_mode",),
}


def check_call(
    mix: Callable[..., Any],
    img: Any,
    gt_label: Any,
    dist_mode: Any,
    compat: bool | str,
    keywords: dict[str, Any],
    *,
    ranks: bool = True,  # whether partners may come from other processes
    views: bool = True,  # whether images may be two views
) -> bool | str:
    """What ``compat`` asks for; raises for arguments that no mix takes."""
    name = mix.__name__
    compat = check_compat(compat)
    _check_keywords(mix, keywords)
    if not isinstance(dist_mode, (bool, int)):
        raise TypeError(f"dist_mode: expected True or False, got {kind(dist_mode)}")
    if dist_mode and not ranks:
        raise ValueError(f"dist_mode: expected False, as {name} mixes the batch of one process")
    check_images(img)
    if not views and img.ndim != 4:
        raise ValueError(f"img: expected [N, C, H, W] for {name}, got {list(img.shape)}")
    if dist_mode:
        check_ranks(len(img), keywords.get("idx_shuffle_mix"))
    if gt_label is not None or not dist_mode:
        check_labels(gt_label, len(img))
    return compat


def _check_keywords(mix: Callable[..., Any], keywords: dict[str, Any]) -> None:
    unread = (*_UNREAD, *_UNREAD_BY.get(mix.__name__, ()))
    for key in keywords.keys() - set(unread):
        taken = [*inspect.signature(mix).parameters, *unread]
        taken.remove("kwargs")
        near = get_close_matches(key, taken, 1)
        remedy = f"did you mean {near[0]}?" if near else "leave it out"
        raise TypeError(
            f"{key}: expected one of the keywords of {mix.__name__}, got another; {remedy}"
        )
