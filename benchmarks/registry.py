"""The registry of cases that are timed.

A module of ``benchmarks/cases`` has a function ``cases(device)`` that yields one :class:`Case` for
each op, variant, shape, dtype and memory format. A new op adds a case; checks, timing, counts,
tables, plots and goals need no change. A case builds its tensors when its turn comes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .goals import HEADLINES

OURS = "ours"
OURS_TRITON = "ours (Triton)"
FIRST = ("floor", "mixing", "losses")  # modules that come first in the tables
FLOOR = "copy"  # the op of the case that measures the floor


@dataclass(frozen=True)
class Provider:
    """One side of a comparison: ``run(input)`` does the work and returns what is compared.

    ``tolerance`` is (rtol, atol) of the result against the expected one; None means bit for bit.
    ``checked=False`` marks other work whose time is quoted too (a plain copy). ``backend`` forces
    one of ours. ``parts`` collects the seconds that the last calls spent on named parts.
    """

    run: Callable[[Any], object]
    tolerance: tuple[float, float] | None = None
    checked: bool = True
    backend: str | None = None
    parts: dict[str, list[float]] | None = None


@dataclass
class Work:
    """The tensors and providers of a case.

    Calls rotate over ``inputs``, so that none is in cache when its turn comes. ``providers`` maps a
    name to a provider, or to the reason why it is missing; "ours" is among them. For the first
    input, ``select(result)`` of each provider must equal ``expected(input)``. ``read`` and
    ``written`` are the least bytes that the work moves; None: no floor. ``threads`` is the number
    of PyTorch's threads, None for all.
    """

    inputs: Sequence[Any]
    providers: dict[str, Provider | str]
    expected: Callable[[Any], object]
    read: int | None = None
    written: int | None = None
    threads: int | None = None
    select: Callable[[Any], Any] = lambda result: result


@dataclass(frozen=True)
class Case:
    """One row of the tables.

    ``peers`` names the other providers; ``build`` makes them and ours. ``clock`` is "device" for
    the time of the work, "host" for the host's time of a call, "graph" for a CUDA graph of it.
    ``goals`` are names in goals.py. ``sweep`` is (axis, value) for a point of a plot. ``full``
    cases run in `make bench-full` alone. Cases of one ``group`` share a process.
    """

    op: str
    variant: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    build: Callable[[Case, str], Work]
    group: str
    peers: tuple[str, ...] = ()
    memory_format: torch.memory_format = torch.contiguous_format
    goals: tuple[str, ...] = ()
    clock: str = "device"
    sweep: tuple[str, int] | None = None
    full: bool = False

    @property
    def providers(self) -> tuple[str, ...]:
        return (OURS, *self.peers)

    @property
    def headline(self) -> bool:
        return not HEADLINES.isdisjoint(self.goals)

    @property
    def layout(self) -> str:
        return str(self.memory_format).removeprefix("torch.").removesuffix("_format")

    @property
    def name(self) -> str:
        """Unique in a run, and the same from run to run."""
        dtype = str(self.dtype).removeprefix("torch.")
        words = [self.op, self.variant + ",", dtype, "×".join(map(str, self.shape))]
        words += [self.layout] if self.layout != "contiguous" else []
        words += [f"({self.clock})"] if self.clock != "device" else []
        words += [f"[{self.sweep[0]}]"] if self.sweep else []
        return " ".join(words)


PARTS = ("all", "headlines", "rest")


def collect(device: str, full: bool = False, only: str = "", part: str = "all") -> list[Case]:
    """The cases of all modules in benchmarks/cases whose name has ``only`` in it, by group.

    ``part`` is one of PARTS; "rest" means all but the headlines (goals.py). The copy, which gives
    the floor, is always the first case.
    """
    from . import cases, rehearsal

    found: list[Case] = []
    modules = {m.name for m in pkgutil.iter_modules(cases.__path__)}
    for module in [*FIRST, *sorted(modules - {*FIRST})]:
        yielded: Iterator[Case] = importlib.import_module(f"{cases.__name__}.{module}").cases(
            device
        )
        found += yielded
    if rehearsal.is_rehearsal():
        found = rehearsal.shrink(found)
    names = [case.name for case in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"registry: expected one case for each name, got more of {sorted(twice)}")
    chosen = [
        case
        for case in found
        if case.op == FLOOR
        or (
            (full or not case.full)
            and only in case.name
            and (part == "all" or case.headline == (part == "headlines"))
        )
    ]
    groups = [FLOOR, *dict.fromkeys(case.group for case in chosen)]
    return sorted(chosen, key=lambda case: groups.index(case.group))
