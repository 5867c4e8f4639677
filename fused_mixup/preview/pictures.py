"""Image files: finding them, their classes, and reading them as squares of one size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor

# Formats that Pillow only identifies, or reads with other programs.
NOT_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
PAPER = "white"  # under transparent pixels
LARGEST_16_BIT = 65535
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # of EXIF: width and height change places


class Square(NamedTuple):
    """The part of an upright image that is read: the middle square, resized."""

    width: int  # of the whole image
    height: int
    size: int  # of the square when read

    @property
    def side(self) -> int:
        return min(self.width, self.height)

    def window(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The square in the pixels of a copy of ``width`` x ``height`` (a class map, a draft)."""
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def box(self, x: float, y: float, width: float, height: float) -> list[float] | None:
        """A box of the whole image as (x0, y0, x1, y1) in the square; None outside of it."""
        left, top, _, _ = self.window(self.width, self.height)
        scale = self.size / self.side
        corners = [
            min(max((value - start) * scale, 0.0), float(self.size))
            for value, start in ((x, left), (y, top), (x + width, left), (y + height, top))
        ]
        wide, high = corners[2] - corners[0], corners[3] - corners[1]
        return corners if min(wide, high) >= 1.0 else None


class Picture(NamedTuple):
    path: Path
    image: Tensor  # uint8 [3, size, size]
    square: Square


# ---------------------------------------------------------------- finding


def find_pictures(paths: Sequence[Path], seed: int) -> list[Path]:
    """Files as named, then those of folders and all below, in an order that depends on ``seed``."""
    named: list[Path] = []
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += _walk(path)
        elif path.exists():
            named.append(path)
        else:
            raise ValueError(f"expected a folder or an image, got {path}, which does not exist")
    # A folder sorted by class would give a batch of one class.
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(found), generator=generator).tolist()
    return list(dict.fromkeys([*named, *(found[i] for i in order)]))


def _walk(folder: Path) -> Iterator[Path]:
    suffixes = readable_suffixes()
    seen = set()  # a link may lead to a folder above
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Hidden ones are caches and copies: .ipynb_checkpoints, ._name of macOS.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(place, name)


def readable_suffixes() -> set[str]:
    formats = Image.registered_extensions()
    return {s for s, f in formats.items() if f in Image.OPEN and f not in NOT_PICTURES}


def class_of(path: Path) -> str:
    """The name of the folder that an image lies in."""
    return path.absolute().parent.name


# ---------------------------------------------------------------- reading


def read_picture(path: Path, size: int, stored: tuple[int, int] | None = None) -> Picture:
    """Read the middle square of an image as uint8 [3, size, size].

    Its EXIF orientation is applied, unless boxes were made for an image of ``stored`` (width,
    height), which fits the pixels as they are stored alone.
    """
    with Image.open(path) as image:
        whole = image.size
        # A JPEG is decoded at a half, a quarter or an eighth, where that is enough.
        image.draft(None, (2 * size, 2 * size))
        upright = ImageOps.exif_transpose(image)
        turned = image.getexif().get(ORIENTATION, 1) in QUARTER_TURNS
        if turned and stored == whole and whole[0] != whole[1]:
            upright, turned = image, False
        if turned:
            whole = whole[1], whole[0]
        square = Square(whole[0], whole[1], size)
        rgb = _to_rgb(upright)
        resized = rgb.resize(
            (size, size), Image.Resampling.BICUBIC, square.window(*rgb.size), reducing_gap=3.0
        )
    return Picture(path, _to_tensor(resized, (size, size, 3)).permute(2, 0, 1), square)


def read_map(path: Path, square: Square) -> Tensor:
    """Read a class map as int64 [size, size], cropped as its image, each pixel the nearest's."""
    with Image.open(path) as image:
        width, height = image.size
        if abs(width * square.height - height * square.width) > 0.05 * width * square.height:
            raise ValueError(
                f"its class map has {width} x {height} pixels, the image "
                f"{square.width} x {square.height}"
            )
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise ValueError(f"its class map has colours ({image.mode}), expected class indices")
        if image.mode.startswith("I"):
            image = image.convert("I")
        resized = image.resize(
            (square.size, square.size), Image.Resampling.NEAREST, square.window(width, height)
        )
        if resized.mode == "1":
            return (_to_tensor(resized.convert("L"), (square.size, square.size)) > 0).long()
        dtype = torch.int32 if resized.mode == "I" else torch.uint8
        return _to_tensor(resized, (square.size, square.size), dtype).long()


def _to_tensor(image: Image.Image, shape: tuple[int, ...], dtype: Any = torch.uint8) -> Tensor:
    # NumPy may be missing. A bytearray is writable, which PyTorch asks for.
    return torch.frombuffer(bytearray(image.tobytes()), dtype=dtype).view(shape)


def _to_rgb(image: Image.Image) -> Image.Image:
    """The first frame in 8-bit RGB: transparent pixels on white, more bits scaled."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _to_8_bit(image).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        colours = image.convert("RGBA")
        page = Image.new("RGBA", colours.size, PAPER)
        return Image.alpha_composite(page, colours).convert("RGB")
    return image.convert("RGB")  # also CMYK, palettes, YCbCr


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits, or floats; ``convert`` would clip them to [0, 255]."""
    values = _to_tensor(image.convert("F"), (image.height, image.width), torch.float32)
    least, most = (float(v) for v in values.nan_to_num(0.0, 0.0, 0.0).aminmax())
    if image.mode.startswith("I;16") or (255 < most <= LARGEST_16_BIT and least >= 0):
        low, high = 0.0, float(LARGEST_16_BIT)
    elif image.mode == "F" and least >= 0 and most <= 1:
        low, high = 0.0, 1.0
    elif least >= 0 and most <= 255:
        low, high = 0.0, 255.0
    else:
        low, high = least, most
    grey = ((values.nan_to_num(low) - low) / max(high - low, 1e-30) * 255).round().clamp(0, 255)
    data = bytes(grey.to(torch.uint8).flatten().tolist())
    return Image.frombytes("L", image.size, data)
