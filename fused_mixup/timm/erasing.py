"""timm's draws of random erasing: the same numbers of the same generators, in the same order."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..loading.erasing import Erasing, known_erasing


class Fill(NamedTuple):
    """One box of one image, and what fills it: [C, 1, 1], or [C, h, w]; None for 0."""

    image: int
    box: tuple[int, int, int, int]  # y0, x0, y1, x1
    values: Tensor | None


class RandomErasing:
    """What timm's ``RandomErasing`` would erase of a batch.

    Decisions and boxes come from Python's ``random``, colours and noise from PyTorch's generator of
    the device. The arguments are those that timm's ``PrefetchLoader`` gives.
    """

    def __init__(
        self,
        probability: float,
        mode: str,
        max_count: int | None,
        num_splits: int,
        device: torch.device,
    ) -> None:
        self.probability, self.num_splits, self.device = probability, num_splits, device
        self.min_area, self.max_area = 0.02, 1 / 3
        self.log_aspect_ratio = (math.log(0.3), math.log(1 / 0.3))
        self.min_count, self.max_count = 1, max_count or 1
        self.mode = mode.lower()
        if self.mode not in ("", "const", "rand", "pixel"):
            raise AssertionError(f"re_mode: expected 'const', 'rand' or 'pixel', got {mode!r}")

    def draw(self, shape: Sequence[int], dtype: torch.dtype) -> list[Fill]:
        """The boxes of images [B, C, H, W] of ``dtype``, in the order in which they are filled."""
        batch, channels, height, width = shape
        clean = batch // self.num_splits if self.num_splits > 1 else 0
        fills = []
        for i in range(clean, batch):
            if random.random() > self.probability:
                continue
            count = self.min_count
            if self.min_count != self.max_count:
                count = random.randint(self.min_count, self.max_count)
            for _ in range(count):
                box = self._box(height, width, count)
                if box is not None:
                    values = self._values(channels, box[2] - box[0], box[3] - box[1], dtype)
                    fills.append(Fill(i, box, values))
        return fills

    def _box(self, height: int, width: int, count: int) -> tuple[int, int, int, int] | None:
        """A box, or None where none of ten fits into the image."""
        for _ in range(10):
            area = random.uniform(self.min_area, self.max_area) * (height * width) / count
            aspect = math.exp(random.uniform(*self.log_aspect_ratio))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w < width and h < height:
                top = random.randint(0, height - h)
                left = random.randint(0, width - w)
                return top, left, top + h, left + w
        return None

    def _values(self, channels: int, h: int, w: int, dtype: torch.dtype) -> Tensor | None:
        if self.mode not in ("rand", "pixel"):
            return None
        size = (h, w) if self.mode == "pixel" else (1, 1)
        return torch.empty((channels, *size), dtype=dtype, device=self.device).normal_()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(p={self.probability}, mode={self.mode}, "
            f"count=({self.min_count}, {self.max_count}))"
        )


def as_erasing(fills: Sequence[Fill], batch_size: int, device: torch.device) -> Erasing | None:
    """Boxes of one colour each, for the fused pass."""
    if not fills:
        return None
    used = [0] * batch_size
    places = []  # the position among its image's boxes
    for fill in fills:
        places.append(used[fill.image])
        used[fill.image] += 1
    most = max(used)
    box = torch.zeros(batch_size, most, 4, dtype=torch.int32, device="cpu")
    image = torch.tensor([fill.image for fill in fills], device="cpu")
    place = torch.tensor(places, device="cpu")
    box[image, place] = torch.tensor([f.box for f in fills], dtype=torch.int32, device="cpu")
    erasing = Erasing(box).to(device)
    colors = [fill.values for fill in fills if fill.values is not None]
    if not colors:
        return erasing
    # Which colour each box has; boxes that are empty have the first one, unused.
    index = torch.zeros(batch_size, most, dtype=torch.int64, device="cpu")
    index[image, place] = torch.arange(len(fills), device="cpu")
    if device.type == "cuda":
        index = index.pin_memory().to(device, non_blocking=True)
    values = torch.stack(colors).flatten(1).float()  # [boxes, C]
    return known_erasing(erasing.box, values[index], None)


def write_fills(x: Tensor, fills: Sequence[Fill]) -> None:
    """Fill the boxes of images [B, C, H, W] in place, one after another."""
    for i, (y0, x0, y1, x1), values in fills:
        x[i, :, y0:y1, x0:x1] = 0.0 if values is None else values
