"""What a :class:`fused_mixup.BatchMix` draws with ``mix=``: variants by their papers' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..arguments import kind
from ..plan.draw_checks import check_probability
from ..plan.mix_plan import MixPlan
from ..variants.draw import draw_checked, draw_rows
from ..variants.numbers import FROM_MAPS, check_mix, check_weights, variant_alpha
from .epochs import Law, PlanLaw, Schedule
from .map_law import MapLaw


class VariantLaw(Law):
    """Variants by :func:`draw_variants`."""

    def __init__(
        self,
        mix: Any,
        weights: Any,
        prob: float,
        schedule: Schedule | None,
        off_after_epoch: int | None,
    ) -> None:
        super().__init__(schedule, off_after_epoch)
        self.mix, self.prob = check_mix(mix, weights, True), check_probability("prob", prob)
        self.numbers = {"mix": dict(mix), "weights": self.mix.weights, "prob": prob}
        self.blends, self.cuts = self.mix.blends, self.mix.places
        self.resizes, self.keeps_weights = "resizemix" in mix, "hmix" in mix
        self.masks = self.mix.rank > 0 or self.resizes

    def settings(self, epoch: int) -> list[float]:
        mix, prob = self.mix, self.prob
        if self.schedule is not None:
            scheduled = self.schedule(epoch)
            if not isinstance(scheduled, Mapping):
                with_alpha = [name for name, alpha in mix.alphas.items() if alpha > 0]
                scheduled = dict.fromkeys(with_alpha, scheduled)
            alphas, weights = dict(mix.alphas), mix.weights
            for name, value in scheduled.items():
                if name == "prob":
                    prob = check_probability("schedule: prob", value)
                elif name == "weights":
                    weights = check_weights(value, list(mix.alphas))
                elif name in alphas:
                    alphas[name] = variant_alpha(name, value)
                else:
                    expected = [*alphas, "weights", "prob"]
                    raise ValueError(f"schedule: expected keys of {expected}, got {kind(name)}")
            mix = mix._replace(alphas=alphas, weights=weights)
        return mix.settings(0.0 if self.is_off(epoch) else prob)

    def settings_error(self, name: str, settings: Tensor) -> str | None:
        return None  # their number was compared

    def draw(
        self,
        state: Tensor,  # [4]
        settings: Tensor,  # [1 + 10·M]
        batch_size: int,
        spatial: Sequence[int],
        labels: Tensor | None,  # [B]
        rules: Mapping[str, Any],
        maps: Tensor | None = None,
    ) -> tuple[MixPlan, Tensor | None]:
        rest = state, settings, self.mix, labels
        return draw_checked(batch_size, self._size(spatial), *rest, **rules)

    def draw_rows(
        self,
        samples: Tensor,  # [B]
        partner: Tensor,  # [B]
        spatial: Sequence[int],
        state: Tensor,  # [4]
        settings: Tensor,  # [1 + 10·M]
        rules: Mapping[str, Any],
        maps: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[MixPlan, Tensor | None]:
        return draw_rows(samples, partner, self._size(spatial), state, settings, self.mix, rules)

    def _size(self, spatial: Sequence[int]) -> tuple[int, ...]:
        size = tuple(spatial) if self.cuts else (1, 1)
        if len(size) != 2:
            raise ValueError(
                f"images: expected [B, …, H, W], as {list(self.mix.alphas)} have places in images, "
                f"got {len(size)} spatial sizes; view a signal as x.unsqueeze(-2), or set "
                "spatial_dims=2"
            )
        return size


def choose_law(
    mix: Any,
    weights: Any,
    modes: tuple[Any, ...],
    prob: float,
    schedule: Schedule | None,
    off_after_epoch: int | None,
) -> Law:
    """The law of ``mix=``, or without it that of mixup_alpha, cutmix_alpha and the like."""
    mixup_alpha, cutmix_alpha, switch_prob, bounds = modes
    if mix is None:
        if weights is not None:
            raise ValueError("weights: expected None without mix=, got weights; give mix={…: α}")
        numbers = mixup_alpha, cutmix_alpha, switch_prob, prob, bounds
        return PlanLaw(*numbers, schedule, off_after_epoch)
    if modes != (1.0, 0.0, 0.5, None):
        raise ValueError(
            "mix: expected None beside mixup_alpha, cutmix_alpha, switch_prob and cutmix_minmax, "
            f"got {kind(mix)}; give their α in mix={{'mixup': …, 'cutmix': …}} and their shares in "
            "weights="
        )
    of_maps = [name for name in FROM_MAPS if isinstance(mix, Mapping) and name in mix]
    if not of_maps:
        return VariantLaw(mix, weights, prob, schedule, off_after_epoch)
    if len(mix) > 1:
        raise ValueError(
            f"mix: expected {of_maps[0]!r} alone, as its maps are needed before a variant is "
            f"drawn, got it among {list(mix)}; make two BatchMix and choose one for each batch"
        )
    check_weights(weights, of_maps)
    return MapLaw(of_maps[0], mix[of_maps[0]], prob, schedule, off_after_epoch)
