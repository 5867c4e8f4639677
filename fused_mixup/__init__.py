"""Fused kernels for sample mixing in PyTorch training: MixUp, CutMix, soft-target cross-entropy."""

from __future__ import annotations

import os as _os

# A bare source tree has the Triton kernels next to this package, not inside it.
_root = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
if _os.path.isdir(_os.path.join(_root, "csrc")):
    __path__.append(_root)

from . import backends as _backends  # noqa: E402
from . import memory as _memory  # noqa: E402, F401  (registers an op that csrc/cpu calls)
from .batch_mix.module import BatchMix  # noqa: E402
from .collage.layouts import mosaic_plan, resize_into, ricap_plan, shifted_cutmix  # noqa: E402
from .forcing import backend  # noqa: E402
from .functional import (  # noqa: E402
    decoupled_mixup_cross_entropy,
    linear_soft_target_cross_entropy,
    mix,
    mix_,
    mix_boxes,
    mix_keypoints,
    mix_labels,
    mix_normalize,
    mix_patches,
    mix_rectangles,
    mix_samples,
    mix_targets,
    mixed_accuracy,
    mixed_criterion,
    paste_,
    random_erasing,
    soft_target_binary_cross_entropy,
    soft_target_cross_entropy,
)
from .loading.erasing import Erasing  # noqa: E402
from .loading.prefetcher import Prefetcher  # noqa: E402
from .loading.random_erasing import erasing_settings  # noqa: E402
from .losses.modules import SoftTargetBinaryCrossEntropy, SoftTargetCrossEntropy  # noqa: E402
from .manifold.module import ManifoldMixup  # noqa: E402
from .plan import MixPlan  # noqa: E402
from .plan.cutmix_box import cutmix_box  # noqa: E402
from .plan.draw import draw_plan, plan_settings  # noqa: E402
from .plan.patches import PatchPlan  # noqa: E402
from .plan.plan_state import plan_state  # noqa: E402
from .plan.rectangles import RectanglePlan  # noqa: E402
from .target import MixedTarget  # noqa: E402
from .variants.draw import draw_variants, variant_settings  # noqa: E402
from .variants.resize import draw_resizemix  # noqa: E402

_backends.load()
_backends.warn_where_shadowed(stacklevel=2)

__version__ = "0.2.0"

__all__ = [
    "BatchMix",
    "Erasing",
    "ManifoldMixup",
    "MixPlan",
    "MixedTarget",
    "PatchPlan",
    "Prefetcher",
    "RectanglePlan",
    "SoftTargetBinaryCrossEntropy",
    "SoftTargetCrossEntropy",
    "backend",
    "cutmix_box",
    "decoupled_mixup_cross_entropy",
    "draw_plan",
    "draw_resizemix",
    "draw_variants",
    "erasing_settings",
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
    "mosaic_plan",
    "paste_",
    "plan_settings",
    "plan_state",
    "random_erasing",
    "resize_into",
    "ricap_plan",
    "shifted_cutmix",
    "soft_target_binary_cross_entropy",
    "soft_target_cross_entropy",
    "variant_settings",
]
