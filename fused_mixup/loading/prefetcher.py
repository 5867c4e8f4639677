"""The device side of a data loader: :class:`Prefetcher`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_choice, kind
from ..batch_mix.entries import Kinds
from ..batch_mix.structure import New, items, replace
from ..batch_mix.worker_streams import check_epoch
from .around import AroundLoader
from .augment import Augmentation
from .erasing import Erasing
from .image_step import FusedPass, Images
from .moving import map_leaves, move
from .normalize_checks import check_dtype
from .normalizing import ORDERS, check_memory_format
from .streams import Copies, one_ahead, streams_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Prefetcher(AroundLoader):
    """Iterate over a data loader's batches on the device: copied ahead, normalised, mixed.

    Bytes become the model's input in one pass, ``(x - 255 mean) / (255 std)`` and then
    ``λ x_i + (1-λ) x_j`` or a pasted box; targets, masks, boxes and all other entries are mixed by
    the same plan. On CUDA the next batch is copied beside the work on this one::

        loader = DataLoader(dataset, 256, num_workers=8, pin_memory=True)  # uint8 images
        mix = BatchMix(num_classes=1000, mixup_alpha=0.8, cutmix_alpha=1.0)
        batches = Prefetcher(loader, "cuda", mix=mix)
        for epoch in range(epochs):
            batches.set_epoch(epoch)
            for x, target in batches:  # bfloat16, channels_last, on the device
                loss = soft_target_cross_entropy(model(x), target)

    Equivalent to (without the overlap)::

        for x, labels in loader:
            x = mix_normalize(x.to(device), plan, mean=mean, std=std)
            target = MixedTarget.from_labels(labels.to(device), plan, num_classes)

    Args:
        loader: yields batches of any structure that :class:`BatchMix` takes (tuples, dicts, named
            tuples, dataclasses, nested), or images alone. They may change in batch size and in
            resolution from one to the next. NumPy arrays become tensors.
        device: where batches go; by default the accelerator that is there, else the CPU.
        mean, std: as in :func:`mix_normalize`, ImageNet's by default.
        mix: a :class:`BatchMix` on any device (it is moved to this one), or None: images are
            normalised, and all else is moved.
        dtype, memory_format: of the images, as in :func:`mix_normalize`.
        order: ``"after"`` mixes normalised values, ``"before"`` bytes, rounded to bytes, as
            :func:`mix_normalize`'s ``mix``.
        flip: the probability with which an image is mirrored left to right, before it is mixed.
            Batches with masks, boxes and the like, which would not follow, are then refused.
        erase: a function such as ``partial(random_erasing, prob=0.25, mode="pixel")``; it is called
            with the batch size, (H, W), ``state=`` and ``channels=``, and returns the
            :class:`Erasing` of a batch.
        layout: ``"NCHW"`` or ``"NHWC"``, as in :func:`mix_normalize`.
        images: keys or positions of the images where ``mix`` is None; by default found as by
            :class:`BatchMix`, whose own ``images`` counts otherwise.
        seed: of flips and erased boxes.

    Yields:
        The loader's structure, on the device: entries of kind ``"image"`` normalised and mixed, the
        others as :class:`BatchMix` returns them.

    Raises:
        TypeError, ValueError: arguments that are not as described; batches in which there are no
            images, before anything of them is written; see :class:`BatchMix` for the others.
        Whatever the loader raises, unchanged, after the batches before it.

    Notes:
        On CUDA two batches have been read when the first comes. One stream serves the life of the
        loader; the consumer's is looked up at each step, waits for the copies alone, and runs the
        fused pass, so that plans are drawn when a batch is handed over: a checkpoint of ``mix``
        counts the batches that were seen. The host waits for nothing. Memory that is not pinned is
        copied to pinned memory first; a loader that refills pinned memory of its own while a copy
        runs must not be used. On other devices each batch is copied when it is asked for. There
        are no threads.

        Every entry of kind ``"image"`` is normalised, a ``"depth"`` too: say
        ``BatchMix(kinds={"depth": "soft_map"})`` of what is not. Float images are of the scale of
        ``mean``, 0 to 1. Their memory is not written; other entries are mixed in place on the
        CPU, unless ``mix.inplace`` is False.

        Flips are drawn by PyTorch's generator for the device, boxes by the package's: both begin
        anew with :meth:`set_epoch`, and depend on seed, rank, epoch and batch alone. They are
        drawn with :attr:`mixup_enabled` off too: give an evaluation none.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    __module__ = __package__.rpartition(".")[0]

    def __init__(
        self,
        loader: Iterable[Any],
        device: torch.device | str | None = None,
        mean: float | Sequence[float] = MEAN,
        std: float | Sequence[float] = STD,
        mix: Any = None,
        *,
        dtype: torch.dtype = torch.bfloat16,
        memory_format: torch.memory_format = torch.channels_last,
        order: str = "after",
        flip: float = 0.0,
        erase: Callable[..., Erasing] | None = None,
        layout: str | None = None,
        images: Any = None,
        seed: int = 0,
    ) -> None:
        if not hasattr(loader, "__iter__"):
            raise TypeError(f"loader: expected something to iterate over, got {kind(loader)}")
        if mix is not None and not hasattr(mix, "with_plans"):
            raise TypeError(f"mix: expected a BatchMix or None, got {kind(mix)}")
        if mix is not None and images is not None:
            raise ValueError("images: expected None beside mix; name them with BatchMix(images=…)")
        check_choice("order", order, ORDERS)
        check_memory_format(memory_format)
        self._draws = Augmentation(flip, erase, seed)
        self._pass = FusedPass(mean, std, check_dtype(dtype, None), memory_format, order, layout)
        self.loader, self.device = loader, _device(device)
        self.mix = None if mix is None else mix.to(self.device)
        self._kinds = Kinds(None, images, (), None)
        self._mixes = True
        self._copies: Copies | None = None
        self._running: weakref.WeakSet[Any] = weakref.WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_copies", "_running")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _copies=None, _running=weakref.WeakSet())

    # ---------------------------------------------------------------- iteration

    def __iter__(self) -> Iterator[Any]:
        batches = self._iterate()
        self._running.add(batches)
        return batches

    def _iterate(self) -> Iterator[Any]:
        streams = streams_of(self.device)
        if streams is None:
            for batch in self.loader:
                yield self._finish(map_leaves(partial(move, device=self.device), batch))
            return
        if self._copies is None:
            self._copies = Copies(self.device, streams)
        copies = self._copies
        yield from one_ahead(
            self.loader,
            copies.start,
            lambda started: self._finish(copies.wait(started)),
            copies.drop,
        )

    def _finish(self, batch: Any) -> Any:
        """A batch on the device as it is handed out."""
        if not isinstance(batch, Tensor) and not list(items(batch) or ()):
            raise TypeError(
                "loader: expected batches of images and labels (a tuple, list, dict or dataclass), "
                f"or of images alone, got {kind(batch)}"
            )
        step = Images(self._pass, self._draws)
        if self.mix is not None:
            return self.mix._batch(batch, step, self._mixes)[0]
        whole = (batch,) if isinstance(batch, Tensor) else batch
        entries = step.view(self._kinds.find(whole))
        if self._draws.flip:
            step.check_mirrored(whole, {e.path for e in entries})
        news = {e.path: New(step.mix(e, None)) for e in entries if e.kind == "image"}
        made = replace(whole, news)
        return made[0] if isinstance(batch, Tensor) else made

    def close(self) -> None:
        """End the iterations that run; the batch ahead is dropped, the loader's iterator let go."""
        for batches in list(self._running):
            batches.close()

    # ---------------------------------------------------------------- epochs and the switch

    def set_epoch(self, epoch: int) -> None:
        """Call ``set_epoch`` of ``mix``, the loader, its samplers, data set and collate function.

        Those that have none are left out. Flips and erased boxes begin the draws of ``epoch`` too.
        """
        epoch = check_epoch(epoch)
        loader = self.loader
        parts: list[Any] = [self.mix, loader]
        parts += [getattr(loader, name, None) for name in ("sampler", "batch_sampler", "dataset")]
        parts.append(getattr(parts[3], "sampler", None))
        parts.append(getattr(getattr(loader, "collate_fn", None), "__self__", None))  # mix.collate
        for part in {id(part): part for part in parts}.values():
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        self._draws.set_epoch(epoch)

    @property
    def mixup_enabled(self) -> bool:
        """Whether batches are mixed: set it from the training loop.

        Without ``mix`` it is the ``mixup_enabled`` of the loader's ``collate_fn``, where it has
        one. Where it is False, targets are those of :class:`BatchMix` in eval mode.
        """
        if self.mix is not None:
            return self._mixes
        return bool(getattr(getattr(self.loader, "collate_fn", None), "mixup_enabled", False))

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self._mixes = bool(value)
        collate: Any = getattr(self.loader, "collate_fn", None)
        if hasattr(collate, "mixup_enabled"):
            collate.mixup_enabled = bool(value)


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    device = torch.device(device)
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    return device
