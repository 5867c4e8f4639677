"""Mixing in Lightning without a change in the model: :class:`MixupCallback`.

It needs the package ``lightning``, which is imported with the first look at the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callback import MixupCallback

__all__ = ["MixupCallback"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .callback import MixupCallback

    return MixupCallback
