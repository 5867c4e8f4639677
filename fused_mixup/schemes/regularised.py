"""RegMixup: MixUp as a regulariser beside the clean loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mixing import mix
from ..plan.draw import draw_plan
from ..target.label_rows import one_label_weight
from ..target.mixed_target import MixedTarget
from .checks import check_draw, check_labelled


def regmixup(
    x: Tensor,  # [B, …]
    labels: Tensor,  # [B]
    num_classes: int,
    *,
    state: Tensor,  # [4]
    alpha: float = 20.0,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, MixedTarget]:
    """RegMixup: the clean batch and behind it its mix, for one forward and one loss.

    ``λ ~ Beta(α, α)`` for the batch, near 1/2; partners j by shuffling. The mean loss of the 2B
    rows is ``½ (CE(x_i, y_i) + CE(λ x_i + (1-λ) x_j, λ y_i + (1-λ) y_j))``.

    Equivalent to (with NumPy's generator, which gives other numbers)::

        lam, j = np.random.beta(alpha, alpha), torch.randperm(len(x))
        both = torch.cat((x, lam * x + (1 - lam) * x[j]))
        y = F.one_hot(labels, num_classes)
        target = torch.cat((y, lam * y + (1 - lam) * y[j]))

    Args:
        x: [B, …], float16, bfloat16, float32, float64 or uint8.
        labels: int64 [B], class indices.
        num_classes: K.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        alpha: α; the default is the paper's.
        label_smoothing: ε in [0, 1] of the target.

    Returns:
        [2B, …], and a :class:`MixedTarget` of 2B rows. ``soft_target_cross_entropy(model(both),
        target)`` is the loss.

    Raises:
        TypeError, ValueError: arguments that are not as described.
        IndexError: a label outside [0, K), on the CPU.

    Notes:
        The clean half is written by the pass that mixes: no concatenation. Gradients flow to x.
        The model sees batches of 2B; batch normalisation sees both halves together, as in the
        paper.

    Source: Pinto et al., RegMixup, 2022, arXiv 2206.14502.
    """
    num_classes, label_smoothing = check_labelled(x, labels, num_classes, label_smoothing)
    alpha = check_draw(x, state, alpha)
    plan = draw_plan(len(x), state=state, mixup_alpha=alpha, pairing="shuffle")
    mixed = MixedTarget.from_labels(labels, plan, num_classes, label_smoothing)
    clean = one_label_weight(len(x)).to(plan.weight.device)
    target = MixedTarget(
        torch.cat((labels, mixed.labels)),
        torch.cat((labels, mixed.partner_labels)),
        torch.cat((clean, plan.weight)),
        num_classes,
        label_smoothing,
    )
    return mix(x, plan, clean=True), target
