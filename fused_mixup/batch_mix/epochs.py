"""The settings of each epoch of a :class:`fused_mixup.BatchMix`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..arguments import check_number, integer, kind
from ..plan.draw import settings_numbers

Schedule = Callable[[int], float | Mapping[str, float]]

_SCHEDULED = ("mixup_alpha", "cutmix_alpha", "switch_prob", "prob")


class Epochs:
    """The numbers given, the schedule that changes them, and the epochs that are not mixed."""

    def __init__(
        self, numbers: dict[str, Any], schedule: Schedule | None, off_after_epoch: int | None
    ) -> None:
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule: expected a function of the epoch, got {kind(schedule)}")
        if off_after_epoch is not None:
            off_after_epoch = integer("off_after_epoch", off_after_epoch)
            if off_after_epoch < 0:
                raise ValueError(f"off_after_epoch: expected an epoch >= 0, got {off_after_epoch}")
        self.numbers, self.schedule, self.off_after_epoch = numbers, schedule, off_after_epoch

    def settings(self, epoch: int) -> list[float]:
        """The numbers of ``epoch``, in the order of :func:`plan_settings`."""
        numbers = dict(self.numbers)
        if self.schedule is not None:
            scheduled = self.schedule(epoch)
            if not isinstance(scheduled, Mapping):
                names = [name for name in _SCHEDULED[:2] if numbers[name] > 0]
                scheduled = dict.fromkeys(names, scheduled)
            for name, value in scheduled.items():
                if name not in _SCHEDULED:
                    raise ValueError(f"schedule: expected keys of {_SCHEDULED}, got {kind(name)}")
                check_number(f"schedule: {name}", value)
                if name.endswith("alpha") and value and not numbers[name]:
                    raise ValueError(
                        f"schedule: expected 0 for {name}, which is off, got {value}; give "
                        f"BatchMix a {name} above 0 (any: the schedule's counts)"
                    )
                numbers[name] = value
        off = self.off_after_epoch is not None and epoch >= self.off_after_epoch
        if off or (numbers["mixup_alpha"] == 0 and numbers["cutmix_alpha"] == 0):
            numbers["prob"] = 0.0
        if numbers["cutmix_alpha"] == 0:
            numbers["cutmix_minmax"] = None  # CutMix is off in this epoch
        return settings_numbers(**numbers)
