"""Label weights by how many samples the two classes have."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_number
from ..tracing import has_host_values
from .checks import check_batch, check_floats, check_indices, check_integers, check_near, columns


def remix_weights(
    weight: Tensor,  # [B, 2]
    labels: Tensor,  # [B]
    partner_labels: Tensor,  # [B]
    class_counts: Tensor,  # [K]
    kappa: float = 3.0,
    tau: float = 0.5,
) -> Tensor:
    """Remix: the label of a rare class stands alone where it is mixed with a frequent one.

    λ, the first weight, becomes 0 where ``n_i ≥ κ n_p`` and ``λ < τ``, 1 where ``κ n_i ≤ n_p`` and
    ``1 - λ < τ``, with n the number of samples of the label's class; else it stays.

    Equivalent to (of one sample)::

        if n_i / n_p >= kappa and lam < tau:
            lam = 0
        elif n_i / n_p <= 1 / kappa and 1 - lam < tau:
            lam = 1
        lam, 1 - lam

    Args:
        weight: float32 [B, 2], the weights of the images, as of a plan.
        labels: integers [B] in [0, K).
        partner_labels: the same of the partners.
        class_counts: [K], how many samples of each class there are.
        kappa: κ >= 1.
        tau: τ in [0, 1].

    Returns:
        float32 [B, 2]: (λ, 1 - λ); rows that stay have the weights that they had.

    Raises:
        TypeError, ValueError: shapes or numbers that do not fit.
        IndexError: a label outside [0, K), looked at on the CPU alone.

    Notes:
        The products are compared in float32: they are exact for counts up to 2²⁴ / κ.

    Source: Chou et al., Remix, 2020, arXiv 2007.03943.
    """
    kappa, tau = check_number("kappa", kappa), check_number("tau", tau)
    if not kappa >= 1.0:
        raise ValueError(f"kappa: expected a number >= 1, got {kappa}")
    if not 0.0 <= tau <= 1.0:
        raise ValueError(f"tau: expected a number in [0, 1], got {tau}")
    own, other, n, m = _inputs(weight, labels, partner_labels, class_counts)
    if has_host_values(class_counts) and not bool((class_counts >= 0).all()):
        raise ValueError("class_counts: expected numbers of samples, got negative ones or NaN")
    some = (n > 0) | (m > 0)  # of two classes without samples neither is the rare one
    none = some & (n >= kappa * m) & (own < tau)
    whole = some & (n * kappa <= m) & (1.0 - own < tau) & ~none
    first = torch.where(none, 0.0, torch.where(whole, 1.0, own))
    second = torch.where(none, 1.0, torch.where(whole, 0.0, other))
    return torch.stack((first, second), 1)


def mamix_weights(
    weight: Tensor,  # [B, 2]
    labels: Tensor,  # [B]
    partner_labels: Tensor,  # [B]
    class_counts: Tensor,  # [K]
    power: float = -0.25,
) -> Tensor:
    """MAMix: labels change over nearer to the frequent class, so that the rare one has more room.

    With μ, the second weight, and ``c = k_i / (k_i + k_p)``, ``k = n^power``, n the number of
    samples of the label's class: λ = 1 - μ / (2c) for μ ≤ c, else (1 - μ) / (2 (1 - c)).

    Equivalent to (of one sample)::

        c = n_i**power / (n_i**power + n_p**power)
        lam = 1 - mu / (2 * c) if mu <= c else (1 - mu) / (2 * (1 - c))
        lam, 1 - lam

    Args:
        weight: float32 [B, 2], the weights of the images, as of a plan: (1 - μ, μ).
        labels: integers [B] in [0, K).
        partner_labels: the same of the partners.
        class_counts: [K], how many samples of each class there are, >= 1.
        power: of the counts.

    Returns:
        float32 [B, 2]: (λ, 1 - λ).

    Raises:
        TypeError, ValueError: shapes or numbers that do not fit.
        IndexError: a label outside [0, K), looked at on the CPU alone.

    Source: Cheng et al., MAMix, 2022, whose code is in imbalanced-DL.
    """
    power = check_number("power", power)
    _, mu, n, m = _inputs(weight, labels, partner_labels, class_counts)
    if has_host_values(class_counts) and not bool((class_counts >= 1).all()):
        raise ValueError("class_counts: expected numbers of 1 and more; count empty classes as 1")
    k = n**power
    c = k / (k + m**power)
    share = torch.where(mu <= c, 1.0 - mu / (2.0 * c), (1.0 - mu) / (2.0 * (1.0 - c)))
    return torch.stack((share, 1.0 - share), 1)


def _inputs(
    weight: Tensor, labels: Tensor, partner_labels: Tensor, class_counts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both weights, and the numbers of samples of both labels as float32."""
    weight = check_floats("weight", weight, "[B, 2]", (2,))
    if weight.shape[1] != 2:
        raise ValueError(f"weight: expected shape [B, 2], got {list(weight.shape)}")
    labels = check_integers("labels", labels, (len(weight),))
    partner_labels = check_integers("partner_labels", partner_labels, (len(weight),))
    check_near("weight", weight, labels.device, "labels")
    if not isinstance(class_counts, Tensor) or class_counts.ndim != 1:
        raise TypeError(
            "class_counts: expected a tensor [K] of numbers of samples; use torch.tensor(counts)"
        )
    check_batch("partner_labels", partner_labels, len(labels), "labels")
    check_indices("labels", labels, len(class_counts))
    check_indices("partner_labels", partner_labels, len(class_counts))
    counts = class_counts.to(labels.device).float()
    own, other = columns(weight.float(), labels.device)
    return own, other, counts[labels.long()], counts[partner_labels.long()]
