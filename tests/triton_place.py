"""Where the Triton kernels run in tests: on a GPU, or without one under Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALF = (torch.float16, torch.bfloat16)
# The interpreter computes with numpy, which warns of what the tests do on purpose: 0 * inf, log 0.
quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")
