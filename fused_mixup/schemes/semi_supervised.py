"""MixMatch: labelled and unlabelled samples mixed with each other."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_number, floats, kind
from ..dtypes import arithmetic
from ..memory import recycled_tensor
from ..mixing import mix, mix_
from ..plan.draw import draw_plan
from ..target.labels import mix_labels
from .checks import check_draw, check_images, check_indices


class MixMatchBatch(NamedTuple):
    """What :func:`mixmatch` gives: both halves and their soft labels."""

    x: Tensor  # [B, …]
    labels: Tensor  # [B, K]
    unlabelled: Tensor  # [U, …]
    guesses: Tensor  # [U, K]


def sharpen(probabilities: Tensor, temperature: float = 0.5) -> Tensor:
    """MixMatch's sharpening of guessed labels: a lower temperature, nearer to one class.

    ``q_k = p_k^(1/T) / Σ_j p_j^(1/T)``

    Equivalent to::

        q = probabilities ** (1 / temperature)
        q / q.sum(1, keepdim=True)

    Args:
        probabilities: floats [U, K, …] >= 0: mean predictions over the augmentations of a sample.
        temperature: T > 0, finite.

    Returns:
        A tensor like ``probabilities``, without a gradient.

    Raises:
        TypeError, ValueError: no floats, fewer than two dims, or a temperature that is not in
            (0, ∞).

    Notes:
        It works on logarithms, so that small probabilities to a high power stay numbers. Half types
        are computed in float32.

    Source: Berthelot et al., MixMatch, 2019, arXiv 1905.02249.
    """
    if not isinstance(probabilities, Tensor) or not probabilities.is_floating_point():
        raise TypeError(f"probabilities: expected floats [U, K], got {kind(probabilities)}")
    if probabilities.ndim < 2:
        raise ValueError(
            f"probabilities: expected shape [U, K, …], got {list(probabilities.shape)}"
        )
    temperature = check_number("temperature", temperature)
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature}")
    temperature = min(max(temperature, 1e-30), 1e30)  # float32 has it, and the limits are reached
    logs = probabilities.detach().to(arithmetic(probabilities.dtype)).log()
    if logs.numel():
        logs = logs - logs.amax(1, keepdim=True)  # so that the largest never overflows
    return (logs / temperature).softmax(1).to(probabilities.dtype)


def mixmatch(
    x: Tensor,  # [B, …]
    labels: Tensor,  # [B] or [B, K]
    unlabelled: Tensor,  # [U, …]
    guesses: Tensor,  # [U, K]
    *,
    state: Tensor,  # [4]
    alpha: float = 0.75,
) -> MixMatchBatch:
    """MixMatch's mix: each sample of both halves with a random one of both, itself dominant.

    ``λ_i ~ Beta(α, α)``, ``λ'_i = max(λ_i, 1-λ_i)``; with W the shuffled whole,
    ``out_i = λ'_i all_i + (1-λ'_i) W_i``, samples and soft labels alike.

    Equivalent to (with NumPy's generator, which gives other numbers)::

        both, soft = torch.cat((x, unlabelled)), torch.cat((one_hot(labels), guesses))
        lam = torch.from_numpy(np.random.beta(alpha, alpha, len(both)))
        lam, w = torch.maximum(lam, 1 - lam), torch.randperm(len(both))
        view = lam.view(-1, *[1] * (x.ndim - 1))
        both = view * both + (1 - view) * both[w]
        soft = lam[:, None] * soft + (1 - lam[:, None]) * soft[w]
        both.split((len(x), len(unlabelled))), soft.split((len(x), len(unlabelled)))

    Args:
        x: [B, …], the labelled samples.
        labels: int64 [B], class indices, or floats [B, K].
        unlabelled: [U, …], as x; all augmentations of the unlabelled samples, one behind another.
        guesses: floats [U, K], their guessed labels, after :func:`sharpen`.
        state: int64 [4] of :func:`plan_state`; advanced by one step.
        alpha: α; the paper has 0.75.

    Returns:
        A :class:`MixMatchBatch`: x [B, …] and unlabelled [U, …], mixed, with soft labels [B, K] and
        [U, K] in the dtype of ``guesses``.

    Raises:
        TypeError, ValueError: halves that do not fit each other, labels of another size.
        IndexError: a label outside [0, K), on the CPU.

    Notes:
        The halves are views of one tensor of B + U samples. Gradients flow to x and ``unlabelled``,
        not to labels. The loss is the caller's: cross-entropy on the first, squared error of the
        probabilities on the second.

    Source: Berthelot et al., MixMatch, 2019, arXiv 1905.02249.
    """
    check_images("x", x)
    check_images("unlabelled", unlabelled, x)
    guesses = floats("guesses", guesses)
    if guesses.ndim != 2 or len(guesses) != len(unlabelled) or guesses.device != x.device:
        raise ValueError(
            f"guesses: expected soft labels [{len(unlabelled)}, K] on {x.device}, one row for each "
            f"sample of unlabelled, got {kind(guesses)}"
        )
    soft = _soft_labels(labels, guesses, x)
    alpha = check_draw(x, state, alpha)
    sizes = len(x), len(unlabelled)
    both = _joined(x, unlabelled)
    plan = draw_plan(
        sum(sizes), state=state, mixup_alpha=alpha, per="sample", pairing="shuffle", symmetric=True
    )
    # The joined batch is nobody else's, so that no second copy of it is needed.
    both = mix(both, plan) if both.requires_grad else mix_(both, plan)
    soft = mix_labels(torch.cat((soft, guesses)), plan)
    images, labels_of = both.split(sizes), soft.split(sizes)
    return MixMatchBatch(images[0], labels_of[0], images[1], labels_of[1])


def _joined(x: Tensor, unlabelled: Tensor) -> Tensor:
    """Both in one tensor of its own, on the CPU in the memory of an earlier one where there is."""
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or unlabelled.requires_grad)
    lie = x.is_cpu and x.is_contiguous() and unlabelled.is_contiguous()
    if torch.compiler.is_compiling() or needs_grad or not lie:
        return torch.cat((x, unlabelled))
    shape = torch.Size((len(x) + len(unlabelled), *x.shape[1:]))
    return torch.cat((x, unlabelled), out=recycled_tensor(shape, x.dtype))


def _soft_labels(labels: Tensor, guesses: Tensor, x: Tensor) -> Tensor:
    """Labels [B, K] like the guesses."""
    classes = guesses.shape[1]
    if isinstance(labels, Tensor) and labels.is_floating_point():
        labels = floats("labels", labels)
        if labels.shape != (len(x), classes) or labels.device != x.device:
            raise ValueError(
                f"labels: expected soft labels [{len(x)}, {classes}] on {x.device} as guesses has "
                f"classes, got {kind(labels)}"
            )
        return labels.to(guesses.dtype)
    check_indices("labels", labels, classes, len(x), x.device)
    return F.one_hot(labels, classes).to(guesses.dtype)
