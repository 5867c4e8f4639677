"""What a mix does to real images: :func:`show`, and ``python -m fused_mixup.preview``.

It needs Pillow, and ``import fused_mixup`` does not import it.
"""

from .view import show

__all__ = ["show"]
