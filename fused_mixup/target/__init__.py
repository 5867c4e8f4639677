"""What the labels of a mixed batch become: sparse targets, dense ones, blended float labels."""

from .mixed_target import MixedTarget

__all__ = ["MixedTarget"]
