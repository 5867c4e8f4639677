"""Which layer each step mixes: a stream of its own, on the host."""

from __future__ import annotations

import random
from typing import Any

_BLOCK = 64  # steps drawn together: seeding takes longer than a step may


class LayerStream:
    """Layers as a function of seed, rank and step, each as likely."""

    def __init__(self) -> None:
        self.layers: tuple[Any, ...] = ()
        self.steps = 0  # plans drawn so far, as in their state, which may lie on a device
        self.last: tuple[Any, Any] = None, None  # layer and plan of the last step
        self._made_for: tuple[int, ...] = ()
        self._block: list[Any] = []

    def draw(self, seed: int, rank: int) -> Any:
        """The layer of this step, which ends where the plan is drawn."""
        block, at = divmod(self.steps, _BLOCK)
        if self._made_for != (seed, rank, block):
            words = random.Random(f"layers {seed} {rank} {block}")
            self._block = [self.layers[words.randrange(len(self.layers))] for _ in range(_BLOCK)]
            self._made_for = (seed, rank, block)
        return self._block[at]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "last": (None, None)}  # it holds tensors of a step
