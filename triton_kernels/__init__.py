"""The ops of ``fused_mixup/ops.py`` in Triton, under the same names and with the same arguments.

``plan.py`` draws plans, ``mix.py`` mixes samples, ``targets.py`` labels, ``loss.py`` learns from
them; ``common.py`` holds what they share: the memory layout of a batch, plan rows as kernel
arguments, the launch.
"""

if __name__ != "fused_mixup.triton_kernels":
    raise ImportError(
        f"import fused_mixup.triton_kernels, not {__name__}: the name triton_kernels belongs to "
        "another published package"
    )

from .loss import soft_target_cross_entropy, soft_target_cross_entropy_backward
from .mix import mix, mix_, mix_backward, mix_out, paste_
from .plan import draw_plan
from .targets import mix_targets

__all__ = [
    "draw_plan",
    "mix",
    "mix_",
    "mix_backward",
    "mix_out",
    "mix_targets",
    "paste_",
    "soft_target_cross_entropy",
    "soft_target_cross_entropy_backward",
]
