"""Masks by which samples are mixed: their kinds, from few numbers or from a stored map."""

from .mix_mask import MixMask

__all__ = ["MixMask"]
