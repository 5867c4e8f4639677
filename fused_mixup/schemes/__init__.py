"""Training and inference schemes around a mix, as thin functions on plans, targets and losses.

Each draws what its paper draws from a state of :func:`fused_mixup.plan_state`, on the device of
that state, and mixes by :func:`fused_mixup.mix`.
"""

from .inference import mixup_inference
from .long_tails import balanced_mixup, remix
from .regularised import regmixup
from .self_supervised import unmix, unmix_loss
from .semi_supervised import MixMatchBatch, mixmatch, sharpen

__all__ = [
    "MixMatchBatch",
    "balanced_mixup",
    "mixmatch",
    "mixup_inference",
    "regmixup",
    "remix",
    "sharpen",
    "unmix",
    "unmix_loss",
]
