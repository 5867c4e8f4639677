"""Long-tailed classes: Balanced-MixUp and Remix."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import kind
from ..label_weights.classes import remix_weights
from ..mixing import mix
from ..plan.draw import draw_plan
from ..plan.mix_plan import MixPlan
from ..target.mixed_target import MixedTarget
from .checks import check_draw, check_images, check_indices, check_labelled


def balanced_mixup(
    x: Tensor,  # [B, …]
    labels: Tensor,  # [B]
    balanced_x: Tensor,  # [B, …]
    balanced_labels: Tensor,  # [B]
    num_classes: int,
    *,
    state: Tensor,  # [4]
    alpha: float,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, MixedTarget]:
    """Balanced-MixUp: a batch as the data are, mixed with one in which classes are as likely.

    ``λ ~ Beta(α, 1)`` for the batch; ``(1-λ) x_i + λ b_i``, labels likewise.

    Equivalent to (with NumPy's generator, which gives other numbers)::

        lam = np.random.beta(alpha, 1)
        mixed = (1 - lam) * x + lam * balanced_x
        y, z = F.one_hot(labels, num_classes), F.one_hot(balanced_labels, num_classes)
        target = (1 - lam) * y + lam * z

    Args:
        x: [B, …], instance-sampled: each sample of the data set as likely.
        labels: int64 [B], their class indices.
        balanced_x: [B, …], class-balanced, from a second loader (``WeightedRandomSampler``).
        balanced_labels: int64 [B], their class indices.
        num_classes: K.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        alpha: α > 0; small ones add little of the balanced batch. The code has no default.
        label_smoothing: ε in [0, 1] of the target.

    Returns:
        The mixed batch, and its :class:`MixedTarget`.

    Raises:
        TypeError, ValueError: arguments that are not as described, batches that do not fit.
        IndexError: a label outside [0, K), on the CPU.

    Notes:
        Beta(α, 1) is u^(1/α) of a uniform u, which is drawn as Beta(1, 1). The second batch is read
        where it lies. Out of place; gradients flow to both batches.

    Source: Galdran et al., Balanced-MixUp, 2021, arXiv 2109.09850.
    """
    num_classes, label_smoothing = check_labelled(x, labels, num_classes, label_smoothing)
    check_images("balanced_x", balanced_x, x)
    if len(balanced_x) != len(x):
        raise ValueError(
            f"balanced_x: expected {len(x)} samples as in x, got {len(balanced_x)}; drop the last "
            "batch of both loaders (drop_last=True)"
        )
    check_indices("balanced_labels", balanced_labels, num_classes, len(x), x.device)
    alpha = check_draw(x, state, alpha)
    # Two samples, as one alone would be its own partner, and is not mixed.
    uniform = draw_plan(2, state=state, mixup_alpha=1.0).blend[:1, 0]
    own = (1.0 - uniform ** (1.0 / alpha)).expand(len(x))
    plan = MixPlan.per_sample(own, "self", pool=len(x))
    mixed = mix(x, plan, other=balanced_x)
    return mixed, MixedTarget(labels, balanced_labels, plan.weight, num_classes, label_smoothing)


def remix(
    x: Tensor,  # [B, …]
    labels: Tensor,  # [B]
    class_counts: Tensor,  # [K]
    *,
    state: Tensor,  # [4]
    alpha: float = 1.0,
    kappa: float = 3.0,
    tau: float = 0.5,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, MixedTarget]:
    """Remix: MixUp whose label is the rare class alone where it meets a frequent one.

    ``x_i ← λ x_i + (1-λ) x_j`` with ``λ ~ Beta(α, α)`` for the batch and partners j by shuffling;
    labels by the weights of :func:`remix_weights`.

    Equivalent to::

        plan = draw_plan(len(x), state=state, mixup_alpha=alpha, pairing="shuffle")
        partner_labels = labels[plan.partner]
        weight = remix_weights(plan.weight, labels, partner_labels, class_counts, kappa, tau)
        mixed = mix(x, plan)
        target = MixedTarget.from_labels(labels, plan.with_weight(weight), len(class_counts))

    Args:
        x: [B, …].
        labels: int64 [B], class indices.
        class_counts: [K], how many samples of each class the training data have.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        alpha: α.
        kappa: κ >= 1: how many times as frequent counts as frequent.
        tau: τ in [0, 1]: a frequent class with at least this share keeps it.
        label_smoothing: ε in [0, 1] of the target.

    Returns:
        The mixed batch, and its :class:`MixedTarget`.

    Raises:
        TypeError, ValueError: arguments that are not as described.
        IndexError: a label outside [0, K), on the CPU.

    Notes:
        Out of place; gradients flow to x.

    Source: Chou et al., Remix, 2020, arXiv 2007.03943.
    """
    if not isinstance(class_counts, Tensor) or class_counts.ndim != 1:
        raise TypeError(
            f"class_counts: expected a tensor [K] of numbers of samples, got {kind(class_counts)}; "
            "use torch.tensor(counts)"
        )
    checked = check_labelled(x, labels, len(class_counts), label_smoothing)
    alpha = check_draw(x, state, alpha)
    # Its κ and τ are checked before anything is drawn.
    no_weight, no_labels = torch.ones(0, 2, device=x.device), labels[:0]
    remix_weights(no_weight, no_labels, no_labels, class_counts, kappa, tau)
    plan = draw_plan(len(x), state=state, mixup_alpha=alpha, pairing="shuffle")
    partner_labels = labels[plan.partner.long()]
    weight = remix_weights(plan.weight, labels, partner_labels, class_counts, kappa, tau)
    target = MixedTarget.from_labels(labels, plan.with_weight(weight), *checked)
    return mix(x, plan), target
