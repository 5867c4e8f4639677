"""The public functions in one namespace; the modules imported here define and check them."""

from .boxes.keypoints import mix_keypoints
from .boxes.mix import mix_boxes
from .collage.patches import mix_patches
from .collage.rectangles import mix_rectangles
from .loading.normalizing import mix_normalize
from .loading.random_erasing import random_erasing
from .loading.samples import mix_samples
from .losses.accuracy import mixed_accuracy
from .losses.criterion import mixed_criterion
from .losses.decoupled import decoupled_mixup_cross_entropy
from .losses.functional import soft_target_binary_cross_entropy, soft_target_cross_entropy
from .losses.linear import linear_soft_target_cross_entropy
from .mixing import mix, mix_, paste_
from .target.labels import mix_labels, mix_targets

__all__ = [
    "decoupled_mixup_cross_entropy",
    "linear_soft_target_cross_entropy",
    "mix",
    "mix_",
    "mix_boxes",
    "mix_keypoints",
    "mix_labels",
    "mix_normalize",
    "mix_patches",
    "mix_rectangles",
    "mix_samples",
    "mix_targets",
    "mixed_accuracy",
    "mixed_criterion",
    "paste_",
    "random_erasing",
    "soft_target_binary_cross_entropy",
    "soft_target_cross_entropy",
]
