"""A base class whose attributes are set once, and numbers that change when a tensor is written."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from .tracing import transforms_active, write_count


class Frozen:
    """A class whose attributes are set by :meth:`_fill` alone.

    It is no dataclass: frameworks that walk batches (Lightning, FSDP, DDP) rebuild dataclasses with
    tensors of another dtype. To them, and to ``torch.utils._pytree``, an instance is a leaf that
    they leave alone or move with ``.to``.
    """

    def _fill(self, **values: Any) -> None:
        if not torch.compiler.is_compiling():
            self.__dict__.update(values)
            return
        for name, value in values.items():  # PyTorch 2.10's and 2.11's Dynamo cannot trace __dict__
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}: {name} cannot be set; make a new instance")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}: {name} cannot be deleted")


def versions(*tensors: Tensor | None) -> tuple[float, ...] | None:
    """Numbers that change with each write to one of the tensors; None while compiling."""
    if torch.compiler.is_compiling():
        return None
    return tuple(0 if t is None or t.is_inference() else write_count(t) for t in tensors)


def count_write(x: Tensor) -> None:
    """Bump x's version: autograd cannot see a kernel write, and must refuse graphs that saved x."""
    if not (torch.compiler.is_compiling() or transforms_active() or x.is_inference()):
        torch.autograd.graph.increment_version(x)
