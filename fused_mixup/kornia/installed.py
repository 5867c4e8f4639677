"""Kornia, which this folder speeds up; one clear error where it is missing or too old."""

from __future__ import annotations

_REMEDY = "pip install 'kornia>=0.9', which needs Python 3.11 or newer"

try:
    import kornia
    import kornia.augmentation as theirs
    from kornia.constants import DataKey
except ImportError as error:
    raise ImportError(
        f"fused_mixup.kornia: expected Kornia, whose classes it speeds up, got {error}; {_REMEDY}"
    ) from error
if tuple(map(int, kornia.__version__.split(".")[:2])) < (0, 9):
    raise ImportError(
        f"fused_mixup.kornia: expected Kornia 0.9 or newer, got {kornia.__version__}; {_REMEDY}"
    )

__all__ = ["DataKey", "theirs"]
