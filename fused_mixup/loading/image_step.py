"""The images of a loader's batches, normalised and mixed in one pass, for the step of BatchMix."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ..batch_mix.entries import Entry
from ..batch_mix.structure import items
from ..batch_mix.tv_tensors import plain, wrap_like
from ..kinds import IMAGE_LIKE
from ..plan.mix_plan import MixPlan
from .augment import Augmentation
from .normalize_checks import check_channels, check_images, host_numbers
from .normalizing import ORDERS, normalize_checked


class FusedPass:
    """The options of the fused pass, and the constants for each number of channels."""

    def __init__(
        self,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        order: str,
        layout: str | None,
    ) -> None:
        self.mean, self.std = host_numbers("mean", mean), host_numbers("std", std)
        self.layout = layout
        self.options = dtype, memory_format, ORDERS[order]
        self._constants: dict[tuple[int, bool], tuple[list[float], list[float]]] = {}
        # Refused here rather than at the first batch.
        self.constants(max(len(self.mean), len(self.std)), True)

    def constants(self, channels: int, bytes_: bool) -> tuple[list[float], list[float]]:
        key = channels, bytes_
        if key not in self._constants:
            scale = 255.0 if bytes_ else 1.0
            self._constants[key] = check_channels(self.mean, self.std, channels, scale)
        return self._constants[key]

    def __call__(
        self, images: list[Tensor], plan: MixPlan | None, flip: Tensor | None, erase: Any
    ) -> Tensor:
        """One [B, C, H, W], or B of [C, H, W], as they were checked."""
        first = images[0]
        whole = len(images) == 1 and first.ndim == 4
        shape = tuple(first.shape if whole else (len(images), *first.shape))
        means, stds = self.constants(shape[1], first.dtype == torch.uint8)
        return normalize_checked(images, shape, plan, means, stds, *self.options, flip, erase, None)


class Images:
    """The images of one batch, for the step of a BatchMix: see ``batch_mix.step.ImageStep``."""

    def __init__(self, fused: FusedPass, draws: Augmentation) -> None:
        self._pass, self._draws = fused, draws
        self._given: dict[Any, Any] = {}  # images as they came, by path
        self._flips: Tensor | None = None

    def view(self, entries: Sequence[Entry]) -> list[Entry]:
        if not any(entry.kind == "image" for entry in entries):
            found = sorted({entry.kind for entry in entries if entry.kind in IMAGE_LIKE})
            raise ValueError(
                f"images: expected an entry of kind 'image' to normalise, got {found}; mix such "
                "batches with BatchMix in the training step"
            )
        if self._draws.flip:
            still = [e for e in entries if e.kind not in ("image", "labels", "keep", "tokens")]
            if still:
                raise ValueError(
                    f"flip: expected batches of images and labels, got {still[0].name} of kind "
                    f"{still[0].kind!r}, which would not be mirrored; flip in the data set"
                )
        return [self._viewed(entry) if entry.kind == "image" else entry for entry in entries]

    def check_mirrored(self, batch: Any, found: Collection[Any]) -> None:
        """Raise where a batch that is not mixed holds what may lie in its images, not mirrored.

        Labels pass, [B] or [B, K]; of a list, whose tensors may be boxes, [B]. ``found``: paths of
        known entries.
        """

        def visit(structure: Any, path: tuple[Any, ...], listed: bool) -> None:
            for key, value in items(structure) or ():
                at = (*path, key)
                if at in found:
                    continue
                if isinstance(value, Tensor):
                    if value.ndim > (1 if listed else 2):
                        where = "".join(f"[{part!r}]" for part in at)
                        raise ValueError(
                            f"flip: expected batches of images and labels, got batch{where} of "
                            f"shape {list(value.shape)}, which would not be mirrored; flip in the "
                            "data set"
                        )
                else:
                    visit(value, at, listed or isinstance(value, list))

        visit(batch, (), False)

    def _viewed(self, entry: Entry) -> Entry:
        value = self._given[entry.path] = entry.value
        p = self._pass
        by_sample = isinstance(value, (list, tuple))
        if by_sample and value and isinstance(value[0], Tensor) and not value[0].is_cpu:
            value = torch.stack([plain(sample) for sample in value])
        tensors, shape = check_images(value, p.mean, p.std, p.layout)
        p.constants(shape[1], tensors[0].dtype == torch.uint8)
        if not by_sample:
            return entry._replace(value=tensors[0])
        return entry._replace(value=tensors if tensors[0].ndim == 3 else [*tensors[0].unbind()])

    def mix(self, entry: Entry, plan: MixPlan | None) -> Any:
        given, value = self._given[entry.path], entry.value
        images = [value] if isinstance(value, Tensor) else value
        if isinstance(given, (list, tuple)) and not images[0].is_cpu:
            images = [torch.stack(images)]
        first = images[0]
        shape = tuple(first.shape if first.ndim == 4 else (len(images), *first.shape))
        if self._flips is None:
            self._flips = self._draws.flips(shape[0], first.device)
        erase = self._draws.erasing(shape, first.device)
        made = self._pass(images, plan, self._flips, erase)
        if not isinstance(given, (list, tuple)):
            return wrap_like(made, given)
        return type(given)(wrap_like(x, y) for x, y in zip(made.unbind(), given, strict=True))
