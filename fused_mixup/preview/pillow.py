"""Pillow, which is optional: reading and drawing ask for it here before they import it."""

from __future__ import annotations

OLDEST = (10, 1)  # the first whose own font comes in any size


def require_pillow() -> None:
    """Raise ImportError with the remedy where Pillow is missing or too old."""
    try:
        import PIL
    except ImportError:
        raise ImportError(
            "fused_mixup.preview: expected Pillow, which is not installed; pip install pillow"
        ) from None
    if tuple(int(part) for part in PIL.__version__.split(".")[:2]) < OLDEST:
        raise ImportError(
            f"fused_mixup.preview: expected Pillow {OLDEST[0]}.{OLDEST[1]} or newer, got "
            f"{PIL.__version__}; pip install --upgrade pillow"
        )
