"""The user's module: loaded from its file, and what its functions give, checked."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..arguments import kind


class UserModule(NamedTuple):
    make_model: Callable[[], nn.Module]
    make_data: Callable[[], tuple[Any, Any]]
    make_optimizer: Callable[[nn.Module], Any] | None


def execute(path: Path) -> ModuleType:
    """The module of a checked path. What its code raises is the user's, and keeps its traceback."""
    path = path.resolve()
    # Under its own name, so that worker processes can import what it defines.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # it may import its neighbours
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def check_path(path: Path) -> None:
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"MODULE.py: expected a Python file that exists, got {path}")
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) != str(path.resolve()):
        raise ValueError(
            f"MODULE.py: expected a name that no imported module has, got {path.stem!r}; rename "
            "the file"
        )


def functions_of(module: ModuleType) -> UserModule:
    functions: list[Any] = []
    for function in ("make_model", "make_data", "make_optimizer"):
        found = getattr(module, function, None)
        if found is None and function == "make_optimizer":
            functions.append(None)
        elif not callable(found):
            raise ValueError(f"{module.__name__}.py: expected it to define {function}(), got none")
        else:
            functions.append(found)
    return UserModule(*functions)


def loaders_of(user: UserModule) -> tuple[Any, Any]:
    made = user.make_data()
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise TypeError(
            f"make_data: expected two loaders, for training and for validation, got {kind(made)}"
        )
    for name, loader in zip(("training", "validation"), made, strict=True):
        if isinstance(loader, Iterator) or not hasattr(loader, "__iter__"):
            raise TypeError(
                f"make_data: expected {name} data that can be gone through in each epoch, such as "
                f"a DataLoader or a list of batches, got {kind(loader)}"
            )
    return made[0], made[1]


def batches(loader: Any, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """(x, labels) of a loader on the device."""
    count = 0
    for batch in loader:
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not all(isinstance(part, Tensor) for part in batch):
            raise TypeError(
                f"make_data: expected batches (x, labels) of two tensors, got {kind(batch)}"
            )
        x, labels = batch
        if labels.dtype != torch.int64 or labels.shape != (len(x),):
            raise TypeError(
                f"make_data: expected labels int64 [{len(x)}], class indices, got {kind(labels)}"
            )
        count += 1
        yield x.to(device, non_blocking=True), labels.to(device, non_blocking=True)
    if not count:
        raise ValueError("make_data: expected at least one batch, got a loader without any")
