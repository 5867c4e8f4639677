"""timm's mixing and its losses, on fused ops: change the import line and nothing else.

    from fused_mixup.timm import Mixup, FastCollateMixup         # from timm.data
    from fused_mixup.timm import (                               # from timm.loss
        BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy)

The classes take timm's arguments, draw from NumPy's global generator as timm does, and give the
same images and targets; what differs stands in their docstrings. timm itself is not needed.
"""

from .collate import FastCollateMixup
from .losses import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from .mixup import Mixup

__all__ = [
    "BinaryCrossEntropy",
    "FastCollateMixup",
    "LabelSmoothingCrossEntropy",
    "Mixup",
    "SoftTargetCrossEntropy",
]
