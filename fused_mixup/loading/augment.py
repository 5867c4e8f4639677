"""What a loader's device side draws for each batch: which images are mirrored, what is erased."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_number, integer, kind
from ..codes import STEP_WORD
from ..plan.plan_state import plan_state
from ..tracing import process_rank
from .erasing import Erasing

_EPOCH_SHIFT = 32  # of the 48 bits of a step: the epoch, then the batches of it


class Augmentation:
    """Draws of one loader: functions of seed, rank, epoch and the number of the batch."""

    def __init__(self, flip: float, erase: Callable[..., Erasing] | None, seed: int) -> None:
        self.flip = check_number("flip", flip)
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip: expected a probability in [0, 1], got {flip}")
        if erase is not None and not callable(erase):
            raise TypeError(
                "erase: expected a function such as partial(random_erasing, prob=0.25) or None, "
                f"got {kind(erase)}"
            )
        self.erase, self.seed = erase, integer("seed", seed)
        self._epoch: int | None = None
        self._generator: torch.Generator | None = None
        self._state: Tensor | None = None

    def set_epoch(self, epoch: int) -> None:
        """Begin the draws of ``epoch``."""
        self._epoch = epoch
        self._generator = self._state = None

    def flips(self, batch_size: int, device: torch.device) -> Tensor | None:
        """bool [B], which images are mirrored; None where none is."""
        if self.flip == 0:
            return None
        if self._generator is None:
            self._generator = torch.Generator(device)
            words = random.Random(f"{self.seed} {_rank()} {self._epoch}")
            self._generator.manual_seed(words.getrandbits(63))
        drawn = torch.rand(batch_size, generator=self._generator, device=device)
        return drawn < self.flip

    def erasing(self, shape: tuple[int, ...], device: torch.device) -> Erasing | None:
        """What is erased of images [B, C, H, W]."""
        if self.erase is None:
            return None
        if self._state is None:
            state = plan_state(self.seed, _rank(), device="cpu")
            state[STEP_WORD] = 0 if self._epoch is None else (self._epoch + 1) << _EPOCH_SHIFT
            self._state = state.to(device)
        batch, channels, *spatial = shape
        erasing: Any = self.erase(batch, tuple(spatial), state=self._state, channels=channels)
        if not isinstance(erasing, Erasing):
            raise TypeError(f"erase: expected it to return an Erasing, got {kind(erasing)}")
        return erasing


def _rank() -> int:
    rank = process_rank()
    if rank is not None:
        return rank
    text = os.environ.get("RANK", "")
    return int(text) if text.isdecimal() else 0
