"""Fonts that have the letters of the texts to draw, and texts that fit a width."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from PIL import ImageFont

# Pillow's own font has ASCII and little more, not even accents. Pillow finds these by name where
# a system has them.
OTHERS = (
    "NotoSansCJK-Regular.ttc",
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "msgothic.ttc",
    "arial.ttf",
    "Helvetica.ttc",
)
ELLIPSIS = "..."


def find_font(texts: Iterable[str], size: int) -> Any:
    """Pillow's font, or the first of the system's that has more of the letters of ``texts``."""
    letters = frozenset("".join(texts)) - {" "}
    default = _load(None, size)
    if all(letter.isascii() for letter in letters):
        return default
    best, most = default, _count(default, letters)
    for name in OTHERS:
        font = _load(name, size)
        if font is not None and most < len(letters) and (n := _count(font, letters)) > most:
            best, most = font, n
    return best


@functools.cache
def _load(name: str | None, size: int) -> Any:
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except (OSError, ImportError):  # not on this system, or a Pillow without FreeType
        return None


def _count(font: Any, letters: Iterable[str]) -> int:
    """How many of ``letters`` are not drawn as the box that stands for a missing one."""
    missing = _shape(font, "\ufffe")
    return sum(_shape(font, letter) != missing for letter in letters)


def _shape(font: Any, letter: str) -> tuple[Any, bytes]:
    try:
        mask = font.getmask(letter)
    except UnicodeEncodeError:  # the bitmap font of a Pillow without FreeType
        return None, b""
    return mask.size, bytes(mask)


def shorten(text: str, width: float, font: Any) -> str:
    """``text``, or its longest start that fits ``width`` pixels with an ellipsis behind it."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the length grows with each letter
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + ELLIPSIS) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + ELLIPSIS
