"""The mixes of kornia.augmentation, on this package's kernels.

    from fused_mixup.kornia import RandomCutMixV2, RandomMixUpV2   # or, for code that says K.name:
    from fused_mixup import kornia as K                            # other names are Kornia's own

Each class is a subclass of Kornia's: same arguments, same draws from PyTorch's generator, same
labels, boxes and parameters, so it serves alone and in ``AugmentationSequential``. Images, and the
masks of a transplantation, are mixed in one pass.
"""

from __future__ import annotations

from typing import Any

from .collages import RandomJigsaw, RandomMosaic
from .installed import theirs
from .pairs import PatchMix, RandomCutMixV2, RandomMixUpV2
from .transplantation import RandomTransplantation

__all__ = [
    "PatchMix",
    "RandomCutMixV2",
    "RandomJigsaw",
    "RandomMixUpV2",
    "RandomMosaic",
    "RandomTransplantation",
]


def __getattr__(name: str) -> Any:
    """Look up every other name in kornia.augmentation."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(theirs, name)
