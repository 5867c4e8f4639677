"""Plans of one of several variants, drawn where the batch lives: :func:`draw_variants`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arguments import check_choice, kind
from ..codes import (
    BATCH,
    DRAWN_PAIRINGS,
    MAX_MASK_SIZE,
    PAIR,
    PAIRINGS,
    PER,
    RESIZEMIX,
    ROLL,
    TENSOR,
)
from ..masks.mix_mask import known_mask
from ..plan.checks import Facts
from ..plan.draw_checks import (
    check_drawn_labels,
    check_given_partner,
    check_settings,
    check_sizes,
    check_state,
    has_float64,
)
from ..plan.draw_replay import draw_parts
from ..plan.mix_plan import MixPlan, known_plan
from .numbers import Mix, check_mix


def variant_settings(
    mix: Mapping[str, Any],
    weights: Mapping[str, float] | Sequence[float] | None = None,
    *,
    prob: float = 1.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """The numbers of :func:`draw_variants` as a tensor, for those that change during training.

    Values copied into this tensor apply to the next draw, also in a compiled step or a captured
    CUDA graph.

    Equivalent to::

        numbers = [prob]
        for name, weight in zip(mix, weights):
            numbers += [sum of the weights so far, α, *eight numbers of the variant]
        torch.tensor(numbers, dtype=torch.float64, device=device)

    Args:
        mix, weights, prob: as in :func:`draw_variants`.
        device: the device of the state, or the CPU (where a draw reads them when it is launched).

    Returns:
        float64 [1 + 10·M] for M variants.

    Raises:
        TypeError, ValueError: as :func:`draw_variants`.
    """
    numbers = check_mix(mix, weights).settings(prob)
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def draw_variants(
    batch_size: int,
    size: Sequence[int],
    *,
    state: Tensor,  # [4]
    mix: Mapping[str, Any],
    weights: Mapping[str, float] | Sequence[float] | None = None,
    prob: float = 1.0,
    per: str = "batch",
    pairing: str | Tensor = "flip",
    correct_lam: bool = True,
    symmetric: bool = False,
    labels: Tensor | None = None,  # [B]
    settings: Tensor | None = None,  # [1 + 10·M]
) -> MixPlan:
    """Draw a plan of MixUp, CutMix, HMix, GridMix, SmoothMix, GMix, FMix, SpecMix or CutMix-Seg.

    Each batch, pair or sample draws one variant of ``mix`` by ``weights``, then its λ and its
    numbers, on the device of ``state`` and without waiting. The plan mixes by a box, a blend or a
    mask, and its label weights follow the variant's paper.

    Equivalent to (one row, with NumPy's generator, which gives other numbers)::

        name = rng.choice(list(mix), p=weights) if rng.random() < prob else None
        lam = rng.beta(alpha[name], alpha[name])
        plan = rule_of[name](lam, size, rng)  # docs/variants.md

    Args:
        batch_size: B, up to 65,536.
        size: (H, W) of the images, up to 65,536 each.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        mix: α for each variant by its name, None or True for the default of its paper, or a dict
            of α and the variant's other numbers (docs/variants.md lists them).
        weights: the probability of each variant, a dict by name or a sequence in the order of
            ``mix``; equal by default. They sum to 1.
        prob: probability that a row is mixed at all.
        per, pairing, labels: as in :func:`draw_plan`.
        correct_lam: weigh the labels of a row of CutMix by the area that was really pasted.
        symmetric: λ = max(λ, 1-λ), before boxes and masks are made of it.
        settings: float64 of :func:`variant_settings`, in place of α, numbers, ``weights`` and
            ``prob``; ``mix`` still names the variants, in the same order.

    Returns:
        A :class:`MixPlan` on the device of ``state``, with a :class:`fused_mixup.masks.MixMask`
        where a variant has masks. Samples that share a draw share the memory of its mask.

    Raises:
        TypeError, ValueError, IndexError: as :func:`draw_plan`; an unknown variant, weights of
            another length or sum.

    Notes:
        Label weights are the drawn λ for MixUp, HMix and FMix, and the mean of the mask for the
        others. Deterministic: a state gives the same plan on every backend, to the bit
        (docs/drawing.md). Inside torch.utils.checkpoint the recompute gets the same plan.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv
    1905.04899; Park et al., HMix and GMix, 2022, arXiv 2208.09913; Harris et al., FMix, 2020,
    arXiv 2002.12047; Baek et al., GridMix, 2021; Lee et al., SmoothMix, 2020; Kim et al., SpecMix,
    2021, arXiv 2108.03020; French et al., CutMix-Seg, 2020, arXiv 1906.01916.
    """
    checked = check_mix(mix, weights)
    if settings is None:
        numbers = checked.settings(prob)
        settings = torch.tensor(numbers, dtype=torch.float64, device="cpu")
    else:
        count = len(checked.settings(prob))
        check_settings(settings, state, "variant_settings", count)
    check_state(state)
    rules = per, pairing, correct_lam, symmetric
    return draw_checked(batch_size, size, state, settings, checked, labels, *rules)[0]


class Drawn(NamedTuple):
    """What the op ``draw_variants`` returns, its masks expanded to the batch, and its pairing."""

    partner: Tensor  # [B]
    weight: Tensor  # [B, 2]
    blend: Tensor  # [B, 2]
    box: Tensor  # [B, 4]
    code: Tensor  # [B]
    threshold: Tensor  # [B]
    rows: Tensor  # [B, R, H]
    columns: Tensor  # [B, R, W]
    resize_box: Tensor  # [B, 4], or [0, 4]
    pairing: str
    is_permutation: bool | None


def draw_checked(
    batch_size: int,
    size: Sequence[int],
    state: Tensor,  # [4]
    settings: Tensor,  # [1 + 10·M]
    mix: Mix,
    labels: Tensor | None,  # [B]
    per: str,
    pairing: str | Tensor,
    correct_lam: bool,
    symmetric: bool,
) -> tuple[MixPlan, Tensor | None]:
    """:func:`draw_variants` of a checked mix, state and settings.

    Beside the plan, where ResizeMix is among the variants, the places [B, 4] of resized partners.
    """
    rules = per, pairing, correct_lam, symmetric
    d = drawn(batch_size, size, state, settings, mix.kinds, mix.rank, labels, *rules)
    return _plan_of(d, size, mix, state.device)


def draw_rows(
    samples: Tensor,  # [B]
    partner: Tensor,  # [B]
    size: Sequence[int],
    state: Tensor,  # [4]
    settings: Tensor,  # [1 + 10·M]
    mix: Mix,
    rules: Mapping[str, Any],
) -> tuple[MixPlan, Tensor | None]:
    """The rows of these samples in the plan of a larger batch, as ``draw_rows`` of plan/draw.py."""
    per, options = PER[rules["per"]], (rules["correct_lam"], rules["symmetric"])
    numbers = mix.kinds, len(samples), *size, mix.rank, per, TENSOR, *options, samples.int()
    parts = draw_parts(state, settings, None, partner.int(), *numbers)
    d = _drawn(parts, len(samples), per, "self", True)
    return _plan_of(d, size, mix, state.device)


def _plan_of(
    d: Drawn, size: Sequence[int], mix: Mix, device: torch.device
) -> tuple[MixPlan, Tensor | None]:
    mask = known_mask(d.code, d.threshold, d.rows, d.columns) if mix.rank else None
    box = d.box if mix.places else d.box[:, :0]  # plans without boxes are mixed faster
    stop = tuple(size) if mix.places else ()
    facts = Facts(is_permutation=d.is_permutation, blends=False, box_stop=stop)
    plan = known_plan((d.partner, d.weight, d.blend, box), d.pairing, facts, mask)
    places = d.resize_box if RESIZEMIX in mix.kinds else None
    if has_float64(device):
        return plan, places
    return plan.to(device), None if places is None else places.to(device)


def drawn(
    batch_size: int,
    size: Sequence[int],
    state: Tensor,  # [4]
    settings: Tensor,  # [1 + 10·M]
    kinds: list[int],  # [M]
    rank: int,
    labels: Tensor | None,  # [B]
    per: str,
    pairing: str | Tensor,
    correct_lam: bool,
    symmetric: bool,
) -> Drawn:
    """The results of the op, on the CPU where the device has no float64."""
    batch_size, size = check_sizes(batch_size, size)
    if len(size) != 2 or not all(1 <= n <= MAX_MASK_SIZE for n in size):
        raise ValueError(
            f"size: expected (H, W), each from 1 to {MAX_MASK_SIZE:,}, got {list(size)}"
        )
    shared = check_choice("per", per, PER)
    given: Tensor | None = None
    permutes: bool | None = True
    name = "tensor"
    if isinstance(pairing, Tensor):
        rule = TENSOR
        permutes = check_given_partner(pairing, batch_size, state)
        given = pairing.to(torch.int32).contiguous()
    else:
        name = pairing if pairing in PAIRINGS else name
        rule = check_choice("pairing", pairing, DRAWN_PAIRINGS, " or partners [B]")
    if rule == ROLL and shared == PAIR:
        raise ValueError(
            "per: expected 'batch' or 'sample' with pairing='roll', which forms a circle and no "
            f"pairs, got {kind(per)}; for pairs use pairing='flip' or 'derangement'"
        )
    labels = check_drawn_labels(labels, rule, batch_size, state)
    numbers = kinds, batch_size, *size, rank, shared, rule, correct_lam, symmetric
    if has_float64(state.device):
        parts = draw_parts(state, settings, labels, given, *numbers)
    else:
        host = state.cpu()
        labels, given = (None if t is None else t.cpu() for t in (labels, given))
        parts = draw_parts(host, settings.cpu(), labels, given, *numbers)
        state.copy_(host)
    return _drawn(parts, batch_size, shared, name, permutes)


def _drawn(
    parts: tuple[Tensor, ...], batch_size: int, per: int, pairing: str, permutes: bool | None
) -> Drawn:
    """The results of the op; one mask for the batch is expanded to its samples."""
    partner, weight, blend, box, code, threshold, rows, columns, resize_box = parts
    if per == BATCH:
        threshold, rows, columns = (
            t.expand(batch_size, *t.shape[1:]) for t in (threshold, rows, columns)
        )
    masks = code, threshold, rows, columns
    return Drawn(partner, weight, blend, box, *masks, resize_box, pairing, permutes)
