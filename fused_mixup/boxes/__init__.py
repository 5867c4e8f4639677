"""Bounding boxes and keypoints of a mixed batch, and every field that belongs to them."""

from .keypoints import mix_keypoints
from .mix import mix_boxes

__all__ = ["mix_boxes", "mix_keypoints"]
