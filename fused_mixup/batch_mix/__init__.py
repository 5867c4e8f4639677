"""MixUp and CutMix as a module that draws its own plans on the device of the batch."""

from .module import BatchMix

__all__ = ["BatchMix"]
