"""Masks by which samples are mixed: their kinds, from few numbers or from a stored map."""

from .kinds import band_mask, gauss_mask, grid_mask, rectangle_mask
from .maps import class_mask, patch_mask, saliency_mask, stored_mask
from .mix_mask import MixMask
from .tables import fmix_mask, row_table_mask

__all__ = [
    "MixMask",
    "band_mask",
    "class_mask",
    "fmix_mask",
    "gauss_mask",
    "grid_mask",
    "patch_mask",
    "rectangle_mask",
    "row_table_mask",
    "saliency_mask",
    "stored_mask",
]
