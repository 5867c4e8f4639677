"""The switch of kernels that no GPU has run yet."""

from __future__ import annotations

import os

VARIABLE = "FUSED_MIXUP_EXPERIMENTAL"


def experimental() -> bool:
    """Whether such kernels may serve, as csrc/cuda/experimental.h decides it too."""
    return os.environ.get(VARIABLE) == "1"
