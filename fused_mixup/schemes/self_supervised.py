"""Un-Mix: mixed images in self-supervised learning, which has no labels to mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..arguments import kind
from ..mixing import mix
from ..plan.draw import draw_plan
from ..plan.draw_checks import check_probability
from ..plan.mix_plan import MixPlan
from .checks import check_draw, check_images


def unmix(
    x: Tensor,  # [B, C, H, W]
    *,
    state: Tensor,  # [4]
    mixup_prob: float = 0.5,
    alpha: float = 1.0,
) -> tuple[Tensor, MixPlan]:
    """Un-Mix: a batch mixed with itself reversed, by MixUp or by a box, one λ for all.

    ``λ ~ Beta(α, α)``; with probability p ``λ x_i + (1-λ) x_{B-1-i}``, else a box of x_{B-1-i} in
    x_i, and λ the share that is left.

    Equivalent to (with NumPy's generator, which gives other numbers)::

        lam, reverse = np.random.beta(alpha, alpha), x.flip(0)
        if np.random.rand() < mixup_prob:
            mixed = lam * x + (1 - lam) * reverse
        else:
            box, lam = cutmix_box(x.shape[2:], lam, np.random.randint(x.shape[2:]))
            mixed = mix(x, MixPlan.uniform(len(x), "flip", lam, box))

    Args:
        x: [B, C, H, W], the view that the trained encoder gets.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        mixup_prob: p, the probability of MixUp in place of a box.
        alpha: α.

    Returns:
        The mixed batch, and its plan, for :func:`unmix_loss`.

    Raises:
        TypeError, ValueError: arguments that are not as described; no spatial dims where boxes may
            be drawn.

    Notes:
        Out of place and differentiable.

    Source: Shen et al., Un-Mix, 2020, arXiv 2003.05438.
    """
    check_images("x", x)
    alpha = check_draw(x, state, alpha)
    mixup_prob = check_probability("mixup_prob", mixup_prob)
    modes: dict[str, Any] = {"mixup_alpha": alpha}
    if mixup_prob < 1.0:
        modes |= {"cutmix_alpha": alpha, "switch_prob": 1.0 - mixup_prob}
        if not 3 <= x.ndim <= 5:
            raise ValueError(
                f"x: expected [B, C, …] with 1 to 3 sizes for boxes, got {list(x.shape)}; set "
                "mixup_prob=1"
            )
    spatial = x.shape[2:] if mixup_prob < 1.0 else ()
    plan = draw_plan(len(x), spatial, state=state, **modes)
    return mix(x, plan), plan


def unmix_loss(
    criterion: Callable[[Any, Any], Tensor],
    clean: Tensor,  # [B, …]
    mixed: Tensor,  # [B, …]
    keys: Any,
    plan: MixPlan,
) -> Tensor:
    """The loss of Un-Mix: the clean one, and the mixed one in both orders by their shares.

    ``L(clean, keys) + λ L(mixed, keys) + (1-λ) L(mixed reversed, keys)``

    Equivalent to::

        lam = plan.weight[0, 0]
        (criterion(clean, keys) + lam * criterion(mixed, keys)
         + (1 - lam) * criterion(mixed.flip(0), keys))

    Args:
        criterion: called as ``criterion(features, keys)``; a scalar loss, such as the InfoNCE of
            MoCo with its queue, or the one of BYOL.
        clean: [B, …], the features of the unmixed view.
        mixed: [B, …], those of the batch that :func:`unmix` mixed.
        keys: what the criterion compares them with, of the other view: row i belongs to sample i.
        plan: the plan that :func:`unmix` gave.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: a plan of another kind or size.

    Notes:
        Reversing the features is reversing the images, for an encoder that treats samples alike:
        one forward of the mixed batch serves both orders. λ stays on its device.

    Source: Shen et al., Un-Mix, 2020, arXiv 2003.05438.
    """
    if not isinstance(plan, MixPlan):
        raise TypeError(f"plan: expected the MixPlan that unmix gave, got {kind(plan)}")
    for name, features in (("clean", clean), ("mixed", mixed)):
        if not isinstance(features, Tensor) or not features.is_floating_point():
            raise TypeError(f"{name}: expected floating features [B, …], got {kind(features)}")
        if features.ndim < 1 or len(features) != plan.batch_size:
            raise ValueError(
                f"{name}: expected features [{plan.batch_size}, …] as in plan, got "
                f"{list(features.shape)}"
            )
    if plan.pairing != "flip" or not plan.batch_size:
        raise ValueError(
            f"plan: expected one of unmix, which pairs a batch with itself reversed, got pairing "
            f"{plan.pairing!r} and {plan.batch_size} samples"
        )
    own, other = plan.weight[0].to(mixed.device).unbind()
    backwards = criterion(mixed.flip(0), keys)
    return criterion(clean, keys) + own * criterion(mixed, keys) + other * backwards
