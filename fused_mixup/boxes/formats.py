"""Formats and dtypes of boxes: what callers give, and the corners that kernels compute in."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import kind

FORMATS = ("xyxy", "xywh", "cxcywh")
_ROTATED = ("xywhr", "cxcywhr", "xyxyxyxy")

# These integers fit float32, which holds every integer below 2^24.
_SINGLE = (
    *(torch.float16, torch.bfloat16, torch.float32),
    *(torch.uint8, torch.int8, torch.int16),
)
_DOUBLE = torch.float64, torch.int32, torch.int64
DTYPES = (*_SINGLE, *_DOUBLE)


def check_format(format: str) -> None:
    if format in FORMATS:
        return
    if format in _ROTATED:
        raise ValueError(
            f"format: expected one of {list(FORMATS)}, got {format!r}; what a cut leaves of a "
            "rotated box is none: give the upright boxes around them, by "
            "torchvision.ops.box_convert to 'xyxy'"
        )
    raise ValueError(f"format: expected one of {list(FORMATS)}, got {kind(format)}")


def to_corners(boxes: Tensor, format: str) -> Tensor:
    """[…, 4] as x1, y1, x2, y2 in the dtype of the arithmetic."""
    boxes = boxes.to(torch.float32 if boxes.dtype in _SINGLE else torch.float64)
    if format == "xyxy":
        return boxes
    place, sides = boxes[..., :2], boxes[..., 2:]
    if format == "cxcywh":
        place = place - sides / 2
    return torch.cat((place, place + sides), -1)


def from_corners(
    corners: Tensor,  # […, 4]
    format: str,
    dtype: torch.dtype,
    rows: Tensor | None = None,  # […, 4]
    row_corners: Tensor | None = None,  # […, 4]
) -> Tensor:
    """Corners in a format and dtype; where they equal ``row_corners``, the bits of ``rows``."""
    boxes = corners
    if format != "xyxy":
        low, high = corners[..., :2], corners[..., 2:]
        sides = high - low
        boxes = torch.cat((low if format == "xywh" else low + sides / 2, sides), -1)
    if not dtype.is_floating_point:
        boxes = boxes.round()
    boxes = boxes.to(dtype)
    if rows is None or row_corners is None:
        return boxes
    return torch.where((corners == row_corners).all(-1, keepdim=True), rows, boxes)
