"""When a loop tells a mix how far the training is: by epochs, or by optimizer steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..arguments import check_choice, kind

INTERVALS = {"epoch": 0, "step": 1}


class Clock:
    """Calls ``set_epoch`` of a mix with the epoch or the optimizer step, once for each.

    What a mix's ``schedule`` and ``off_after_epoch`` count is what they are called with: with
    ``interval="step"`` both count optimizer steps.
    """

    def __init__(self, name: str, mix: Any, interval: str, interval_name: str = "interval") -> None:
        if not isinstance(mix, nn.Module):
            raise TypeError(
                f"{name}: expected a mix that is a module, such as BatchMix(num_classes=…), got "
                f"{kind(mix)}"
            )
        check_choice(interval_name, interval, INTERVALS)
        self.interval = interval
        set_epoch: Callable[[int], None] | None = getattr(mix, "set_epoch", None)
        if set_epoch is None and interval == "step":
            raise ValueError(
                f"{interval_name}: expected 'epoch' for a {type(mix).__name__}, which has no "
                "set_epoch and so no schedule, got 'step'"
            )
        self._set_epoch, self._told = set_epoch, -1

    def epoch(self, epoch: int) -> None:
        """An epoch begins, or goes on after a checkpoint was loaded."""
        if self.interval == "epoch":
            self._tell(epoch)

    def step(self, step: int) -> None:
        """An optimizer step begins; calls of its later micro-batches change nothing."""
        if self.interval == "step":
            self._tell(step)

    def forget(self) -> None:
        """The mix has been loaded: it is told again, also of the same epoch or step."""
        self._told = -1

    def _tell(self, count: int) -> None:
        if self._set_epoch is not None and count != self._told:
            self._set_epoch(count)
            self._told = count
