"""Mixup inference: predictions averaged over mixes with known samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..arguments import check_choice, integer, kind
from ..dtypes import arithmetic
from ..mixing import mix
from ..plan.checks import check_lam
from ..plan.mix_plan import MixPlan
from .checks import check_images, check_indices

# Where the partners are taken from, and the paper's number of draws.
DRAWS = {"other": 30, "predicted": 10}


def mixup_inference(
    model: Callable[[Tensor], Tensor],
    x: Tensor,  # [B, …]
    pool: Tensor,  # [M, …]
    pool_labels: Tensor,  # [M]
    *,
    partners: str = "other",
    lam: float = 0.5,
    draws: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mixup inference: mean probabilities of a sample mixed with samples of a pool.

    ``p_i = 1/N Σ_n softmax f(λ x_i + (1-λ) s_in)``, with s_in uniform among the samples of the pool
    whose label is another than the predicted one (``"other"``, the paper's MI-OL), or the predicted
    one (``"predicted"``, MI-PL).

    Equivalent to (one sample, with another generator)::

        predicted = model(x).argmax(1)
        pool = pool[pool_labels != predicted]  # == for "predicted"
        drawn = pool[torch.randint(len(pool), (draws,))]
        model(lam * x + (1 - lam) * drawn).softmax(1).mean(0)

    Args:
        model: gives logits [B, K] of a batch; a module in eval mode.
        x: [B, …], the samples to classify.
        pool: [M, …], samples like them with known labels, such as some of the training data.
        pool_labels: int64 [M] in [0, K).
        partners: ``"other"`` or ``"predicted"``.
        lam: λ, the weight of the sample itself.
        draws: N; by default the paper's, 30 for ``"other"`` and 10 for ``"predicted"``.
        generator: of the draws, on the device of x; by default PyTorch's.

    Returns:
        Probabilities [B, K]; float32, or float64 for float64 logits.

    Raises:
        TypeError, ValueError: arguments that are not as described, a model in training mode, a
            pool without a partner for some sample.
        IndexError: a label of the pool outside [0, K), on the CPU.

    Notes:
        The model runs N + 1 times on batches of B. Partners are read where they lie in the pool.
        One number is read back, whether each sample has partners. Gradients flow to x and the pool
        (an adaptive attack needs them): without use for them call it under ``torch.no_grad()``.

    Source: Pang et al., Mixup Inference, 2020, arXiv 1909.11515.
    """
    if not callable(model):
        raise TypeError(f"model: expected a function of a batch, got {kind(model)}")
    if getattr(model, "training", False):
        raise ValueError("model: expected it in eval mode, got training mode; use model.eval()")
    check_images("x", x)
    check_images("pool", pool, x)
    usual = check_choice("partners", partners, DRAWS)
    draws = usual if draws is None else integer("draws", draws)
    if draws < 1:
        raise ValueError(f"draws: expected at least 1, got {draws}")
    lam = check_lam(lam)
    check_indices("pool_labels", pool_labels, 2**31, len(pool), pool.device)
    logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        raise ValueError(f"model: expected logits [{len(x)}, K] from it, got {kind(logits)}")
    check_indices("pool_labels", pool_labels, logits.shape[1], len(pool), pool.device)
    rows = _drawn_rows(logits, pool_labels, partners == "other", draws, generator)
    total = torch.zeros_like(logits, dtype=arithmetic(logits.dtype))
    for partner in rows.to(torch.int32):
        mixed = mix(x, MixPlan.uniform(len(x), partner, lam, pool=len(pool)), other=pool)
        total = total + model(mixed).softmax(1, dtype=total.dtype)
    return total / draws


def _drawn_rows(
    logits: Tensor,  # [B, K]
    labels: Tensor,  # [M]
    other: bool,
    draws: int,
    generator: torch.Generator | None,
) -> Tensor:
    """int64 [N, B]: rows of the pool, uniform among those that each sample may be mixed with.

    The pool is sorted by class, so that a class is a range, and no table [B, M] is made.
    """
    predicted = logits.detach().argmax(1)
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels, minlength=logits.shape[1])
    own = counts[predicted]
    start = (counts.cumsum(0) - counts)[predicted]
    choices = len(labels) - own if other else own
    missing = int((choices == 0).sum())
    if missing:
        which = "another class than the predicted one" if other else "the predicted class"
        raise ValueError(
            f"pool: expected samples of {which}, got none for {missing} of {len(logits)} samples; "
            "give a pool with several samples of each class"
        )
    u = torch.rand(draws, len(logits), generator=generator, device=logits.device)
    at = (u * choices).long().minimum(choices - 1)  # the product may round up
    at = torch.where(at >= start, at + own, at) if other else at + start
    return order[at]
