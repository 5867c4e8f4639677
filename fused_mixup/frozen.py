"""Plain classes whose attributes are set once, and whether a tensor was written to since."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from .tracing import write_count


class Frozen:
    """Attributes are set by :meth:`_fill` alone.

    No dataclass: frameworks that walk batches (Lightning, FSDP, DDP) rebuild those with tensors of
    another dtype. To them, and to ``torch.utils._pytree``, an instance is a leaf that they leave
    alone or move with ``.to``.
    """

    def _fill(self, **values: Any) -> None:
        if not torch.compiler.is_compiling():
            self.__dict__.update(values)
            return
        for name, value in values.items():  # Dynamo of 2.10 and 2.11 cannot trace __dict__
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}: {name} cannot be set; make a new instance")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}: {name} cannot be deleted")


def versions(*tensors: Tensor | None) -> tuple[float, ...] | None:
    """Numbers that change with each write to one of the tensors; None where nobody counts."""
    if torch.compiler.is_compiling():
        return None
    return tuple(0 if t is None or t.is_inference() else write_count(t) for t in tensors)
