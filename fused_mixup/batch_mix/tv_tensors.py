"""torchvision's tv_tensors as plain tensors, and back."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor


def is_tv_tensor(value: Any) -> bool:
    if type(value) is Tensor or not isinstance(value, Tensor):
        return False
    module = sys.modules.get("torchvision.tv_tensors")  # without it there can be none
    return module is not None and isinstance(value, module.TVTensor)


def plain(value: Any) -> Any:
    """A tv_tensor as a plain tensor of the same memory; anything else as it is."""
    return value.as_subclass(Tensor) if is_tv_tensor(value) else value


def wrap_like(made: Any, like: Any) -> Any:
    """``made`` as the tv_tensor that ``like`` is, with its format and canvas."""
    if not is_tv_tensor(like) or type(made) is not Tensor:
        return made
    return sys.modules["torchvision.tv_tensors"].wrap(made, like=like)


def _first_tv_tensor(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        value = next((v for v in value if v is not None), None)
    return value if is_tv_tensor(value) else None


def canvas_size(value: Any) -> tuple[int, int] | None:
    """The canvas that boxes or keypoints, or those of the first sample, say they lie on."""
    return getattr(_first_tv_tensor(value), "canvas_size", None)


def box_format(value: Any) -> str | None:
    """The format that bounding boxes, or those of the first sample, say they have."""
    format = getattr(_first_tv_tensor(value), "format", None)
    return None if format is None else str(format.value).lower()
