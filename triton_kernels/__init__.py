"""The ops of ``fused_mixup/ops.py`` in Triton, under the same names and with the same arguments.

``plan.py`` draws plans, ``draw_erasing.py`` boxes that are erased. ``mix.py`` mixes samples,
``masks.py`` mixes them by masks, ``collage.py`` pastes rectangles and patches, ``mix_normalize.py``
normalises images too, ``targets.py`` mixes labels, ``boxes.py`` boxes. ``loss.py`` and ``bce.py``
hold the losses, ``label_ranks.py`` the ranks of labels, ``scale.py`` the scaling of a gradient.
``common.py`` holds what all files share (the memory layout of a batch, plan rows as kernel
arguments, the launch); ``rows.py`` holds what the losses share: rows of classes in any memory
layout.
"""

if "." not in __name__:  # it is no part of the package
    raise ImportError(
        f"import fused_mixup.triton_kernels, not {__name__}: the name triton_kernels belongs to "
        "another published package"
    )

from .bce import (
    soft_target_binary_cross_entropy,
    soft_target_binary_cross_entropy_backward,
    soft_target_binary_cross_entropy_backward_,
    soft_target_binary_cross_entropy_grad,
)
from .boxes import mix_boxes
from .collage import mix_patches, mix_rectangles
from .draw_erasing import draw_erasing
from .label_ranks import label_ranks
from .loss import (
    soft_target_cross_entropy,
    soft_target_cross_entropy_backward,
    soft_target_cross_entropy_backward_,
    soft_target_cross_entropy_grad,
)
from .masks import mask_mean, mix_masked, mix_masked_, mix_masked_backward, mix_masked_out
from .mix import mix, mix_, mix_backward, mix_out, paste_
from .mix_normalize import mix_normalize
from .plan import draw_plan
from .scale import scale_
from .targets import mix_targets

__all__ = [
    "draw_erasing",
    "draw_plan",
    "label_ranks",
    "mask_mean",
    "mix",
    "mix_",
    "mix_backward",
    "mix_boxes",
    "mix_masked",
    "mix_masked_",
    "mix_masked_backward",
    "mix_masked_out",
    "mix_normalize",
    "mix_out",
    "mix_patches",
    "mix_rectangles",
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
