"""Valid calls of every public function, module and raw op, which ``hostile.py`` then spoils."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hostile_inputs import MIXES
from hostile_losses import LOSSES
from smoke import names_written, op_inputs, schema_of
from torch import Tensor

import fused_mixup as fm
from fused_mixup import ops
from fused_mixup.names import CHOSEN, NAMESPACE


@dataclass
class Call:
    """A function, its arguments by name, and those that it may write."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    written: tuple[str, ...] = ()
    backend: str | None = None
    positional: bool = False
    spoiled: list[str] = field(default_factory=list)

    def run(self) -> Any:
        if self.positional:
            return self.function(*self.arguments.values())
        return self.function(**self.arguments)


def copied(value: Any) -> Any:
    """A copy in memory of its own, as hostile calls may write it."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (list, tuple)):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return value


# ------------------------------------------------------------------ raw ops

_calls = op_inputs()


def raw_ops() -> dict[str, Callable[[random.Random], Call]]:
    def make(name: str, draw: random.Random) -> Call:
        arguments = draw.choice(_calls[name])
        space = draw.choice((NAMESPACE, NAMESPACE, CHOSEN))
        backend = draw.choice(("native", "reference")) if space == CHOSEN else None
        ordered = {a.name: copied(arguments.get(a.name)) for a in schema_of(name).arguments}
        op = getattr(getattr(torch.ops, space), name)
        called = f"{space}::{name}" + (f" ({backend})" if backend else "")
        return Call(called, op, ordered, tuple(names_written(name)), backend, True)

    return {name: lambda draw, name=name: make(name, draw) for name in ops.SCHEMAS}


# ------------------------------------------------------------------ public functions

PUBLIC = MIXES | LOSSES

# BatchMix: where another ``inplace`` says so.
WRITES = {"mix_": ("x",), "mix_, other": ("x",), "paste_": ("x",)}
WRITES |= {"BatchMix": ("batch",), "BatchMix, dict": ("batch",)}


def public_calls() -> dict[str, Callable[[random.Random], Call]]:
    def make(name: str, draw: random.Random) -> Call:
        function, arguments = PUBLIC[name]
        written = (*WRITES.get(name, ()), "out", "state")
        return Call(f"fm.{name}", function, arguments(draw), written)

    return {name: lambda draw, name=name: make(name, draw) for name in PUBLIC}


def public_names_left_out() -> set[str]:
    """Public names that no call here belongs to."""
    named = {name.partition(",")[0].partition(".")[0] for name in PUBLIC}
    return set(copy.copy(fm.__all__)) - named - {"backend"}
