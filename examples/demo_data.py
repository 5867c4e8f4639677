"""The demo's images: scikit-learn's handwritten digits, and crops of its two photographs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHOTO_NAMES = ("temple", "flower")


@dataclass
class Digits:
    """Digits as input of a network for photographs: three channels, values around zero."""

    train_images: Tensor  # [N, 3, size, size] float32
    train_labels: Tensor  # [N] int64
    test_images: Tensor  # [M, 3, size, size] float32
    test_labels: Tensor  # [M] int64


def digits(size: int, device: torch.device, samples: int | None = None) -> Digits:
    """The digits (the first ``samples`` of them), enlarged from 8x8 to ``size`` x ``size``.

    The last 30 % are held out. The set is ordered by writer, so a split in order tests on writers
    that the network has not seen; a shuffled split would be easier.
    """
    data = load_digits()
    labels = torch.from_numpy(data.target[:samples]).long().to(device)
    images = torch.from_numpy(data.images[:samples]).float()[:, None] / 16  # 16 grey levels
    images = _resize(images, size).to(device)
    images = ((images - 0.3) / 0.35).repeat(1, 3, 1, 1)  # about their mean and deviation
    split = len(labels) * 7 // 10
    return Digits(images[:split], labels[:split], images[split:], labels[split:])


def one_of_each_digit(which: list[int], size: int) -> tuple[Tensor, Tensor]:
    """([len(which), 3, size, size] float32 in [0, 1], labels [len(which)]), for the picture."""
    data = load_digits()
    rows = [int((data.target == digit).nonzero()[0][7]) for digit in which]
    images = _resize(torch.from_numpy(data.images[rows]).float()[:, None] / 16, size)
    return images.repeat(1, 3, 1, 1), torch.tensor(which)


def photo_crops(size: int) -> tuple[Tensor, Tensor]:
    """Two crops of each photograph, [4, 3, size, size] float32 in [0, 1], and labels [4]."""
    photos = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    # (photograph, top, left, side): the temple and its roof, the whole flower and its heart.
    windows = ((0, 40, 90, 370), (1, 20, 120, 400), (0, 90, 150, 200), (1, 110, 210, 210))
    crops = []
    for photo, top, left, side in windows:
        crop = photos[photo][None, :, top : top + side, left : left + side].float() / 255
        crops.append(_resize(crop, size))
    return torch.cat(crops), torch.tensor([window[0] for window in windows])


def _resize(images: Tensor, size: int) -> Tensor:
    shape = (size, size)
    # Antialiasing matters where a photograph shrinks and changes nothing where a digit grows.
    return F.interpolate(images, shape, mode="bilinear", antialias=True).clamp(0, 1)
