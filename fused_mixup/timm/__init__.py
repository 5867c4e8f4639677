"""timm's mixing, its loader and its losses, on fused ops: change the import line and nothing else.

    from fused_mixup.timm import Mixup, FastCollateMixup         # from timm.data
    from fused_mixup.timm import (                               # from timm.loss
        BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy)
    from fused_mixup.timm import PrefetchLoader                  # from timm.data.loader
    from fused_mixup.timm import NaFlexMixup                     # from timm.data.naflex_mixup
    fused_mixup.timm.patch_create_loader()                       # for timm's create_loader

The classes take timm's arguments, draw from NumPy's global generator as timm does, and give the
same images and targets; what differs stands in their docstrings. timm itself is not needed.
"""

from .collate import FastCollateMixup
from .losses import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from .mixup import Mixup
from .naflex import NaFlexMixup, mix_batch_variable_size
from .naflex_targets import pairwise_mixup_target
from .prefetch import PrefetchLoader, patch_create_loader

__all__ = [
    "BinaryCrossEntropy",
    "FastCollateMixup",
    "LabelSmoothingCrossEntropy",
    "Mixup",
    "NaFlexMixup",
    "PrefetchLoader",
    "SoftTargetCrossEntropy",
    "mix_batch_variable_size",
    "pairwise_mixup_target",
    "patch_create_loader",
]
