"""timm's ``PrefetchLoader`` on the fused op, also in timm's ``create_loader``.

Import both names from :mod:`fused_mixup.timm`.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..codes import MAX_CHANNELS
from ..dtypes import NORMALIZED
from ..loading.around import AroundLoader
from ..loading.moving import map_leaves, move
from ..loading.normalizing import normalize_checked
from ..loading.streams import Copies, Started, one_ahead, streams_of
from ..memory import recycled_tensor
from .checks import per_channel
from .erasing import Fill, RandomErasing, as_erasing, write_fills

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_NAME = "PrefetchLoader"  # what create_loader looks up in its module
_SMALLEST = torch.finfo(torch.float32).tiny


class PrefetchLoader(AroundLoader):
    """The batches of timm's ``PrefetchLoader``, normalised and erased in one pass.

    ``(x - 255 mean) / (255 std)`` in ``img_dtype``, then boxes of random erasing; the next batch is
    copied to the device beside the work on this one. Only the import line changes::

        from fused_mixup.timm import PrefetchLoader  # from timm.data.loader

    or none: :func:`patch_create_loader` makes timm's ``create_loader`` use it.

    Equivalent to (one batch)::

        x = x.to(device).to(img_dtype).sub_(255 * mean).div_(255 * std)  # mean, std: [C, 1, 1]
        x = timm.data.random_erasing.RandomErasing(re_prob, mode=re_mode, …)(x)

    Args:
        loader: yields pairs of images [B, C, H, W] (bytes, or floats of 0 to 255) and targets (a
            tensor, a :class:`fused_mixup.MixedTarget`, or a structure of those).
        mean, std: for each channel, of images in 0 to 1; one value, or another number of them than
            ``channels``, counts as their average for all.
        channels: C.
        device: where batches go.
        img_dtype: of the result; float32 by default. ``fp16``: float16.
        re_prob, re_mode, re_count, re_num_splits: of random erasing: the share of images, what
            fills a box (``"const"`` 0, ``"rand"`` a colour, ``"pixel"`` noise), the most boxes of
            an image, in how many parts the batch is split, of which the first stays as it is.
        channels_last: the result's memory format: True or False, or None for the strides that came,
            as timm's.

    Yields:
        Images in ``img_dtype``, and targets, on the device.

    Raises:
        TypeError, ValueError: batches that are no pairs of images and targets, images of another
            number of channels.
        AssertionError: an unknown ``re_mode``.
        Whatever the loader raises, after the batches before it.

    Notes:
        The draws are timm's, in its order: decisions and boxes from Python's ``random``, colours
        and noise from PyTorch's generator of the device, both one batch ahead. Float32 images are
        equal to timm's, bit for bit. What differs:

        - Half images are rounded once, and so are the nearest to the exact value. timm makes its
          constants in ``img_dtype`` and rounds three times: 57 % of bfloat16 values are not the
          nearest, with a bias for each channel.
        - A batch that is in ``img_dtype`` and on the device already is not written; timm
          normalises it in place, and with it a data set held in memory.
        - The pass runs on the consumer's stream, when a batch is handed over; copies run beside.
        - The batch before an exception of the loader still comes.

        Where timm is loaded, ``isinstance(ours, timm.data.loader.PrefetchLoader)`` holds.

    Source: Zhong et al., Random Erasing, 2020, arXiv 1708.04896.
    """

    _theirs: type | None = None  # timm's class, where its name has been given to ours
    _channels_last: bool | None = None  # the default of channels_last

    def __init__(
        self,
        loader: Any,
        mean: float | Sequence[float] = _MEAN,
        std: float | Sequence[float] = _STD,
        channels: int = 3,
        device: torch.device | str = "cuda",
        img_dtype: torch.dtype | None = None,
        fp16: bool = False,
        re_prob: float = 0.0,
        re_mode: str = "const",
        re_count: int = 1,
        re_num_splits: int = 0,
        channels_last: bool | None = None,
    ) -> None:
        self.loader, self.device = loader, torch.device(device)
        self.channels_last = self._channels_last if channels_last is None else channels_last
        if fp16:
            img_dtype = torch.float16
        self.img_dtype = img_dtype or torch.float32
        self._means, self._stds = ([v * 255 for v in per_channel(x, channels)] for x in (mean, std))
        options: dict[str, Any] = {"device": self.device, "dtype": img_dtype}
        self._mean, self._std = (
            torch.tensor(v, **options).view(1, channels, 1, 1) for v in (self._means, self._stds)
        )
        self.random_erasing = None
        if re_prob > 0.0:
            drawn = re_prob, re_mode, re_count, re_num_splits
            self.random_erasing = RandomErasing(*drawn, self.device)
        self._copies: Copies | None = None
        # The fused pass divides by normal float32 numbers.
        self._fused = (
            self.img_dtype in NORMALIZED
            and self._mean.dtype == self.img_dtype
            and self.device.type in ("cpu", "cuda")
            and channels <= MAX_CHANNELS
            and all(map(math.isfinite, (*self._means, *self._stds)))
            and all(abs(v) >= _SMALLEST for v in self._stds)
        )

    @property
    def mean(self) -> Tensor:
        """[1, C, 1, 1], in units of bytes."""
        return self._mean

    @property
    def std(self) -> Tensor:
        """[1, C, 1, 1], in units of bytes."""
        return self._std

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        loaded = sys.modules.get("timm.data.loader")
        theirs: Any = self._theirs or getattr(loaded, _NAME, type(self))
        return theirs  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        # With object.__reduce__, pickle compares the type with __class__, and refuses.
        # A class that patch_create_loader made cannot be found by its name; what it sets is in the
        # instance.
        cls = type(self)
        if cls is not PrefetchLoader and "_channels_last" in vars(cls):
            cls = PrefetchLoader
        return _new_instance, (cls,), {**self.__dict__, "_copies": None}

    # ---------------------------------------------------------------- iteration

    def __iter__(self) -> Iterator[Any]:
        streams = streams_of(self.device)
        if streams is not None and self._copies is None:
            self._copies = Copies(self.device, streams)
        yield from one_ahead(self.loader, self._start, self._finish, self._drop)

    def _start(self, batch: Any) -> tuple[Any, list[Fill]]:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(f"loader: expected pairs (images, targets), got {kind(batch)}")
        shape = self._check(batch[0])
        if self._copies is None:
            started = map_leaves(lambda value: move(value, self.device), batch)
        else:
            started = self._copies.start(batch)
        drawn = self.random_erasing.draw(shape, self.img_dtype) if self.random_erasing else []
        return started, drawn

    def _finish(self, started: tuple[Any, list[Fill]]) -> tuple[Tensor, Any]:
        batch, fills = started
        if self._copies is not None and isinstance(batch, Started):
            batch = self._copies.wait(batch, [f.values for f in fills if f.values is not None])
        images, target = batch
        return self._normalize(images, fills), target

    def _drop(self, started: tuple[Any, list[Fill]]) -> None:
        if self._copies is not None and isinstance(started[0], Started):
            self._copies.drop(started[0])

    def _check(self, images: Any) -> tuple[int, ...]:
        if not isinstance(images, Tensor):
            raise TypeError(
                f"loader: expected images in a tensor [B, C, H, W], got {kind(images)}; collate "
                "with fused_mixup.timm.FastCollateMixup, timm's fast_collate or default_collate"
            )
        shape, channels = tuple(images.shape), len(self._means)
        if len(shape) != 4 or channels not in (1, shape[1]):
            raise ValueError(
                f"loader: expected images [B, {channels}, H, W], got {list(shape)}; give channels= "
                "(of create_loader: input_size=(C, H, W)) that of the images"
            )
        return shape

    def _normalize(self, x: Tensor, fills: list[Fill]) -> Tensor:
        if not self._fused or x.dtype not in (torch.uint8, *NORMALIZED):
            x = x.to(self.img_dtype, copy=True).sub_(self._mean).div_(self._std)
            write_fills(x, fills)
            return x if self.channels_last is None else x.contiguous(memory_format=self._format)
        channels = x.shape[1]
        means, stds = (v * channels if len(v) == 1 else v for v in (self._means, self._stds))
        of_noise = self.random_erasing is not None and self.random_erasing.mode == "pixel"
        erase = None if of_noise else as_erasing(fills, len(x), x.device)
        out = self._empty_like(x) if self.channels_last is None else None
        constants = means, stds, self.img_dtype, self._format
        x = x.detach()
        out = normalize_checked([x], tuple(x.shape), None, *constants, False, None, erase, out)
        if of_noise:
            write_fills(out, fills)
        return out

    @property
    def _format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def _empty_like(self, x: Tensor) -> Tensor:
        """A result with the strides of the images."""
        dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        if x.is_cpu and dense:
            return recycled_tensor(x.shape, self.img_dtype, x.stride())
        return torch.empty_like(x, dtype=self.img_dtype)

    @property
    def mixup_enabled(self) -> bool:
        """The switch of the loader's ``FastCollateMixup`` (ours or timm's); False without one."""
        return bool(getattr(self.loader.collate_fn, "mixup_enabled", False))

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        if hasattr(self.loader.collate_fn, "mixup_enabled"):
            self.loader.collate_fn.mixup_enabled = value


def _new_instance(cls: type) -> Any:
    return object.__new__(cls)


# ------------------------------------------------------------------ create_loader


class Patch:
    """timm's ``create_loader`` makes our loaders until :meth:`restore`, or the end of ``with``."""

    def __init__(self, loader_class: type) -> None:
        self.loader_class = loader_class

    def restore(self) -> None:
        """Take this patch back; timm's own class returns with the last one."""
        if self not in _patches:
            return
        _patches.remove(self)
        _apply()

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


