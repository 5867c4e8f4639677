"""The settings of each variant, with the defaults of its paper or of the code that is used most.

docs/drawing.md says what each number does; ``codes.VARIANT_NUMBERS`` how they lie in a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..arguments import check_number, integer, kind
from ..codes import MASK_RANK, VARIANT_NUMBERS, VARIANT_RANKS, VARIANTS
from ..plan.draw_checks import check_alpha, check_minmax, check_probability


class Number(NamedTuple):
    """One number of a variant, or a range (low, high) that it is drawn from."""

    default: Any
    low: float
    high: float
    whole: bool = False

    @property
    def values(self) -> int:
        return len(self.default) if isinstance(self.default, tuple) else 1


class Variant(NamedTuple):
    """α of a variant, None where it draws no λ, 0 where λ is uniform; and its other numbers."""

    alpha: float | None
    numbers: dict[str, Number]


_MINMAX = Number((0.0, 0.0), 0.0, 1.0)

SETTINGS: dict[str, Variant] = {
    "mixup": Variant(1.0, {}),
    "cutmix": Variant(1.0, {"minmax": _MINMAX}),
    "hmix": Variant(1.0, {"ratio": Number(1.0, 0.0, 1.0)}),
    "gridmix": Variant(
        1.0,
        {
            "holes": Number((2, 6), 1, 1 << 16, True),
            "hole_aspect": Number((1.0, 1.0), 1e-3, 1e3),
            "area": Number((0.5, 1.0), 1e-6, 1.0),
            "aspect": Number((0.5, 2.0), 1e-3, 1e3),
        },
    ),
    "smoothmix": Variant(None, {"sigma": Number((0.25, 0.5), 1e-3, 1e3)}),
    "gmix": Variant(1.0, {}),
    "fmix": Variant(1.0, {"decay": Number(3.0, 0.0, 10.0)}),
    "specmix": Variant(
        None,
        {
            "gamma": Number(0.3, 0.0, 1.0),
            "frequency_bands": Number(2, 0, 2, True),
            "time_bands": Number(2, 0, 2, True),
        },
    ),
    "cutmix_seg": Variant(
        None, {"prop": Number((0.5, 0.5), 1e-6, 1.0), "boxes": Number(1, 1, MASK_RANK, True)}
    ),
}

# What BatchMix draws and a MixPlan alone does not say: a partner that is resized.
RESIZED = {"resizemix": Variant(0.0, {"scale": Number((0.1, 0.8), 0.0, 1.0)})}

# What BatchMix makes of a map of each image that its caller gives.
FROM_MAPS = {
    "saliencymix": Variant(1.0, {}),
    "attentivemix": Variant(2.0, {"top_k": Number(6, 0, 1 << 16, True)}),
    "guidedmixup": Variant(None, {}),
}

# These read a saliency, attention or activation map of each image.
_MASKS = "make its mask with fused_mixup.masks, and mix(x, plan.with_mask(mask))"
_BY_WEIGHTS = "give its plan the weights of fused_mixup.label_weights."
OF_MAPS = {
    **dict.fromkeys(FROM_MAPS, f"{_MASKS}, or give it alone to BatchMix, and maps= to its call"),
    "puzzlemix": f"{_MASKS}, or move patches with mix_patches",
    "tokenmix": f"choose its tokens with fused_mixup.masks.patch_mask, and {_BY_WEIGHTS}"
    "tokenmix_weights",
    "transmix": "mix by cutmix, and as its attention is that of the mixed images, afterwards "
    f"{_BY_WEIGHTS}transmix_weights",
    "snapmix": f"resize a box of the partner with resize_into, and {_BY_WEIGHTS}snapmix_weights",
}

_ALL = SETTINGS | RESIZED | FROM_MAPS


class Mix(NamedTuple):
    """Variants with their probabilities and numbers, checked."""

    alphas: dict[str, float]
    records: dict[str, list[float]]  # eight numbers each
    weights: dict[str, float]

    @property
    def kinds(self) -> list[int]:
        return [VARIANTS[name] for name in self.records]

    @property
    def rank(self) -> int:
        """How many products a mask needs; 0 where no variant has a mask."""
        boxes = self.records["cutmix_seg"][2] if "cutmix_seg" in self.records else 0
        return max(int(boxes), *(VARIANT_RANKS.get(kind, 0) for kind in self.kinds))

    @property
    def places(self) -> bool:
        """Whether a variant has a place in the image."""
        return list(self.records) != ["mixup"]

    @property
    def blends(self) -> bool:
        """Whether a variant blends values other than by a mask."""
        return "mixup" in self.records or "hmix" in self.records

    def settings(self, prob: float) -> list[float]:
        """The numbers of the op ``draw_variants``."""
        made, total = [check_probability("prob", prob)], 0.0
        last = [name for name, weight in self.weights.items() if weight > 0][-1]
        for name, record in self.records.items():
            total += self.weights[name]
            if name == last:
                total = 1.0  # rounded sums may end a little off
            made += [total, self.alphas[name], *record]
        return made


def check_mix(mix: Any, weights: Any = None, resizes: bool = False) -> Mix:
    """``mix=`` and ``weights=`` as given by a caller; ``resizes``: ResizeMix may be among them."""
    if not isinstance(mix, Mapping):
        raise TypeError(
            f"mix: expected a dict of variants and their α, got {kind(mix)}; for example "
            "{'mixup': 0.8, 'cutmix': 1.0}"
        )
    if not mix:
        raise ValueError(f"mix: expected at least one of {list(SETTINGS)}, got none")
    alphas, records = {}, {}
    for name, given in mix.items():
        if name in OF_MAPS:
            raise ValueError(
                f"mix: expected variants that need no map of an image, got {name!r}; "
                f"{OF_MAPS[name]}"
            )
        if name in RESIZED and not resizes:
            raise ValueError(
                "mix: expected variants by masks and boxes of one place, got 'resizemix', which "
                "resizes its partner; use draw_resizemix and mix_rectangles, or BatchMix"
            )
        known = SETTINGS | RESIZED if resizes else SETTINGS
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"mix: expected names of {list(known)}, got {kind(name)}")
        alphas[name], records[name] = variant_numbers(name, given)
    return Mix(alphas, records, check_weights(weights, list(mix)))


def variant_numbers(name: str, given: Any) -> tuple[float, list[float]]:
    """α (0 for none) and the eight numbers of a variant."""
    variant = _ALL[name]
    own = dict(given) if isinstance(given, Mapping) else {}
    if not isinstance(given, Mapping) and given is not None and given is not True:
        own["alpha"] = given
    alpha = variant_alpha(name, own.pop("alpha", variant.alpha))
    unknown = [key for key in own if key not in variant.numbers]
    if unknown:
        expected = ["alpha"] if variant.alpha is not None else []
        raise ValueError(
            f"mix[{name!r}]: expected keys of {expected + list(variant.numbers)}, got "
            f"{kind(unknown[0])}"
        )
    record: list[float] = []
    for key, number in variant.numbers.items():
        record += _number(f"mix[{name!r}][{key!r}]", own.get(key, number.default), number)
    return alpha, record + [0.0] * (VARIANT_NUMBERS - 2 - len(record))


def variant_alpha(name: str, value: Any) -> float:
    """α of a variant, checked; 0 where it draws no λ, or a uniform one."""
    variant = _ALL[name]
    if variant.alpha is None:
        if value is not None:
            raise ValueError(
                f"mix[{name!r}]: expected no α, as it draws no λ, got {kind(value)}; give True"
                + (f", or a dict of {list(variant.numbers)}" if variant.numbers else "")
            )
        return 0.0
    alpha = check_alpha(f"mix[{name!r}]", value)
    if not alpha and variant.alpha:
        raise ValueError(
            f"mix[{name!r}]: expected α > 0, got 0; leave the variant out, or give it a weight of 0"
        )
    return alpha


def _number(name: str, value: Any, number: Number) -> list[float]:
    if number is _MINMAX:
        return list(check_minmax(None if value in (None, number.default) else value))
    if number.values == 1:
        values = [value]
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        values = list(value)
    elif isinstance(value, (Sequence, Tensor)):
        raise ValueError(f"{name}: expected a number or two, (low, high), got {kind(value)}")
    else:
        values = [value, value]
    made = [float(integer(name, v)) if number.whole else check_number(name, v) for v in values]
    if not all(number.low <= v <= number.high for v in made) or made != sorted(made):
        order = "" if number.values == 1 else ", the lower one first"
        raise ValueError(
            f"{name}: expected numbers in [{number.low:g}, {number.high:g}]{order}, got "
            f"{', '.join(f'{v:g}' for v in made)}"
        )
    return made


def check_weights(weights: Any, variants: Sequence[str]) -> dict[str, float]:
    """The probability of each variant, equal where none are given."""
    if weights is None:
        return dict.fromkeys(variants, 1.0 / len(variants))
    if isinstance(weights, Mapping):
        if set(weights) != set(variants):
            raise ValueError(
                f"weights: expected one for each of {list(variants)}, got {list(weights)}"
            )
        given = [weights[name] for name in variants]
    elif isinstance(weights, Sequence) and not isinstance(weights, str):
        given = list(weights)
    else:
        raise TypeError(
            f"weights: expected a probability for each of {list(variants)}, got {kind(weights)}"
        )
    if len(given) != len(variants):
        raise ValueError(
            f"weights: expected {len(variants)} numbers, one for each of {list(variants)}, got "
            f"{len(given)}"
        )
    made = [check_probability("weights", w) for w in given]
    if abs(sum(made) - 1.0) > 1e-6:
        raise ValueError(
            f"weights: expected probabilities that sum to 1, got a sum of {sum(made):.6g}; divide "
            "by it, or set prob for batches that stay as they are"
        )
    return dict(zip(variants, made, strict=True))


def check_range(name: str, value: Any, low: float, high: float) -> list[float]:
    """A number, or two (low, high), within bounds; always two."""
    return _number(name, value, Number((low, high), low, high))
