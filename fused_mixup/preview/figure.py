"""The figure: tiles in a grid, under each the shares of its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from .fonts import find_font, shorten
from .shares import OTHERS, OWN, PARTNER, Share, weight_text
from .tiles import BLUE, ORANGE

INK, SOFT, PAPER = (36, 41, 47), (87, 96, 106), (255, 255, 255)
GREY = (175, 182, 190)
COLOURS = {OWN: BLUE, PARTNER: ORANGE, OTHERS: GREY}

MARGIN, GAP = 20, 18  # pixels
BAR, SPACE, SWATCH = 6, 3, 9
TEXT, SMALL, TITLE = 15, 13, 16  # sizes of the font
LINE, SMALL_LINE, TITLE_LINE = 19, 17, 26


@dataclass
class Tile:
    """A mixed image and what stands under it."""

    image: Image.Image
    shares: list[Share]
    caption: str
    original: Image.Image | None = None  # above it
    original_caption: str = ""
    name: str = ""  # above it
    mask: Image.Image | None = None  # beside the shares, as high as they are


@dataclass(frozen=True)
class Fonts:
    text: Any
    small: Any
    title: Any


def best_columns(tiles: int) -> int:
    """Columns of a grid that is about as wide as high, or wider, with few empty places."""
    least = math.ceil(math.sqrt(tiles))
    return min(range(least, 2 * least), key=lambda n: (-tiles % n, n), default=1)


def draw_figure(
    tiles: Sequence[Tile], columns: int, title: str = "", notes: Sequence[str] = ()
) -> Image.Image:
    """The grid of ``tiles``, all of one size, with a title and notes above and below it."""
    texts = [title, *notes]
    texts += [tile.name + tile.caption + tile.original_caption for tile in tiles]
    texts += [share.name for tile in tiles for share in tile.shares]
    fonts = Fonts(*(find_font(texts, size) for size in (TEXT, SMALL, TITLE)))
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    wide, high = tiles[0].image.size
    above = high + SMALL_LINE + 4 if any(tile.original for tile in tiles) else 0
    above += LINE + 4 if any(tile.name for tile in tiles) else 0
    under = SPACE + BAR + 6 + LINE * max(len(tile.shares) for tile in tiles) + SMALL_LINE
    cell = above + high + under
    width = 2 * MARGIN + columns * wide + (columns - 1) * GAP
    lines = _wrap(title, width - 2 * MARGIN, fonts.title)
    top = MARGIN + TITLE_LINE * len(lines) + SMALL_LINE + 8
    below = [line for note in notes for line in _wrap(note, width - 2 * MARGIN, fonts.small)]
    bottom = MARGIN + SMALL_LINE * len(below)
    page = Image.new("RGB", (width, top + rows * cell + (rows - 1) * GAP + bottom), PAPER)
    draw = ImageDraw.Draw(page)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + TITLE_LINE * i), line, INK, fonts.title)
    _draw_legend(draw, (MARGIN, MARGIN + TITLE_LINE * len(lines)), width - 2 * MARGIN, tiles, fonts)
    for i, tile in enumerate(tiles):
        x = MARGIN + (i % columns) * (wide + GAP)
        y = top + (i // columns) * (cell + GAP)
        _draw_tile(page, draw, tile, (x, y), above, fonts)
    for i, line in enumerate(below):
        y = page.height - MARGIN - SMALL_LINE * (len(below) - i) + 6
        draw.text((MARGIN, y), line, SOFT, fonts.small)
    return page


def _draw_tile(
    page: Image.Image, draw: Any, tile: Tile, at: tuple[int, int], above: int, fonts: Fonts
) -> None:
    (x, y), wide = at, tile.image.width
    if tile.name:
        draw.text((x, y + above - LINE - 4), shorten(tile.name, wide, fonts.text), INK, fonts.text)
    if tile.original is not None:
        page.paste(tile.original, at)
        text = shorten(tile.original_caption, wide, fonts.small)
        draw.text((x, y + tile.original.height + 1), text, SOFT, fonts.small)
    y += above
    page.paste(tile.image, (x, y))
    y += tile.image.height + SPACE
    if tile.mask is not None:
        page.paste(tile.mask, (x, y))
        draw.rectangle((x, y, x + tile.mask.width - 1, y + tile.mask.height - 1), outline=GREY)
        x += tile.mask.width + 8
    end = at[0] + wide
    _draw_bar(draw, (x, y, end), tile.shares)
    y += BAR + 6
    for share in tile.shares:
        number = weight_text(share.weight)
        left = x + SWATCH + 6
        room = end - left - fonts.text.getlength(number) - 8
        middle = y + LINE // 2
        swatch = (x, middle - SWATCH // 2 - 1, x + SWATCH - 1, middle + SWATCH // 2 - 1)
        draw.rectangle(swatch, fill=COLOURS[share.source])
        name = shorten(share.name, room, fonts.text)
        draw.text((left, middle), name, INK, fonts.text, anchor="lm")
        draw.text((end, middle), number, INK, fonts.text, anchor="rm")
        y += LINE
    if tile.mask is not None:
        y = max(y, at[1] + above + tile.image.height + SPACE + tile.mask.height + 4)
    draw.text((at[0], y), shorten(tile.caption, wide, fonts.small), SOFT, fonts.small)


def _draw_bar(draw: Any, place: tuple[int, int, int], shares: Sequence[Share]) -> None:
    """The shares side by side as parts of a bar as long as the tile is wide."""
    x0, y, x1 = place
    total = sum(max(share.weight, 0.0) for share in shares)
    done = 0.0
    for share in shares:
        start = x0 + round((x1 - x0) * done / total) if total > 0 else x0
        done += max(share.weight, 0.0)
        stop = x0 + round((x1 - x0) * done / total) if total > 0 else x0
        if stop > start:
            draw.rectangle((start, y, stop - 1, y + BAR - 1), fill=COLOURS[share.source])


def _draw_legend(
    draw: Any, at: tuple[int, int], room: int, tiles: Sequence[Tile], fonts: Fonts
) -> None:
    """What the colours mean, as far as they occur."""
    x, y = at
    used = {share.source for tile in tiles for share in tile.shares}
    box = all(tile.mask is None for tile in tiles)
    words = {OWN: "the image itself", PARTNER: "its partner" + ", and the box cut from it" * box}
    for source in (source for source in words if source in used):
        wide = SWATCH + 6 + fonts.small.getlength(words[source]) + 18
        if x + wide - 18 > at[0] + room:
            return
        middle = y + SMALL_LINE // 2
        draw.rectangle((x, middle - 5, x + SWATCH - 1, middle + SWATCH - 6), fill=COLOURS[source])
        draw.text((x + SWATCH + 6, middle), words[source], SOFT, fonts.small, anchor="lm")
        x += math.ceil(wide)


def _wrap(text: str, width: float, font: Any) -> list[str]:
    """``text`` in lines of whole words, each at most ``width`` pixels wide."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shorten(word, width, font))
    return lines
