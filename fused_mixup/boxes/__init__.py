"""Bounding boxes and keypoints of a mixed batch, and every field that belongs to them."""

from .follow import MixedRows, checked_boxes, follow_boxes
from .keypoints import mix_keypoints
from .mix import mix_boxes

__all__ = ["MixedRows", "checked_boxes", "follow_boxes", "mix_boxes", "mix_keypoints"]
