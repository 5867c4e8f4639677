"""``MixUp`` and ``CutMix`` of torchvision's transforms.v2, on this package's kernels.

    from fused_mixup.torchvision import CutMix, MixUp   # or, for code that says v2.MixUp:
    from fused_mixup import torchvision as v2           # other names are torchvision's own

Same arguments, same draws from PyTorch's generator, same images and targets. torchvision itself
is not needed: its tensor classes are recognised where a program has loaded it.
"""

from __future__ import annotations

import importlib
from typing import Any

from .transforms import CutMix, MixUp

__all__ = ["CutMix", "MixUp"]


def __getattr__(name: str) -> Any:
    """Look up every other name in torchvision.transforms.v2."""
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        theirs = importlib.import_module("torchvision.transforms.v2")
    except (ImportError, RuntimeError, OSError) as error:  # missing, or of another PyTorch
        raise AttributeError(
            f"fused_mixup.torchvision has MixUp and CutMix; {name!r} would be torchvision's, which "
            f"cannot be imported ({error}); pip install torchvision"
        ) from error
    return getattr(theirs, name)
