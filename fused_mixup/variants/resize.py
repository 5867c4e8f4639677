"""Plans of ResizeMix, drawn where the batch lives: :func:`draw_resizemix`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import check_choice, integer_tuple
from ..codes import RESAMPLES, RESIZEMIX, VARIANT_NUMBERS
from ..collage.layouts import resize_into
from ..plan.draw_checks import check_alpha, check_probability, check_state
from ..plan.rectangles import RectanglePlan
from .draw import drawn
from .numbers import check_range


def draw_resizemix(
    batch_size: int,
    size: Sequence[int],
    *,
    state: Tensor,  # [4]
    scale: Sequence[float] = (0.1, 0.8),
    alpha: float | None = None,
    prob: float = 1.0,
    per: str = "batch",
    pairing: str | Tensor = "flip",
    resample: str = "nearest",
    labels: Tensor | None = None,  # [B]
) -> RectanglePlan:
    """Draw where the whole partner goes, resized by τ, on the device of ``state``: ResizeMix.

    ``τ ~ U(scale)``, or with ``alpha`` τ ~ Beta(α, α) where it lies in ``scale``; the box of sides
    τH, τW has a uniform centre and is shifted inside. Labels are weighed by its area.

    Equivalent to (one row, with NumPy's generator, which gives other numbers)::

        tau = rng.uniform(*scale)
        sides = [int(tau * n) for n in size]
        start = [min(max(rng.integers(n) - s // 2, 0), n - s) for n, s in zip(size, sides)]
        box = *start, *(a + s for a, s in zip(start, sides))
        plan = resize_into(batch_size, size, box, partner)

    Args:
        batch_size: B, up to 65,536.
        size: (H, W) of the images, up to 65,536 each.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        scale: the bounds of τ, in [0, 1].
        alpha: α of τ; None for a uniform τ, as in the paper.
        prob: probability that a row is mixed at all.
        per, pairing, labels: as in :func:`draw_plan`.
        resample: as in :class:`RectanglePlan`; ``"nearest"`` as in the paper's code.

    Returns:
        A :class:`RectanglePlan` of one rectangle for each sample, for :func:`mix_rectangles`.

    Raises:
        TypeError, ValueError, IndexError: as :func:`draw_variants`.

    Notes:
        Deterministic: docs/drawing.md specifies every bit. The source of a pixel is that of
        ``interpolate(size=…)``.

    Source: Qin et al., ResizeMix, 2020, arXiv 2012.11101.
    """
    check_choice("resample", resample, RESAMPLES)
    size = integer_tuple("size", size)  # once: what it iterates over may change
    low, high = check_range("scale", scale, 0.0, 1.0)
    tau = 0.0 if alpha is None else check_alpha("alpha", alpha)
    record = [1.0, tau, low, high, *[0.0] * (VARIANT_NUMBERS - 4)]
    numbers = [check_probability("prob", prob), *record]
    check_state(state)
    settings = torch.tensor(numbers, dtype=torch.float64, device="cpu")
    rules = labels, per, pairing, True, False
    d = drawn(batch_size, size, state, settings, [RESIZEMIX], 0, *rules)
    box, partner, weight = (t.to(state.device) for t in (d.resize_box, d.partner, d.weight))
    return resize_into(batch_size, size, box, partner, resample=resample, weight=weight)
