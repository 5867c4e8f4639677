"""What the labels of a mixed batch become: sparse targets, dense ones, blended float labels."""

from ..codes import IGNORE_INDEX, NO_IGNORE
from .mixed_target import MixedTarget

__all__ = ["IGNORE_INDEX", "NO_IGNORE", "MixedTarget"]
