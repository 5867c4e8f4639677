"""Scenes for segmentation and detection: handwritten digits on photographs, known to the pixel.

Both are real and lie in scikit-learn's package: 1797 digits by 43 writers, and two photographs.
Held-out scenes have other writers' digits and the other halves of the photographs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

VOID = 255  # the blurred edge of a stroke: neither digit nor background
INKS = ((1.0, 1.0, 1.0), (1.0, 0.9, 0.2), (0.1, 0.1, 0.15), (0.75, 0.05, 0.1), (0.3, 0.95, 1.0))


@dataclass
class Scenes:
    images: Tensor  # [N, 3, size, size] float32 in [0, 1]
    maps: Tensor  # [N, size, size] int64: 0, 1 + digit, or VOID
    boxes: list[Tensor]  # [n, 4] float32: x0, y0, x1, y1, tight around each digit
    labels: list[Tensor]  # [n] int64, the digits

    def __len__(self) -> int:
        return len(self.images)


def scenes(
    count: int,
    size: int,
    sides: tuple[int, int],
    seed: int,
    *,
    held_out: bool = False,
    kinds: int = 10,
    most: int = 4,
) -> Scenes:
    """``count`` scenes of up to ``most`` digits below ``kinds``; ``sides``: pixels, from and to."""
    rng, (data, photos) = random.Random(seed), loaded()
    photos = [_half(photo, held_out) for photo in photos]
    split = len(data.target) * 7 // 10  # the set is ordered by writer
    rows = range(split, len(data.target)) if held_out else range(split)
    rows = [row for row in rows if data.target[row] < kinds]
    made = Scenes(torch.empty(count, 3, size, size), torch.zeros(count, size, size).long(), [], [])
    for i in range(count):
        image, classes = _background(rng, rng.choice(photos), size), made.maps[i]
        boxes: list[list[int]] = []
        labels: list[int] = []
        for _ in range(rng.randint(2, most)):
            row, side = rng.choice(rows), rng.randint(*sides)
            x, y = rng.randint(0, size - side), rng.randint(0, size - side)
            if any(abs(x - a) < max(side, n) and abs(y - b) < max(side, n) for a, b, n in boxes):
                continue  # digits do not overlap
            stroke = _stroke(torch.tensor(data.images[row]), side)
            _write(image[:, y : y + side, x : x + side], stroke, rng)
            region = classes[y : y + side, x : x + side]
            region[stroke > 0.2] = VOID
            region[stroke > 0.55] = 1 + int(data.target[row])
            boxes.append([x, y, side])
            labels.append(int(data.target[row]))
        made.images[i] = image
        made.boxes.append(torch.stack([_extent(classes, *box) for box in boxes]))
        made.labels.append(torch.tensor(labels))
    return made


@cache
def loaded():
    """scikit-learn's digits, and its photographs [H, W, 3] of bytes."""
    return load_digits(), [torch.tensor(photo) for photo in load_sample_images().images]


def _half(photo: Tensor, right: bool) -> Tensor:
    """[3, H, W/2] float32: one half of a photograph."""
    middle = photo.shape[1] // 2
    photo = photo[:, middle:] if right else photo[:, :middle]
    return photo.permute(2, 0, 1).float() / 255


def _background(rng: random.Random, photo: Tensor, size: int) -> Tensor:
    side = rng.randint(size, min(photo.shape[1:]))
    y, x = (rng.randint(0, n - side) for n in photo.shape[1:])
    crop = photo[None, :, y : y + side, x : x + side]
    crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)
    return crop.flip(-1) if rng.random() < 0.5 else crop


def _stroke(digit: Tensor, side: int) -> Tensor:
    """[side, side] in [0, 1]: how much of each pixel is ink, from 8x8 pixels of 16 grey levels."""
    grown = F.interpolate(digit[None, None].float() / 16, (side, side), mode="bicubic")
    return (1.4 * grown[0, 0]).clamp(0, 1)


def _write(region: Tensor, stroke: Tensor, rng: random.Random) -> None:
    """Writes in the one of two inks that is further from the photograph's colour there."""
    here = region.mean((1, 2))
    inks = torch.tensor(rng.sample(INKS, 2))
    ink = inks[(inks - here).square().sum(1).argmax()]
    region.lerp_(ink.view(3, 1, 1), stroke)


def _extent(classes: Tensor, x: int, y: int, side: int) -> Tensor:
    """The tight box around the digit in a square of a class map."""
    rows, columns = (classes[y : y + side, x : x + side] > 0).nonzero().unbind(1)
    corners = columns.min() + x, rows.min() + y, columns.max() + x + 1, rows.max() + y + 1
    return torch.stack(corners).float()
