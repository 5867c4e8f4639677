"""Images of a batch as pictures: values, class maps, outlines and detection boxes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from .fonts import find_font, shorten
from .shares import Names, class_name, weight_text

# Okabe and Ito's colours, which readers with any colour vision tell apart.
BLUE, ORANGE = (0, 114, 178), (230, 159, 0)  # the sample itself and its partner
DARK = (20, 22, 26)
CLASS_COLOURS = (
    (0, 158, 115), (204, 121, 167), (86, 180, 233), (240, 228, 66), (213, 94, 0), (150, 150, 150),
)  # fmt: skip
NAN_COLOUR = (255, 0, 255)
SMALLEST, LARGEST = 160, 448  # pixels of the longer side of a tile
AREA, BORDER = 0.4, 0.95  # how opaque a class map is, inside and along its borders
SLACK = 1e-3  # images that were resized overshoot [0, 1] by rounding


class Boxes(NamedTuple):
    """The detection boxes of one image."""

    corners: list[list[float]]  # x0, y0, x1, y1
    labels: list[int] | None
    weights: list[float] | None


def to_bytes(x: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
    """Images [B, C, H, W] as uint8 [B, 3, H, W] on the CPU, and a note if values were stretched."""
    x = x.detach().cpu()
    note = ""
    if x.dtype != torch.uint8 or mean is not None:
        x = x.to(torch.float32)
        bad = ~x.isfinite()
        if mean is not None and std is not None:
            shape = (1, -1, 1, 1)
            scale = 255.0 if max(mean) <= 1.0 else 1.0
            x = (x * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)) * scale
        else:
            finite = x[~bad]
            low, high = (0.0, 1.0) if not finite.numel() else map(float, finite.aminmax())
            if low < -SLACK or high > 1.0 + SLACK:
                note = f"values from {low:.3g} to {high:.3g} are drawn from black to white"
                x = (x - low) / max(high - low, 1e-12)
            x = x * 255.0
        x = x.nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8)
        x = x.expand(-1, 3, -1, -1)
        if bad.any():
            where = bad.any(1, keepdim=True)
            x = torch.where(where, torch.tensor(NAN_COLOUR, dtype=torch.uint8).view(1, 3, 1, 1), x)
    return x.expand(-1, 3, -1, -1), note


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a tile: small images grow by a whole factor, large ones shrink."""
    longer = max(height, width)
    if longer > LARGEST:
        return max(1, round(height * LARGEST / longer)), max(1, round(width * LARGEST / longer))
    factor = math.ceil(SMALLEST / longer)
    return height * factor, width * factor


def picture(image: Tensor) -> Image.Image:
    """An image uint8 [3, H, W] in the size of a tile."""
    pixels = image.permute(1, 2, 0).contiguous()
    height, width = pixels.shape[:2]
    # PyTorch gives its bytes to Python through NumPy alone, which may be missing.
    data = ctypes.string_at(pixels.data_ptr(), pixels.numel())
    drawn = Image.frombytes("RGB", (width, height), data)
    rows, columns = shown_size(height, width)
    grows = rows > height
    how = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return drawn if (columns, rows) == drawn.size else drawn.resize((columns, rows), how)


def colour_map(image: Tensor, labels: Tensor, weight: float, ignore_index: int) -> Tensor:
    """``image`` uint8 [3, H, W] under a class map [H, W]; class 0 is background, not coloured."""
    if weight <= 0.0:
        return image
    colours = torch.tensor(CLASS_COLOURS, dtype=torch.float32)
    seen = (labels != 0) & (labels != ignore_index)
    colour = colours[((labels - 1) % len(colours)).long()].permute(2, 0, 1)
    opaque = torch.where(_borders(labels), BORDER, AREA) * seen * weight
    return (image * (1 - opaque) + colour * opaque).round().to(torch.uint8)


def _borders(labels: Tensor) -> Tensor:
    """The pixels of a map [H, W] beside which another class lies."""
    around = F.pad(labels[None, None].float(), (1, 1, 1, 1), mode="replicate")
    most = F.max_pool2d(around, 3, 1)[0, 0]
    least = -F.max_pool2d(-around, 3, 1)[0, 0]
    return most != least


def draw_outline(tile: Image.Image, box: Sequence[int], size: tuple[int, int]) -> None:
    """Draw the half-open box (y0, x0, y1, x1) of an image of ``size`` (H, W) in the partner's
    colour."""
    y0, x0, y1, x1 = box
    if y1 <= y0 or x1 <= x0:
        return
    down, right = tile.height / size[0], tile.width / size[1]
    corners = (
        round(x0 * right), round(y0 * down), round(x1 * right) - 1, round(y1 * down) - 1,
    )  # fmt: skip
    _rectangle(ImageDraw.Draw(tile), corners, ORANGE, _line_width(tile))


def draw_boxes(tile: Image.Image, boxes: Boxes, size: tuple[int, int], names: Names) -> None:
    """Draw detection boxes, given in pixels of an image of ``size`` (H, W), with their labels."""
    draw = ImageDraw.Draw(tile)
    down, right = tile.height / size[0], tile.width / size[1]
    texts = [_box_text(boxes, i, names) for i in range(len(boxes.corners))]
    font = find_font(texts, max(11, tile.width // 18))
    tags = []
    for i, (x0, y0, x1, y1) in enumerate(boxes.corners):
        corners = (x0 * right, y0 * down, max(x1 * right - 1, x0 * right), y1 * down - 1)
        whole = tuple(round(c) for c in corners)
        if whole[2] < whole[0] or whole[3] < whole[1]:
            continue
        label = boxes.labels[i] if boxes.labels is not None else 0
        colour = CLASS_COLOURS[label % len(CLASS_COLOURS)]
        _rectangle(draw, whole, colour, _line_width(tile))
        tags.append((whole, texts[i], colour))
    for whole, text, colour in tags:  # over all lines
        if text:
            _tag(draw, tile, whole, text, colour, font)


def _box_text(boxes: Boxes, i: int, names: Names) -> str:
    parts = []
    if boxes.labels is not None:
        parts.append(class_name(names, boxes.labels[i]))
    if boxes.weights is not None and boxes.weights[i] != 1.0:
        parts.append(weight_text(boxes.weights[i]))
    return " ".join(parts)


def _tag(
    draw: Any, tile: Image.Image, corners: Sequence[int], text: str, colour: Any, font: Any
) -> None:
    text = shorten(text, tile.width - 6, font)
    wide, high = math.ceil(font.getlength(text)) + 6, font.size + 4
    left = max(0, min(corners[0], tile.width - wide))
    top = max(0, min(corners[1], tile.height - high))
    draw.rectangle((left, top, left + wide - 1, top + high - 1), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 110
    draw.text((left + 3, top + high / 2), text, DARK if bright else "white", font, anchor="lm")


def _rectangle(draw: Any, corners: Sequence[int], colour: Any, width: int) -> None:
    """A rectangle with a dark line around it, which shows on images of the same colour."""
    x0, y0, x1, y1 = corners
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=DARK)
    inner = min(width, (x1 - x0) // 2 + 1, (y1 - y0) // 2 + 1)
    draw.rectangle((x0, y0, x1, y1), outline=colour, width=inner)
    if min(x1 - x0, y1 - y0) > 2 * width + 2:
        draw.rectangle((x0 + width, y0 + width, x1 - width, y1 - width), outline=DARK)


def _line_width(tile: Image.Image) -> int:
    return max(2, round(max(tile.size) / 100))
