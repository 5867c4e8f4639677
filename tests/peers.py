"""The real timm and torchvision, for tests that compare with them; skips where they are missing."""

from __future__ import annotations

import pytest

from benchmarks import installed_peers

if (reason := installed_peers.reason_missing()) is not None:
    pytest.skip(reason, allow_module_level=True)
timm, torchvision = installed_peers.load()
from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

__all__ = ["timm", "torchvision", "tv_tensors", "v2"]
