"""OpenMixup's mixes, from its files: importing the package itself needs mmcv and a GPU.

The files are read from an installed ``openmixup``, or from the source tree that the environment
variable OPENMIXUP names (0.2.10 is in no package index):

    pip install --no-deps openmixup                    # 0.2.9
    OPENMIXUP=/path/to/openmixup make test             # any
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from . import installed_peers


@functools.cache
def root() -> Path | None:
    """The folder of the package, or None."""
    given = os.environ.get("OPENMIXUP")
    if given:
        folders = [Path(given), Path(given, "openmixup")]
    else:
        spec = importlib.util.find_spec("openmixup")  # does not import it
        folders = [Path(spec.origin).parent] if spec is not None and spec.origin else []
    return next((f for f in folders if (f / "models" / "augments").is_dir()), None)


def reason_missing() -> str | None:
    """Why OpenMixup's files cannot be read, or None."""
    if root() is None:
        return "openmixup not installed; pip install --no-deps openmixup, or set OPENMIXUP"
    if importlib.util.find_spec("scipy") is None:
        return "openmixup needs scipy; pip install scipy"
    return None


@functools.cache
def version() -> str:
    found = _module(_root() / "version.py", "openmixup_version")
    return str(found.__version__)


@functools.cache
def mix(name: str) -> Callable[..., Any] | None:
    """OpenMixup's function of this name, made to run on the CPU; None where it cannot be had."""
    if not (_root() / "models" / "augments" / f"{name}.py").exists():
        return None
    try:
        return _on_the_cpu(getattr(load_file(name), name))
    except ImportError:  # a file that needs another package, or an older Python
        return None


@functools.cache
def load_file(name: str) -> types.ModuleType:
    """A file of models/augments as a module."""
    installed_peers.fit_torchvision()  # some files import it
    utils = _root() / "models" / "utils"
    helpers = types.ModuleType("openmixup.models.utils")
    mmcv = types.ModuleType("mmcv.utils")
    mmcv.digit_version = str  # type: ignore[attr-defined]  # for a function that no mix calls
    with _pretended(openmixup_utils=helpers, mmcv_utils=mmcv):
        for source in ("helpers", "gather_layer"):
            helpers.__dict__.update(vars(_module(utils / f"{source}.py", f"openmixup_{source}")))
        module = _module(_root() / "models" / "augments" / f"{name}.py", f"openmixup_{name}")
    module.torch = _CpuTorch("torch")  # type: ignore[attr-defined]
    return module


@contextmanager
def _pretended(openmixup_utils: types.ModuleType, mmcv_utils: types.ModuleType) -> Iterator[None]:
    """What the files import from OpenMixup and mmcv; other modules that they import stay."""
    names = {"openmixup.models.utils": openmixup_utils, "mmcv.utils": mmcv_utils}
    for name in ("openmixup", "openmixup.models", "mmcv"):
        names[name] = types.ModuleType(name)
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _root() -> Path:
    folder = root()
    assert folder is not None
    return folder


def _module(path: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _CpuTorch(types.ModuleType):
    """torch, whose tensors are made on the CPU where OpenMixup asks for "cuda"."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def full(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        return torch.full(*args, **kwargs)


@contextmanager
def without_cuda() -> Iterator[None]:
    """``.cuda()`` leaves a tensor where it is."""
    with mock.patch.object(torch.Tensor, "cuda", lambda self, *a, **k: self):
        yield


def _on_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with without_cuda(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    return run
