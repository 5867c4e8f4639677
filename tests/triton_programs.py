"""Programs of a Triton launch, as the interpreter runs them: in any order, each on its own memory.

A GPU gives no order to the programs of a launch. The interpreter runs them one after another, so
that a program that writes into its neighbour's part is overwritten unseen. :func:`watch` shuffles
them, and a launch fails in which two programs write one byte, or one reads what another writes.
It fails too, before it happens, where a program leaves the memory of the launch's tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from triton.runtime import interpreter

Accesses = list[tuple[int, int, np.ndarray]]  # (program, bytes of an element, addresses)


class ProgramConflict(AssertionError):
    """Two programs of one launch that depend on their order."""


class OutOfBounds(AssertionError):
    """An access outside the tensors of the launch."""


class Spans:
    """The memory of tensors: from the first element of each to its last."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        found = sorted(_span(t) for t in tensors if t.numel())
        self.starts = np.array([start for start, _ in found], np.int64)
        # A span may lie in one that starts before it.
        self.ends = np.maximum.accumulate(np.array([end for _, end in found], np.int64))

    def hold(self, addresses: np.ndarray, size: int) -> bool:
        at = np.searchsorted(self.starts, addresses, "right") - 1
        return bool(((at >= 0) & (addresses + size <= self.ends[at])).all())


def _span(t: torch.Tensor) -> tuple[int, int]:
    last = sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size()


def _tensors(arguments: Iterable[object]) -> Iterator[torch.Tensor]:
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, tuple):
            yield from _tensors(argument)
        elif isinstance(getattr(argument, "base", None), torch.Tensor):  # a tensor descriptor
            yield argument.base


class Launch:
    """The accesses of one launch, and the order of its programs."""

    def __init__(self, grid: tuple[int, int, int], spans: Spans | None = None) -> None:
        self.grid = grid
        self.spans = spans
        programs = np.arange(np.prod(grid))
        order = np.random.default_rng(len(programs)).permutation(programs)
        self.order = order if (order != programs).any() else programs[::-1]
        self.program = 0
        self.stores: Accesses = []
        self.loads: Accesses = []
        self.atomics: Accesses = []

    def place(self, x: int, y: int, z: int) -> tuple[int, ...]:
        """The program that runs where the interpreter would run (x, y, z)."""
        self.program = int(self.order[np.ravel_multi_index((x, y, z), self.grid)])
        return tuple(int(k) for k in np.unravel_index(self.program, self.grid))

    def record(self, accesses: Accesses, pointers, mask) -> None:
        size = max(pointers.get_element_ty().primitive_bitwidth // 8, 1)
        at = np.asarray(pointers.data)
        chosen = at.ravel() if mask is None else at[np.broadcast_to(mask.data, at.shape)]
        if chosen.size == 0:
            return
        chosen = np.unique(chosen.astype(np.int64))
        if self.spans is not None and not self.spans.hold(chosen, size):
            raise OutOfBounds(f"program {self.program} of {self.grid} leaves the launch's tensors")
        accesses.append((self.program, size, chosen))

    def check(self) -> None:
        unit = min((size for _, size, _ in (*self.stores, *self.loads, *self.atomics)), default=1)
        cells, owners = _cells(self.stores, unit)
        if cells.size == 0:
            return
        twice = np.flatnonzero((cells[1:] == cells[:-1]) & (owners[1:] != owners[:-1]))
        if twice.size:
            k = int(twice[0])
            raise ProgramConflict(
                f"programs {owners[k]} and {owners[k + 1]} of {self.grid} write the same element"
            )
        for kind, accesses in (("reads", self.loads), ("adds to", self.atomics)):
            seen, others = _cells(accesses, unit)
            at = np.minimum(np.searchsorted(cells, seen), cells.size - 1)
            met = np.flatnonzero((cells[at] == seen) & (owners[at] != others))
            if met.size:
                k = int(met[0])
                raise ProgramConflict(
                    f"program {others[k]} of {self.grid} {kind} what program {owners[at[k]]} writes"
                )


def _cells(accesses: Accesses, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """(sorted pieces of ``unit`` bytes, the program of each), without repeats."""
    pairs = [np.empty((0, 2), np.int64)]
    for program, size, addresses in accesses:
        for part in range(0, size, unit):
            at = (addresses + part) // unit
            pairs.append(np.stack((at, np.full_like(at, program)), 1))
    both = np.concatenate(pairs)
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    keep = np.ones(len(both), bool)
    keep[1:] = (both[1:] != both[:-1]).any(1)
    return both[keep, 0], both[keep, 1]


def watch() -> None:
    """From now on every interpreted launch is shuffled and checked."""
    builder = interpreter.interpreter_builder
    launch = Launch((1, 1, 1))
    spans = Spans(())
    plain = {
        name: getattr(builder, name)
        for name in ("set_grid_dim", "set_grid_idx", "create_masked_store", "create_masked_load")
    }
    plain |= {name: getattr(builder, name) for name in ("create_atomic_rmw", "create_atomic_cas")}
    run = interpreter.GridExecutor.__call__

    def set_grid_dim(*grid):
        nonlocal launch
        launch = Launch(grid, spans)
        plain["set_grid_dim"](*grid)

    def set_grid_idx(*place):
        plain["set_grid_idx"](*launch.place(*place))

    def create_masked_store(pointers, value, mask, *rest):
        launch.record(launch.stores, pointers, mask)
        return plain["create_masked_store"](pointers, value, mask, *rest)

    def create_masked_load(pointers, mask, *rest, **options):
        launch.record(launch.loads, pointers, mask)
        return plain["create_masked_load"](pointers, mask, *rest, **options)

    def create_atomic_rmw(op, pointers, value, mask, *rest):
        launch.record(launch.atomics, pointers, mask)
        return plain["create_atomic_rmw"](op, pointers, value, mask, *rest)

    def create_atomic_cas(pointers, *rest):
        launch.record(launch.atomics, pointers, None)
        return plain["create_atomic_cas"](pointers, *rest)

    def checked(self, *args, **options):
        nonlocal spans
        spans = Spans(_tensors((*args, *options.values())))
        try:
            run(self, *args, **options)
        except interpreter.InterpreterError as error:
            if isinstance(error.__cause__, OutOfBounds):
                raise error.__cause__ from None
            raise
        launch.check()

    patched = locals()
    for name in plain:
        setattr(builder, name, patched[name])
    interpreter.GridExecutor.__call__ = checked
