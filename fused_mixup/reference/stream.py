"""Random words of a state: :class:`Stream`. docs/drawing.md says how they are counted."""

from __future__ import annotations

from torch import Tensor

from ..codes import SEED_WORD, STEP_WORD, STREAM_WORD
from .random import MASK, Words, key_schedule, philox


class Stream:
    """The random words of each sample and draw, in one step of a state."""

    def __init__(self, state: Tensor) -> None:
        seed, step = state[SEED_WORD], state[STEP_WORD]
        self._keys = key_schedule(seed & MASK, (seed >> 32) & MASK)
        self._step = step & MASK, ((step >> 32) & 0xFFFF) << 16
        self._stream = state[STREAM_WORD] & MASK

    def words(self, sample: Tensor, draw: Tensor | int) -> Words:
        low, high = self._step
        return philox(sample, high | draw, low, self._stream, self._keys)
