"""The real timm and torchvision, for tests that compare with them: import this first.

Pure Python of theirs is all that is needed. Where torchvision's own binary does not fit this
PyTorch, the operators that its import asks for are declared without an implementation.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
import warnings

import pytest
import torch

_declared = None


def _declare_missing_operators() -> None:
    """torchvision registers shapes for operators of its binary, and fails where there are none."""
    global _declared
    spec = importlib.util.find_spec("torchvision")
    folder = pathlib.Path(spec.origin).parent
    for binary in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(binary))
            return
        except OSError:
            pass  # built for another PyTorch
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    text = (folder / "_meta_registrations.py").read_text()
    for name in sorted(set(re.findall(r'"torchvision::(\w+)"', text))):
        _declared.define(name + "() -> ()")


if importlib.util.find_spec("torchvision") is None or importlib.util.find_spec("timm") is None:
    pytest.skip(
        "timm and torchvision are not installed; pip install timm torchvision",
        allow_module_level=True,
    )
_declare_missing_operators()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import timm
    import timm.data
    import timm.loss
    import torchvision
    from torchvision import tv_tensors
    from torchvision.transforms import v2

__all__ = ["timm", "torchvision", "tv_tensors", "v2"]
