"""Detection boxes of a COCO file, and class maps of a folder, for the images that are read."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .pictures import Square, class_of, read_map


class Record(NamedTuple):
    """An image of a COCO file."""

    parts: tuple[str, ...]  # of its path, the file name first
    size: tuple[int, int] | None  # width, height
    boxes: list[tuple[list[float], int]]  # x, y, width, height; index of the category


class CocoBoxes:
    """The boxes of a COCO file: its ``images``, ``annotations`` and ``categories``."""

    def __init__(self, path: Path) -> None:
        expected = f"{path}: expected COCO's json with images, annotations and categories"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{expected}, got no json: {error}") from None
        try:
            self.names, self._records = _records(content)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            got = f"{type(error).__name__}: {error}"
            raise ValueError(f"{expected}, got one that misses parts ({got})") from None

    def find(self, path: Path) -> Record | None:
        """The record of an image: the one whose file name has most of the image's path."""
        parts = tuple(reversed(path.absolute().parts))
        records = self._records.get(path.name, [])
        fitting = [r for r in records if parts[: len(r.parts)] == r.parts]
        if fitting:
            return max(fitting, key=lambda record: len(record.parts))
        return records[0] if len(records) == 1 else None

    def boxes(self, record: Record | None, square: Square) -> tuple[Tensor, Tensor]:
        """Boxes float32 [n, 4] (x0, y0, x1, y1) in the square, and their classes int64 [n]."""
        corners, labels = [], []
        if record is not None:
            width, height = record.size or (square.width, square.height)
            right, down = square.width / width, square.height / height
            for (x, y, w, h), label in record.boxes:
                box = square.box(x * right, y * down, w * right, h * down)
                if box is not None:
                    corners.append(box)
                    labels.append(label)
        return (
            torch.tensor(corners, dtype=torch.float32).view(-1, 4),
            torch.tensor(labels, dtype=torch.int64),
        )


def _records(content: Any) -> tuple[list[str], dict[str, list[Record]]]:
    categories = sorted(content["categories"], key=lambda category: category["id"])
    index = {category["id"]: i for i, category in enumerate(categories)}
    records: dict[str, list[Record]] = {}
    by_id = {}
    for image in content["images"]:
        parts = tuple(reversed(PurePosixPath(image["file_name"]).parts))
        width, height = image.get("width"), image.get("height")
        size = (int(width), int(height)) if width and height else None
        by_id[image["id"]] = record = Record(parts, size, [])
        records.setdefault(parts[0], []).append(record)
    for annotation in content["annotations"]:
        box = annotation.get("bbox")
        if box and not annotation.get("iscrowd"):  # a crowd is no object, and is not trained on
            x, y, width, height = map(float, box)
            label = index[annotation["category_id"]]
            by_id[annotation["image_id"]].boxes.append(([x, y, width, height], label))
    return [str(category["name"]) for category in categories], records


class MaskFolder:
    """Class maps, PNG files that have the names of the images."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: expected a folder of class maps")
        self._folder = folder
        self._maps: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*.png")):
            self._maps.setdefault(path.stem, []).append(path)
        if not self._maps:
            raise ValueError(f"{folder}: expected class maps, got no PNG file")

    def read(self, image: Path, square: Square) -> Tensor:
        """The class map int64 [size, size] of an image; ValueError where there is none."""
        paths = self._maps.get(image.stem, [])
        beside = [path for path in paths if class_of(path) == class_of(image)]
        paths = beside if len(paths) > 1 else paths
        if len(paths) != 1:
            got = "none" if not paths else f"{len(paths)} of them"
            raise ValueError(
                f"expected its class map {image.stem}.png in {self._folder}, got {got}"
            )
        return read_map(paths[0], square)
