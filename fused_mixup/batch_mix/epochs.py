"""What a :class:`fused_mixup.BatchMix` draws, and its settings of each epoch: MixUp and CutMix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..arguments import check_number, integer, kind
from ..codes import CUTMIX_ALPHA
from ..plan.draw import draw_plan, draw_rows, settings_numbers
from ..plan.draw_checks import check_minmax, saved_settings_error
from ..plan.mix_plan import MixPlan

Schedule = Callable[[int], float | Mapping[str, float]]

_SCHEDULED = ("mixup_alpha", "cutmix_alpha", "switch_prob", "prob")


class Law:
    """What is drawn: the numbers given, their schedule, and the epochs that are not mixed."""

    numbers: dict[str, Any]  # as they are shown
    blends: bool  # values may be blended, other than by a mask
    cuts: bool  # it draws in the sizes of images
    masks = False  # it draws masks of images [H, W]
    keeps_weights = False  # label weights are not those of the areas of boxes
    resizes = False  # partners may be resized into a place
    map_variant: str | None = None  # it makes its plans of a map of each image

    def __init__(self, schedule: Schedule | None, off_after_epoch: int | None) -> None:
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule: expected a function of the epoch, got {kind(schedule)}")
        if off_after_epoch is not None:
            off_after_epoch = integer("off_after_epoch", off_after_epoch)
            if off_after_epoch < 0:
                raise ValueError(f"off_after_epoch: expected an epoch >= 0, got {off_after_epoch}")
        self.schedule, self.off_after_epoch = schedule, off_after_epoch

    def is_off(self, epoch: int) -> bool:
        return self.off_after_epoch is not None and epoch >= self.off_after_epoch

    def settings(self, epoch: int) -> list[float]:
        """The numbers of ``epoch``, as the op takes them."""
        raise NotImplementedError

    def settings_error(self, name: str, settings: Tensor) -> str | None:
        """Why settings from a checkpoint do not fit, or None."""
        raise NotImplementedError

    def draw(
        self,
        state: Tensor,  # [4]
        settings: Tensor,
        batch_size: int,
        spatial: Sequence[int],
        labels: Tensor | None,  # [B]
        rules: Mapping[str, Any],
        maps: Tensor | None = None,  # [B, h, w]
    ) -> tuple[MixPlan, Tensor | None]:
        """The plan, and the places [B, 4] of resized partners if there may be any."""
        raise NotImplementedError

    def draw_rows(
        self,
        samples: Tensor,  # [B]
        partner: Tensor,  # [B]
        spatial: Sequence[int],
        state: Tensor,  # [4]
        settings: Tensor,
        rules: Mapping[str, Any],
        maps: tuple[Tensor, Tensor] | None = None,  # of the samples and of their partners
    ) -> tuple[MixPlan, Tensor | None]:
        """The same for some samples of a larger batch, in which their partners are given."""
        raise NotImplementedError


class PlanLaw(Law):
    """MixUp and CutMix, by :func:`draw_plan`."""

    def __init__(
        self,
        mixup_alpha: float,
        cutmix_alpha: float,
        switch_prob: float,
        prob: float,
        cutmix_minmax: Sequence[float] | None,
        schedule: Schedule | None,
        off_after_epoch: int | None,
    ) -> None:
        super().__init__(schedule, off_after_epoch)
        bounds = None if cutmix_minmax is None else check_minmax(cutmix_minmax)
        names = ("mixup_alpha", "cutmix_alpha", "switch_prob", "prob", "cutmix_minmax")
        given = mixup_alpha, cutmix_alpha, switch_prob, prob, bounds
        on = settings_numbers(*given)  # bounds alone turn CutMix on
        given = mixup_alpha, on[CUTMIX_ALPHA], *given[2:]
        self.numbers = dict(zip(names, given, strict=True))
        self.blends, self.cuts = mixup_alpha > 0, on[CUTMIX_ALPHA] > 0

    def settings(self, epoch: int) -> list[float]:
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
        if self.is_off(epoch) or (numbers["mixup_alpha"] == 0 and numbers["cutmix_alpha"] == 0):
            numbers["prob"] = 0.0
        if numbers["cutmix_alpha"] == 0:
            numbers["cutmix_minmax"] = None  # CutMix is off in this epoch
        return settings_numbers(**numbers)

    def settings_error(self, name: str, settings: Tensor) -> str | None:
        modes = self.blends, self.cuts, self.schedule is not None
        return saved_settings_error(name, settings, *modes)

    def draw(
        self,
        state: Tensor,  # [4]
        settings: Tensor,  # [6]
        batch_size: int,
        spatial: Sequence[int],
        labels: Tensor | None,  # [B]
        rules: Mapping[str, Any],
        maps: Tensor | None = None,
    ) -> tuple[MixPlan, Tensor | None]:
        given: dict[str, Any] = {"state": state, "settings": settings, "labels": labels}
        return draw_plan(batch_size, self._sizes(spatial), **given, **rules), None

    def draw_rows(
        self,
        samples: Tensor,  # [B]
        partner: Tensor,  # [B]
        spatial: Sequence[int],
        state: Tensor,  # [4]
        settings: Tensor,  # [6]
        rules: Mapping[str, Any],
        maps: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[MixPlan, Tensor | None]:
        return draw_rows(samples, partner, self._sizes(spatial), state, settings, rules), None

    def _sizes(self, spatial: Sequence[int]) -> tuple[int, ...]:
        if self.cuts and not spatial:
            raise ValueError(
                "images: expected sizes for the boxes of CutMix after [B, C], got none; set "
                "spatial_dims=1 for [B, T], or cutmix_alpha=0 for MixUp alone"
            )
        return tuple(spatial) if self.cuts else ()  # plans without boxes are mixed faster
