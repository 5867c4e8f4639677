"""Plans of a map of each image that the caller gives: SaliencyMix, AttentiveMix, GuidedMixup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..label_weights.boxes import area_weights
from ..masks.fields import check_host
from ..masks.maps import patch_mask, saliency_mask
from ..masks.mix_mask import MixMask
from ..plan.checks import Facts
from ..plan.draw_checks import check_probability
from ..plan.mix_plan import MixPlan, known_plan
from ..variants.draw import draw_checked, draw_rows
from ..variants.numbers import check_mix, variant_alpha, variant_numbers
from .epochs import Law, Schedule


class MapLaw(Law):
    """One variant of maps: λ, partners and unmixed rows are drawn as those of MixUp."""

    blends, cuts = False, True

    def __init__(
        self,
        name: str,
        given: Any,
        prob: float,
        schedule: Schedule | None,
        off_after_epoch: int | None,
    ) -> None:
        super().__init__(schedule, off_after_epoch)
        self.map_variant = self.name = name
        self.alpha, record = variant_numbers(name, given)
        self.top_k = int(record[0])
        self.prob = check_probability("prob", prob)
        self.numbers = {"mix": {name: given}, "prob": prob}
        self.masks = name != "saliencymix"
        self.mixup = check_mix({"mixup": True})

    def settings(self, epoch: int) -> list[float]:
        alpha, prob = self.alpha, self.prob
        if self.schedule is not None:
            scheduled = self.schedule(epoch)
            if not isinstance(scheduled, Mapping):
                scheduled = {self.name: scheduled}
            for name, value in scheduled.items():
                if name == "prob":
                    prob = check_probability("schedule: prob", value)
                elif name == self.name:
                    alpha = variant_alpha(name, value)
                else:
                    expected = [self.name, "prob"]
                    raise ValueError(f"schedule: expected keys of {expected}, got {kind(name)}")
        # A variant that draws no λ has a uniform one, which is below 1 where a row is mixed.
        mix = self.mixup._replace(alphas={"mixup": alpha or 1.0})
        return mix.settings(0.0 if self.is_off(epoch) else prob)

    def settings_error(self, name: str, settings: Tensor) -> str | None:
        return None  # their number was compared

    def draw(
        self,
        state: Tensor,  # [4]
        settings: Tensor,  # [11]
        batch_size: int,
        spatial: Sequence[int],
        labels: Tensor | None,  # [B]
        rules: Mapping[str, Any],
        maps: Tensor | None = None,  # [B, h, w]
    ) -> tuple[MixPlan, Tensor | None]:
        size = self._size(spatial)
        own = check_maps(maps, batch_size, size, state.device)
        drawn, _ = draw_checked(batch_size, size, state, settings, self.mixup, labels, **rules)
        other = own[drawn.partner.long()]
        return self._by_maps(drawn, own, other, size, rules["correct_lam"]), None

    def draw_rows(
        self,
        samples: Tensor,  # [B]
        partner: Tensor,  # [B]
        spatial: Sequence[int],
        state: Tensor,  # [4]
        settings: Tensor,  # [11]
        rules: Mapping[str, Any],
        maps: tuple[Tensor, Tensor] | None = None,  # [B, h, w] each
    ) -> tuple[MixPlan, Tensor | None]:
        """Without ``maps`` the rows of MixUp, which say what is mixed at all."""
        size = self._size(spatial)
        drawn, _ = draw_rows(samples, partner, size, state, settings, self.mixup, rules)
        if maps is None:
            return drawn, None
        return self._by_maps(drawn, *maps, size, rules["correct_lam"]), None

    def _size(self, spatial: Sequence[int]) -> tuple[int, ...]:
        if len(spatial) != 2:
            raise ValueError(
                f"images: expected [B, …, H, W], as {self.name!r} has places in images, got "
                f"{len(spatial)} spatial sizes"
            )
        return tuple(spatial)

    def _by_maps(
        self, drawn: MixPlan, own: Tensor, other: Tensor, size: tuple[int, ...], correct_lam: bool
    ) -> MixPlan:
        """The plan that maps of the samples and of their partners make of one of MixUp."""
        lam = drawn.blend[:, 0]
        mask: MixMask | None = None
        box = drawn.box[:, :0]
        if self.name == "saliencymix":
            box = _boxes(other, lam, size)
            weight = area_weights(box, size) if correct_lam else drawn.weight
        else:
            mask = self._mask(own, other, lam)
            share = mask.mean(size)
            weight = torch.stack((share, 1 - share), 1)
        ones = torch.ones_like(lam)
        blend = torch.stack((ones, ones - 1), 1)
        stop = size if box.shape[1] else ()
        facts = Facts(is_permutation=drawn.is_permutation, blends=False, box_stop=stop)
        rows = drawn.partner_or_none, weight, blend, box
        return known_plan(rows, drawn.pairing, facts, mask)

    def _mask(self, own: Tensor, other: Tensor, lam: Tensor) -> MixMask:
        mixed = lam < 1
        if self.name == "guidedmixup":
            mixed = mixed[:, None, None]
            return saliency_mask(torch.where(mixed, own, 1.0), torch.where(mixed, other, 0.0))
        cells = own[0].numel() if len(own) else 1
        count = torch.full_like(lam, self.top_k) if self.top_k else (cells * lam).floor()
        order = own.flatten(1).argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(order.shape[1], device=own.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, rank)
        keep = (rank < count.clamp(min=1)[:, None]) | ~mixed[:, None]
        return patch_mask(keep.view(own.shape))


def _boxes(maps: Tensor, lam: Tensor, size: tuple[int, ...]) -> Tensor:
    """int32 [B, 4]: boxes of sides ``int(n · sqrt(1-λ))`` around the largest value, clipped."""
    height, width = maps.shape[1:]
    if not len(maps):
        return torch.zeros(0, 4, dtype=torch.int32, device=maps.device)
    at = maps.flatten(1).argmax(1)
    side = (1 - lam).sqrt()
    low, high = [], []
    for cell, cells, n in ((at // width, height, size[0]), (at % width, width, size[1])):
        center = (2 * cell + 1) * n // (2 * cells)  # the pixel at the centre of the cell
        half = (n * side).to(torch.int64) // 2
        low.append((center - half).clamp(0, n))
        high.append((center + half).clamp(0, n))
    return torch.stack((*low, *high), 1).to(torch.int32)


def check_needed(maps: object, variant: str | None, mixes: bool) -> None:
    """Raise ValueError for maps that nothing reads, and where a variant lacks them."""
    if variant is None and maps is not None:
        raise ValueError(
            f"maps: expected None, as no variant of this BatchMix reads maps, got {kind(maps)}"
        )
    if variant is not None and maps is None and mixes:
        raise ValueError(
            f"maps: expected a map of each image [B, h, w] for {variant!r}, got None; call "
            "mix(x, labels, maps=maps)"
        )


def check_maps(
    maps: Tensor | None, batch_size: int, size: Sequence[int], device: torch.device
) -> Tensor:
    """float32 [B, h, w], checked."""
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        got = maps.dtype if isinstance(maps, Tensor) else kind(maps)
        raise TypeError(f"maps: expected a tensor of floats [B, h, w], got {got}")
    flat = maps[:, 0] if maps.ndim == 4 and maps.shape[1] == 1 else maps
    fits = flat.ndim == 3 and flat.shape[0] == batch_size
    if not fits or not all(1 <= g <= n for g, n in zip(flat.shape[1:], size, strict=True)):
        raise ValueError(
            f"maps: expected [{batch_size}, h, w] or [{batch_size}, 1, h, w] with h, w from 1 to "
            f"{list(size)}, the images' sizes, got {list(maps.shape)}"
        )
    if flat.device != device:
        raise ValueError(f"maps: expected it on {device} like this BatchMix, got {flat.device}")
    flat = flat.detach().float()
    check_host("maps", (flat >= 0) & flat.isfinite(), "finite numbers of 0 and more")
    return flat
