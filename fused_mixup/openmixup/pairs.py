"""Who is mixed with whom: OpenMixup's three cases.

* images [B, C, H, W]: the partner is another image of the batch, by a drawn permutation;
* two views [B, 2, C, H, W]: the partner of a first view is the second view of the same row;
* ``dist_mode``: the partner is an image of the batches of all processes together.
"""

# ruff: noqa: NPY002  (the legacy generator is the one that OpenMixup draws from)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import check_plain_tensor, kind
from ..checks import check_memory

Targets = tuple[Any, Any, Any]


@dataclass
class Pairs:
    """What one call mixes.

    Attributes:
        images: [B, C, H, W], mixed, and written by mixes that paste in place.
        other: [M, C, H, W], what partners are taken from; None where that is ``images`` itself.
        index: int64 [B] on the device of images, the partner's row there.
        labels: what stands in the targets before λ.
        shuffle: the permutation that was drawn, for maps that go with the images.
    """

    images: Tensor
    other: Tensor | None
    index: Tensor
    labels: tuple[Any, Any]
    shuffle: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[-2], self.images.shape[-1]

    def partner_of(self, values: Tensor) -> Tensor:
        """``values`` [B, …], one for each image, of the drawn partners."""
        return values[self.shuffle.to(values.device)]

    def as_float(self) -> Pairs:
        """Images and partners as floating point: a float stays, bytes become float32."""
        if self.images.is_floating_point():
            return self
        return self.to(torch.get_default_dtype())

    def to_float32(self) -> Pairs:
        """Half precision as float32, as a float32 mask makes it; float64 stays."""
        if self.images.dtype == torch.float64:
            return self
        return self.to(torch.float32)

    def to(self, dtype: torch.dtype) -> Pairs:
        other = None if self.other is None else self.other.to(dtype)
        return Pairs(self.images.to(dtype), other, self.index, self.labels, self.shuffle)


def pair(
    img: Tensor,
    gt_label: Any,
    dist_mode: bool,
    idx_shuffle: Tensor | None = None,
    *,
    compat: bool = False,
    draw: Callable[[int], Tensor] = torch.randperm,
) -> Pairs:
    """The pairs of a checked batch, drawn as OpenMixup draws them.

    For two views, labels follow their sample; OpenMixup (``compat``) shuffles them.
    """
    own, second = (img, None) if img.ndim == 4 else (img[:, 0].contiguous(), img[:, 1])
    batch_size = len(own)
    if dist_mode:
        return _pair_over_ranks(own, second, gt_label, idx_shuffle)
    shuffle = draw(batch_size).to(img.device)
    index = shuffle if second is None else torch.arange(batch_size, device=img.device)
    follows = shuffle if compat else index
    return Pairs(own, second, index, (gt_label, _rows(gt_label, follows)), follows)


def check_images(img: Tensor) -> None:
    if not isinstance(img, Tensor):
        raise TypeError(f"img: expected a tensor [N, C, H, W], got {kind(img)}")
    check_plain_tensor("img", img)
    check_memory("img", img)
    if img.ndim != 4 and not (img.ndim == 5 and img.shape[1] == 2):
        raise ValueError(
            f"img: expected [N, C, H, W], or two views [N, 2, C, H, W], got {list(img.shape)}"
        )
    if 0 in img.shape:
        raise ValueError(f"img: expected at least one image with pixels, got {list(img.shape)}")
    if img.dtype == torch.bool or img.is_complex():
        raise TypeError(f"img: expected numbers that can be mixed, got {img.dtype}; use .float()")


def check_labels(gt_label: Any, batch_size: int) -> None:
    if not isinstance(gt_label, Tensor):
        raise TypeError(f"gt_label: expected a tensor [N, …], got {kind(gt_label)}")
    if gt_label.ndim < 1 or len(gt_label) != batch_size:
        raise ValueError(
            f"gt_label: expected [{batch_size}, …], one for each image, got {list(gt_label.shape)}"
        )


def _rows(values: Tensor, index: Tensor) -> Tensor:
    return values[index.to(values.device)]


# ------------------------------------------------------------------ over all processes


def check_ranks(batch_size: int, idx_shuffle: Any) -> None:
    """Raise ValueError without a process group, or for a permutation that is not of its images."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        raise ValueError(
            "dist_mode: expected a process group, got none; call "
            "torch.distributed.init_process_group, or leave dist_mode=False"
        )
    total = _world() * batch_size
    fits = isinstance(idx_shuffle, Tensor) and idx_shuffle.shape == (total,)
    if idx_shuffle is not None and not fits:
        raise ValueError(
            f"idx_shuffle_mix: expected [{total}], one for each image of all processes, got "
            f"{kind(idx_shuffle)}"
        )


def _pair_over_ranks(
    own: Tensor, second: Tensor | None, gt_label: Any, idx_shuffle: Tensor | None
) -> Pairs:
    """Partners from the batches of all ranks; rank 0's permutation holds for all."""
    gathered = _gather(own if second is None else second)
    total = len(gathered)
    if idx_shuffle is None:
        idx_shuffle = _draw_over_ranks(total).to(own.device)
    torch.distributed.broadcast(idx_shuffle, src=0)
    rank, batch_size = torch.distributed.get_rank(), len(own)
    index = idx_shuffle[rank * batch_size : (rank + 1) * batch_size]
    if gt_label is None:
        labels = idx_shuffle, torch.argsort(idx_shuffle)
    else:
        all_labels = _gather(gt_label)
        # OpenMixup broadcasts the permutation once more with the labels; nothing changes.
        labels = gt_label, _rows(all_labels, index)
    return Pairs(own, gathered, index, labels, index)


def _gather(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(_world())]
    torch.distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def _world() -> int:
    return int(torch.distributed.get_world_size())


def _draw_over_ranks(total: int) -> Tensor:
    """A permutation without a fixed point; every rank draws, though only rank 0's is used."""
    own = torch.arange(total)
    index = torch.randperm(total)
    for _ in range(20):
        if not bool((index == own).any()):
            return index
        index = torch.randperm(total)
    # The last permutation is dropped unseen, as OpenMixup drops it.
    for _ in range(3):  # swap two halves
        order = torch.randperm(total)
        upper = order > torch.median(order)
        if int(upper.sum()) * 2 == total:
            index = own.clone()
            index[upper], index[~upper] = own[~upper], own[upper]
            return index
    return (own + np.random.randint(1, total - 1)) % total
