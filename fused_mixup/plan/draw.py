"""Plans drawn where the batch lives, in one launch or two: :func:`draw_plan`.

docs/drawing.md specifies the numbers, the same on every backend. A draw depends on two small
tensors: a state (:func:`plan_state`), which each draw advances by one step, and settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_choice
from ..codes import CUTMIX_ALPHA, DRAWN_PAIRINGS, PAIR, PAIRINGS, PER, ROLL, TENSOR
from ..tracing import has_host_values
from .checks import Facts
from .draw_checks import (
    ALPHA_OF_BOUNDS,
    check_alpha,
    check_box_sizes,
    check_drawn_labels,
    check_given_partner,
    check_minmax,
    check_probability,
    check_settings,
    check_sizes,
    check_state,
    has_float64,
)
from .draw_replay import draw
from .mix_plan import MixPlan, known_plan


def plan_settings(
    *,
    mixup_alpha: float = 1.0,
    cutmix_alpha: float = 0.0,
    switch_prob: float = 0.5,
    prob: float = 1.0,
    cutmix_minmax: Sequence[float] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The numbers of :func:`draw_plan` as a tensor, for those that change during training.

    Values copied into this tensor apply to the next draw, also in a compiled step or a captured
    CUDA graph: a schedule for α neither recompiles nor reads the device.

    Equivalent to::

        low, high = cutmix_minmax or (0, 0)
        cutmix_alpha = cutmix_alpha or (1.0 if cutmix_minmax else 0.0)
        torch.tensor([mixup_alpha, cutmix_alpha, switch_prob, prob, low, high],
                     dtype=torch.float64, device=device)

    Args:
        mixup_alpha, cutmix_alpha, switch_prob, prob, cutmix_minmax: as in :func:`draw_plan`.
        device: the device of the state, or the CPU (where a draw reads them when it is launched).

    Returns:
        float64 [6].

    Raises:
        TypeError, ValueError: as :func:`draw_plan`.
    """
    numbers = settings_numbers(mixup_alpha, cutmix_alpha, switch_prob, prob, cutmix_minmax)
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def settings_numbers(
    mixup_alpha: float,
    cutmix_alpha: float,
    switch_prob: float,
    prob: float,
    cutmix_minmax: Sequence[float] | None,
) -> list[float]:
    """The numbers of :func:`plan_settings`, checked."""
    mixup_alpha = check_alpha("mixup_alpha", mixup_alpha)
    cutmix_alpha = check_alpha("cutmix_alpha", cutmix_alpha)
    prob = check_probability("prob", prob)
    switch_prob = check_probability("switch_prob", switch_prob)
    low, high = check_minmax(cutmix_minmax)
    if high > 0.0 and cutmix_alpha == 0.0:
        cutmix_alpha = ALPHA_OF_BOUNDS
    if prob > 0.0 and mixup_alpha == 0.0 and cutmix_alpha == 0.0:
        raise ValueError(
            "mixup_alpha, cutmix_alpha: expected one of them > 0, got 0 and 0; to leave batches "
            "as they are set prob=0"
        )
    return [mixup_alpha, cutmix_alpha, switch_prob, prob, low, high]


