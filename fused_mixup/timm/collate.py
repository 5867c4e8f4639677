"""timm's ``FastCollateMixup`` on the fused op. Import it from :mod:`fused_mixup.timm`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from .. import ops
from ..checks import check_samples
from ..loading.shared_batch import shared_batch
from ..memory import recycled_tensor
from ..target.mixed_target import MixedTarget
from ..tracing import call_eagerly
from .checks import check_dims
from .draws import Drawn, Size, check_draws, draw_batch, draw_rows
from .labels import collate_labels
from .mixup import Mixup, plan_of


class FastCollateMixup(Mixup):
    """A ``collate_fn`` that mixes uint8 samples straight into the batch, in the loader's workers.

    ``x[i] = round(λ·sample_i + (1-λ)·sample_j)`` with j = B-1-i, half to even, or a box of sample_j
    pasted in sample_i; targets are ``λ y_i + (1-λ) y_j`` of smoothed one-hot labels. One pass: each
    sample is read, the batch is written once, and no float copy of an image is made. Only the
    import line changes::

        from fused_mixup.timm import FastCollateMixup  # from timm.data

    Equivalent to (in float32, for one λ)::

        x = torch.stack(images).float()
        x = (x * lam + x.flip(0) * (1 - lam)).round().byte()

    Args:
        pin_memory: with CUDA and outside a worker, collate into pinned memory. A loader's own
            ``pin_memory=True`` pins what workers send, with or without this.
        The others are as in :class:`Mixup`, and ``mode`` may be ``"half"`` too: B/2 outputs, sample
            i mixed with B-1-i, each with its own λ.

    Raises:
        TypeError, ValueError, AssertionError: see :class:`Mixup`.

    Notes:
        Images, targets and the state of NumPy's global generator afterwards are equal to timm's,
        bit for bit. The memory of a batch is reused (as that of :func:`fused_mixup.mix`); a worker
        writes each batch in fresh shared memory, which the training process maps without a copy.
        What differs:

        - A batch may be odd, as in :class:`Mixup`; not in mode "half". timm asserts.
        - CutMix does not write into the caller's samples. timm swaps boxes in them in pair mode and
          pastes into them in mode "half", and so into a data set held in memory.
        - Samples of another dtype than uint8, and shapes that differ, are refused (timm truncates
          floats).
        - Arrays may be read-only, and may have negative strides (those are copied first).
        - ``mixup_enabled = False`` reaches workers that are already running, from timm's
          ``PrefetchLoader`` too: where timm is loaded, ``isinstance(ours, theirs)`` holds.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def __init__(self, *args: Any, pin_memory: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pin_memory = pin_memory

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # timm's PrefetchLoader passes its switch on to instances of timm's class alone.
        loaded = sys.modules.get("timm.data.mixup")
        return getattr(loaded, "FastCollateMixup", type(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # With object.__reduce__, pickle compares the type with __class__, and refuses.
        return _new_instance, (type(self),), self.__getstate__()

    def __call__(  # type: ignore[override]
        self, batch: Sequence[tuple[Any, Any]], _: Any = None
    ) -> tuple[Tensor, Tensor | MixedTarget]:
        """Collate B pairs of a sample, uint8 [C, H, W] (array or tensor), and its label.

        Args:
            batch: what the data set gave; labels as ``default_collate`` takes them.

        Returns:
            uint8 [B, C, H, W] on the CPU, and targets [B, K] or a MixedTarget; B/2 in mode "half".

        Raises:
            TypeError, ValueError, IndexError, AssertionError: samples or labels that do not fit,
                before anything is drawn.
        """
        if torch.compiler.is_compiling():
            return call_eagerly(self._collate, batch)
        return self._collate(batch)

    def _collate(self, batch: Sequence[tuple[Any, Any]]) -> tuple[Tensor, Tensor | MixedTarget]:
        samples, raw_labels = _split_pairs(batch)
        samples = check_samples(samples)
        shape = samples[0].shape
        if samples[0].dtype != torch.uint8:
            raise TypeError(
                f"batch: expected uint8 samples, got {samples[0].dtype}; leave conversion to float "
                "and normalisation to the device, after loading"
            )
        check_dims("batch", 1 + samples[0].ndim)
        batch_size = len(samples)
        if self.mode == "half" and batch_size % 2:
            raise ValueError(
                f"batch: expected an even number of samples in mode 'half', got {batch_size}; use "
                "an even batch_size and drop_last=True"
            )
        labels = self._labels(collate_labels("batch", raw_labels), batch_size)
        check_draws(self, shape, self.mode in ("elem", "pair", "half"))
        drawn = self._draw(batch_size, shape[-2:])
        plan = plan_of(drawn, batch_size)
        count = batch_size // 2 if self.mode == "half" else batch_size
        x = self._empty((count, *shape))
        ops.mix_samples(samples, None, plan.blend, plan.box, plan.rule, x)
        target = self._targets(labels, drawn, plan, torch.uint8)
        return x, target if count == batch_size else _copy_first(target, count)

    def _draw(self, batch_size: int, size: Size) -> Drawn:
        if self.mode == "half":
            return draw_rows(self, batch_size // 2, size).pad(batch_size)
        if self.mode in ("elem", "pair"):
            return super()._draw(batch_size, size)
        return draw_batch(self, size, always=True)

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        """An uninitialised uint8 tensor in the memory to which the loader would copy a batch."""
        size = torch.Size(shape)
        if get_worker_info() is not None:
            return shared_batch(size)
        if self.pin_memory and torch.cuda.is_available():
            return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
        return recycled_tensor(size)


def _split_pairs(batch: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The samples and the labels, as two lists."""
    try:
        return [pair[0] for pair in batch], [pair[1] for pair in batch]
    except (KeyError, IndexError, TypeError):
        kinds = sorted({type(pair).__name__ for pair in batch})
        raise TypeError(
            f"batch: expected pairs (image, label), got {' and '.join(kinds)}; have the data set "
            "give pairs, or mix dicts and others with BatchMix after default_collate, or with "
            "mix_samples and a plan"
        ) from None


def _new_instance(cls: type) -> Any:
    return object.__new__(cls)


def _copy_first(target: Tensor | MixedTarget, count: int) -> Tensor | MixedTarget:
    """A copy of the first rows: a worker would send all the memory of a view."""
    return target[:count].clone()
