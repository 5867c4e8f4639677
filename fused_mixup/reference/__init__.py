"""Every op in plain PyTorch: the specification, the fallback, and the truth in tests.

Each function takes the arguments of the op of the same name in ``schemas.py``. It is written to be
read, not to be fast: it makes full-size temporaries, which the other backends do not.
"""

from .boxes import mix_boxes, mix_boxes_packed
from .collage import mix_patches, mix_rectangles
from .dense import dense_target
from .draw import draw_plan
from .draw_erasing import draw_erasing
from .draw_neighbors import draw_neighbors
from .draw_variants import draw_variants
from .losses import (
    label_ranks,
    scale_,
    soft_target_binary_cross_entropy,
    soft_target_binary_cross_entropy_backward,
    soft_target_binary_cross_entropy_backward_,
    soft_target_binary_cross_entropy_grad,
    soft_target_cross_entropy,
    soft_target_cross_entropy_backward,
    soft_target_cross_entropy_backward_,
    soft_target_cross_entropy_grad,
)
from .masks import mask_mean, mix_masked, mix_masked_, mix_masked_backward, mix_masked_out
from .mixing import mix, mix_, mix_backward, mix_normalize, mix_out, mix_samples, paste_
from .ragged import mix_ragged
from .targets import label_bounds, mix_targets

__all__ = [
    "dense_target",
    "draw_erasing",
    "draw_neighbors",
    "draw_plan",
    "draw_variants",
    "label_bounds",
    "label_ranks",
    "mask_mean",
    "mix",
    "mix_",
    "mix_backward",
    "mix_boxes",
    "mix_boxes_packed",
    "mix_masked",
    "mix_masked_",
    "mix_masked_backward",
    "mix_masked_out",
    "mix_normalize",
    "mix_out",
    "mix_patches",
    "mix_ragged",
    "mix_rectangles",
    "mix_samples",
    "mix_targets",
    "paste_",
    "scale_",
    "soft_target_binary_cross_entropy",
    "soft_target_binary_cross_entropy_backward",
    "soft_target_binary_cross_entropy_backward_",
    "soft_target_binary_cross_entropy_grad",
    "soft_target_cross_entropy",
    "soft_target_cross_entropy_backward",
    "soft_target_cross_entropy_backward_",
    "soft_target_cross_entropy_grad",
]