def patch_create_loader(*, channels_last: bool | None = None) -> Patch:
    """Make timm's ``create_loader(..., use_prefetcher=True)`` give our :class:`PrefetchLoader`.

    One line at the top of a training script, which stays as it is::

        import fused_mixup.timm
        fused_mixup.timm.patch_create_loader()

    or for some loaders alone::

        with fused_mixup.timm.patch_create_loader():
            loader = timm.data.create_loader(dataset, (3, 224, 224), 128, is_training=True)

    Equivalent to::

        timm.data.loader.PrefetchLoader = fused_mixup.timm.PrefetchLoader

    Args:
        channels_last: as in :class:`PrefetchLoader`.

    Returns:
        A patch: ``.restore()``, or leaving ``with``, takes it back.

    Raises:
        ModuleNotFoundError: timm is not installed.

    Notes:
        It may be called again; the last call's ``channels_last`` counts, and timm's class returns
        once all patches are taken back. Loaders that were made stay what they are. NaFlex loaders
        (``create_naflex_loader``) are timm's, unchanged.
    """
    importlib.import_module("timm.data.loader")
    chosen: Any = PrefetchLoader
    if channels_last is not None:
        chosen = type(_NAME, (PrefetchLoader,), {"_channels_last": channels_last})
    patch = Patch(chosen)
    _patches.append(patch)
    _apply()
    return patch


def _apply() -> None:
    """Give timm's name to the class of the last patch, or back to timm's own."""
    module = importlib.import_module("timm.data.loader")
    current = getattr(module, _NAME)
    if not issubclass(current, PrefetchLoader):
        PrefetchLoader._theirs = current
    setattr(module, _NAME, _patches[-1].loader_class if _patches else PrefetchLoader._theirs)


_patches: list[Patch] = []  # those that are on, in their order
