"""What mixes do to real images: :func:`show`, :func:`show_variants`, and the same from a shell,
``python -m fused_mixup.preview``.

It needs Pillow, and ``import fused_mixup`` does not import it.
"""

from .gallery import show_variants
from .view import show

__all__ = ["show", "show_variants"]
