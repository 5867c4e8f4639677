"""Maps that callers give: one for each image, checked."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..arguments import kind


def image_maps(
    name: str,
    maps: Any,
    img: Tensor,
    ndim: int,
    rows: tuple[int, ...] | None = None,
    *,
    floating: bool = True,
) -> Tensor:
    """A map for each image, checked."""
    if not isinstance(maps, Tensor):
        raise ValueError(f"{name}: expected a tensor of {ndim} dims, got {kind(maps)}")
    rows = (len(img),) if rows is None else rows
    if maps.ndim != ndim or len(maps) not in rows:
        raise ValueError(
            f"{name}: expected {ndim} dims and {len(img)} rows, one for each image, got "
            f"{list(maps.shape)}"
        )
    if floating and not maps.is_floating_point():
        raise TypeError(f"{name}: expected floats, got {maps.dtype}; use .float()")
    if 0 in maps.shape:
        raise ValueError(f"{name}: expected maps of some numbers, got {list(maps.shape)}")
    return maps


def class_attention(attn: Tensor, patches: int | None = None) -> Tensor:
    """[N, T]: attention from the class token to the patches, mean over heads."""
    if attn.shape[3] < 2:
        raise ValueError(
            f"attn: expected a class token and one patch or more, got {list(attn.shape)}"
        )
    attention = attn[:, :, 0, 1:].mean(1)
    if patches is not None and attention.shape[1] != patches:
        raise ValueError(
            f"attn: expected a class token and {patches} patches, got {list(attn.shape)}"
        )
    return attention
