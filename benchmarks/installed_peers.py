"""Imports the installed peers, for benchmarks and for tests.

We compare with pure Python of timm and torchvision alone. Where torchvision's own binary does not
fit this PyTorch, we declare the operators that its import needs, without an implementation.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import warnings
from types import ModuleType

import torch

_declared: torch.library.Library | None = None


def reason_missing() -> str | None:
    """Why the peers cannot be imported, or None."""
    absent = [name for name in ("timm", "torchvision") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed; pip install timm torchvision" if absent else None


def load() -> tuple[ModuleType, ModuleType]:
    """timm and torchvision."""
    fit_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
        import timm.data
        import timm.loss
        import torchvision
        import torchvision.transforms.v2
    return timm, torchvision


def fit_torchvision() -> None:
    """Lets an installed torchvision be imported with any PyTorch."""
    global _declared
    spec = importlib.util.find_spec("torchvision")
    if _declared is None and spec is not None and spec.origin is not None:
        _declared = torch.library.Library("torchvision", "FRAGMENT")
        _declare_missing_operators(pathlib.Path(spec.origin).parent, _declared)


def _declare_missing_operators(folder: pathlib.Path, library: torch.library.Library) -> None:
    """Declares the missing operators for which torchvision's import registers shapes."""
    for binary in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(binary))
            return
        except OSError:
            pass  # built for another PyTorch
    text = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r'"torchvision::(\w+)"', text))):
        library.define(name + "() -> ()")


def kornia() -> ModuleType | str:
    """kornia.augmentation, or why it is not available."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import kornia.augmentation
    except ImportError as error:
        return f"Kornia cannot be imported ({error}); pip install kornia"
    return kornia.augmentation


def keras() -> ModuleType | str:
    """Keras on its PyTorch backend, or why it is not available."""
    os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it when it is imported
    try:
        import keras
    except ImportError as error:
        return f"Keras cannot be imported ({error}); pip install keras, and KERAS_BACKEND=torch"
    chosen = keras.backend.backend()
    if chosen != "torch":
        return f"Keras runs on {chosen}; set KERAS_BACKEND=torch"
    return keras


def liger(device: str) -> type | str:
    """Liger-Kernel's fused cross-entropy, or why it is not available."""
    if device != "cuda":
        return "Liger-Kernel's Triton kernels need a GPU"
    try:
        from liger_kernel.transformers import LigerCrossEntropyLoss
    except ImportError as error:
        return f"Liger-Kernel cannot be imported ({error}); pip install liger-kernel"
    return LigerCrossEntropyLoss
