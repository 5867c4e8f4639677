"""The state of a module as numbers and lists, for checkpoints that are JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind


def to_json(state: Mapping[str, Any]) -> dict[str, Any]:
    """A ``state_dict`` whose tensors are lists with their dtype. Floats keep every bit."""
    made: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            # float64 holds each value of every narrower float, and JSON each bit of a float64.
            values = value.double() if value.is_floating_point() else value
            made[key] = {"dtype": str(value.dtype).split(".")[-1], "values": values.tolist()}
        elif value is None or isinstance(value, (bool, int, float, str)):
            made[key] = value
        else:
            raise TypeError(
                f"state: expected tensors and numbers under {key!r}, got {kind(value)}, which a "
                "checkpoint in JSON cannot hold"
            )
    return made


def from_json(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The ``state_dict`` that :func:`to_json` was given."""
    return {
        key: torch.tensor(value["values"], dtype=getattr(torch, value["dtype"]), device="cpu")
        if isinstance(value, Mapping)
        else value
        for key, value in saved.items()
    }