def draw_plan(
    batch_size: int,
    spatial: Sequence[int] = (),
    *,
    state: Tensor,  # [4]
    mixup_alpha: float = 1.0,
    cutmix_alpha: float = 0.0,
    switch_prob: float = 0.5,
    prob: float = 1.0,
    per: str = "batch",
    pairing: str | Tensor = "flip",
    cutmix_minmax: Sequence[float] | None = None,
    correct_lam: bool = True,
    symmetric: bool = False,
    labels: Tensor | None = None,  # [B]
    settings: Tensor | None = None,  # [6]
) -> MixPlan:
    """Draw λ, boxes and partners on the device of ``state``, without waiting for it.

    ``λ ~ Beta(α, α)``; a row is mixed with probability ``prob``, and then cut with ``switch_prob``
    where both modes are on. A cut row has a box of share 1-λ around a uniform centre, clipped.

    Equivalent to (one row, with NumPy's generator, which gives other numbers)::

        cut = cutmix_alpha > 0 and (mixup_alpha == 0 or rng.random() < switch_prob)
        lam = rng.beta(alpha, alpha) if rng.random() < prob else 1.0
        box, lam = cutmix_box(spatial, lam, rng.integers(spatial)) if cut else (None, lam)
        MixPlan.uniform(batch_size, pairing, lam, box)

    Args:
        batch_size: B, up to 65,536.
        spatial: the D <= 3 sizes that boxes live in, e.g. ``x.shape[2:]``; MixUp needs none.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        mixup_alpha, cutmix_alpha: α of λ in each mode, in [1e-6, 1e6]; 0 turns the mode off.
        switch_prob: probability of CutMix where both modes are on.
        prob: probability that a row is mixed at all.
        per: what shares a draw: the whole ``"batch"``, each ``"pair"`` of partners, or each
            ``"sample"`` for itself.
        pairing: ``"flip"`` (B-1-i), ``"roll"`` (i-1), ``"shuffle"`` (any permutation, each as
            likely), ``"derangement"`` (a cycle through the whole batch, each as likely),
            ``"cross_class"`` (a partner of another class wherever no class holds more than half of
            the batch, else as often as possible; in an odd batch with ``per="pair"`` one more pair
            may share a class), or your own partners [B], int32 or int64, a permutation or not.
        cutmix_minmax: shares (low, high) of each side; the sides of a box are then uniform between
            them and the box lies inside, whatever λ; labels are weighed by its area. They turn
            CutMix on even without ``cutmix_alpha``.
        correct_lam: weigh the labels of a cut row by the area that was really pasted.
        symmetric: λ = max(λ, 1-λ), before a box is made of it.
        labels: int64 [B], for ``"cross_class"``.
        settings: float64 [6] of :func:`plan_settings`, in place of the numbers above, which are
            then ignored. The host does not read those on a device: no row is cut there where
            ``spatial`` is missing.

    Returns:
        A :class:`MixPlan` on the device of ``state``. Its boxes have D dims, or none where
        ``cutmix_alpha`` is 0.

    Raises:
        TypeError, ValueError: an argument that is not as described, an α or a probability out of
            range, labels of another size, a state of another device or version.
        IndexError: one of your own partners outside [0, B), on the CPU.

    Notes:
        A sample that is its own partner stays as it is. With ``per="pair"`` the pairings that sort
        (shuffle, derangement, cross_class) match samples two by two, and in an odd batch one
        stays as it is (with flip, the middle one); roll has no pairs. With your own partners,
        sample i draws as min(i, partner_i).
        Inside torch.utils.checkpoint the recompute gets the plan of the forward again and takes no
        step, compiled or not; any other draw inside a backward (use_reentrant=True) raises a
        RuntimeError.
        Deterministic: a state gives the same plan on every backend, to the bit. On a device, a
        state of another version gives weights of NaN, as nothing is read back. Two draws from one
        state must not run at once. A device without float64 (Apple's) waits for its state: its
        plans are drawn on the CPU.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv
    1905.04899; Marsaglia and Tsang, A simple method for generating gamma variables, 2000.
    """
    check_state(state)
    batch_size, spatial = check_sizes(batch_size, spatial)
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
            "pairs, got 'pair'; for pairs use pairing='flip' or 'derangement'"
        )
    labels = check_drawn_labels(labels, rule, batch_size, state)
    only_blends = False
    if settings is None:
        numbers = settings_numbers(mixup_alpha, cutmix_alpha, switch_prob, prob, cutmix_minmax)
        settings = torch.tensor(numbers, dtype=torch.float64, device="cpu")
        cutmix_alpha = numbers[CUTMIX_ALPHA]
        check_box_sizes(spatial, cutmix_alpha)
        if not cutmix_alpha:
            spatial = ()  # plans without boxes are mixed faster
            only_blends = prob > 0
    else:
        check_settings(settings, state)
        if not spatial and has_host_values(settings):
            check_box_sizes(spatial, settings.tolist()[CUTMIX_ALPHA])
    facts = Facts(is_permutation=permutes, blends=only_blends, box_stop=spatial)
    rules = batch_size, spatial, shared, rule, correct_lam, symmetric
    if has_float64(state.device):
        return known_plan(draw(state, settings, labels, given, *rules), name, facts)
    host = state.cpu()
    labels, given = (None if t is None else t.cpu() for t in (labels, given))
    plan = known_plan(draw(host, settings, labels, given, *rules), name, facts)
    state.copy_(host)
    return plan.to(state.device)


def draw_rows(
    samples: Tensor,  # [B]
    partner: Tensor,  # [B]
    spatial: Sequence[int],
    state: Tensor,  # [4]
    settings: Tensor,  # [6]
    rules: Mapping[str, Any],
) -> MixPlan:
    """The rows of these samples in the plan of a larger batch, in which their partners are given.

    ``rules`` are those of :func:`draw_plan`. The pairing of the result is "self": where partners
    are found is for the caller to say.
    """
    options = PER[rules["per"]], TENSOR, rules["correct_lam"], rules["symmetric"]
    index, other = samples.int(), partner.int()
    drawn = draw(state, settings, None, other, len(samples), spatial, *options, index)
    return known_plan(drawn, "self", Facts(True, False, tuple(spatial)))
