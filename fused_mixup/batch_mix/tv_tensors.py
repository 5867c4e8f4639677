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


def _tv_tensors(value: Any) -> list[Any]:
    values = value if isinstance(value, (list, tuple)) else [value]
    # Most lists hold plain tensors: one look is enough.
    first = next((v for v in values if v is not None), None)
    return [v for v in values if v is not None] if is_tv_tensor(first) else []


def canvas_sizes(value: Any) -> set[tuple[int, ...]]:
    """The canvases that boxes or keypoints say they lie on."""
    found = (getattr(v, "canvas_size", None) for v in _tv_tensors(value))
    return {tuple(size) for size in found if size is not None}


def box_formats(value: Any) -> set[str]:
    """The formats that bounding boxes say they have."""
    found = (getattr(v, "format", None) for v in _tv_tensors(value))
    return {str(format.value).lower() for format in found if format is not None}
