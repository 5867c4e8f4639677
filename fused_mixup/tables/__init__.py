"""Tables and regression: mixing of columns, and partners with labels near by (C-Mixup)."""

from .columns import mix_table
from .neighbors import draw_neighbors

__all__ = ["draw_neighbors", "mix_table"]
