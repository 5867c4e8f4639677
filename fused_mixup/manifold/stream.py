"""Which layer each step mixes: a stream of its own, on the host."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .hooks import Call

_BLOCK = 64  # steps drawn together: seeding takes longer than a step may


class LayerStream:
    """Layers as a function of seed, rank and step, each as likely."""

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.steps = 0  # draws so far, as in the state of the plans, which may lie on a device
        self.last: Call | None = None
        self._made_for: tuple[int, ...] = ()
        self._block: list[str] = []

    def draw(self, seed: int, rank: int) -> str:
        block, at = divmod(self.steps, _BLOCK)
        if self._made_for != (seed, rank, block):
            words = random.Random(f"layers {seed} {rank} {block}")
            self._block = [self.layers[words.randrange(len(self.layers))] for _ in range(_BLOCK)]
            self._made_for = (seed, rank, block)
        self.steps += 1
        return self._block[at]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "last": None}  # it holds tensors of a step
