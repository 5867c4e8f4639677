"""Plain numbers that callers give: of the right type, within bounds."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from ..arguments import integer, kind


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number of Python or NumPy, or a tensor of one element, within bounds."""
    found = None
    if hasattr(value, "__float__"):
        with suppress(TypeError, ValueError, RuntimeError):  # more than one element
            found = float(value)
    if found is None:
        raise TypeError(f"{name}: expected a number, got {kind(value)}")
    if math.isfinite(found) and least <= found <= most:
        return found
    if math.isfinite(most):
        expected = f"a number in [{least:g}, {most:g}]"
    else:
        expected = "a finite number" if least < 0 else f"a finite number of {least:g} and more"
    raise ValueError(f"{name}: expected {expected}, got {found}")


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An integer within bounds."""
    found = integer(name, value)
    if found < least or (most is not None and found > most):
        bounds = f"{least} and more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}: expected {bounds}, got {found}")
    return found


def check_lam(alpha: Any, lam: Any) -> None:
    """Raise for an α from which, or a λ with which, nothing can be mixed."""
    if lam is not None:
        number("lam", lam, 0.0, 1.0)
    elif not number("alpha", alpha) > 0:
        raise ValueError(f"alpha: expected a number above 0, got {alpha}; for no mix give lam=1.0")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        expected = " or ".join(map(repr, choices))
        raise ValueError(f"{name}: expected {expected}, got {kind(value)}")


def bounds(name: str, value: Any) -> tuple[Any, Any]:
    """A pair as it is, a number twice."""
    if not isinstance(value, (tuple, list)):
        return value, value
    if len(value) != 2:
        raise ValueError(f"{name}: expected a number or two bounds, got {len(value)} numbers")
    return value[0], value[1]
