"""The calibration error, the Brier score and the diagram of predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import integer, kind
from .diagram import ReliabilityDiagram, equal_mass, equal_width
from .inputs import rows_of


def expected_calibration_error(
    predictions: Tensor,
    labels: Tensor,
    bins: int = 15,
    norm: str = "l1",
    adaptive: bool = False,
    *,
    from_logits: bool | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """How far confidence and accuracy are apart, averaged over bins of confidence.

    ``ECE = Σ_b n_b/n · |accuracy_b - confidence_b|``

    Equivalent to::

        confidence, predicted = probabilities.max(1)
        right = (predicted == labels).float()
        b = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1), right=True)
        gaps = torch.zeros(bins + 2).index_add(0, b, right - confidence)
        gaps.abs().sum() / len(labels)

    Args:
        predictions: [B, K, d1, …], floating, probabilities or logits of K >= 2 classes; or of the
            shape of ``labels``, the probability (or logit) of class 1 of two.
        labels: int64 [B, d1, …], the true classes.
        bins: the number of bins, at least 1.
        norm: ``"l1"``; ``"l2"``, the root of Σ n_b/n · gap²; ``"max"``, the largest gap.
        adaptive: bins between quantiles of the confidences, with about as many rows each, instead
            of bins of equal width.
        from_logits: whether predictions are logits, of which the softmax (sigmoid) is taken. None:
            they are, where any value of this call lies outside [0, 1] or is NaN.
        ignore_index: a label whose rows do not count.

    Returns:
        A float32 scalar on the device of the predictions; NaN where no row counts, or where a
        confidence is NaN.

    Raises:
        TypeError, ValueError: for arguments of other types or shapes; for values outside [0, 1]
            with ``from_logits=False`` (on the CPU).
        IndexError: for labels out of range (on the CPU).

    Notes:
        Values equal those of torchmetrics 1.9 with its rules: bins are closed on the left;
        confidence 1 has a bin of its own; predictions of the shape of labels are binned by the
        probability of class 1, not by that of the likelier class. So the two routes of a problem
        of two classes differ. Give ``from_logits`` where you know it: a batch of logits that all
        lie in [0, 1] is taken for probabilities without it. Half types are computed in float32.
        Adaptive bins are those of scikit-learn's ``calibration_curve(strategy="quantile")``.
        Not differentiable; nothing waits for a GPU. Batches add up by
        :func:`reliability_diagram`.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599; adaptive
        bins: Nixon et al., Measuring Calibration in Deep Learning, 2019, arXiv 1904.01685.
    """
    diagram = reliability_diagram(
        predictions, labels, bins, adaptive, from_logits=from_logits, ignore_index=ignore_index
    )
    return diagram.error(norm)


def reliability_diagram(
    predictions: Tensor,
    labels: Tensor,
    bins: int = 15,
    adaptive: bool = False,
    *,
    from_logits: bool | None = None,
    ignore_index: int | None = None,
) -> ReliabilityDiagram:
    """Confidence and accuracy in bins of confidence: the data of a reliability diagram.

    ``accuracy_b = Σ_{i in b} [predicted_i = label_i] / n_b,  confidence_b = Σ_{i in b} p_i / n_b``

    Equivalent to::

        b = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1), right=True) - 1
        count = torch.bincount(b, minlength=bins + 1)
        accuracy = torch.bincount(b, right, bins + 1) / count

    Args:
        predictions, labels, bins, adaptive, from_logits, ignore_index: as
            :func:`expected_calibration_error`.

    Returns:
        A :class:`ReliabilityDiagram` on the device of the predictions, of ``bins + 1`` equal-width
        bins (the last has confidence 1 alone) or ``bins`` adaptive ones. Its ``error()`` is the
        calibration error, ``+`` joins batches, ``plot()`` draws it.

    Raises:
        TypeError, ValueError, IndexError: as :func:`expected_calibration_error`.

    Notes:
        Sums are float64, so that they count beyond 2^24 rows. On a GPU their order is not fixed;
        the rounding of float64 is all that this may change.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599.
    """
    bins = integer("bins", bins)
    if bins < 1:
        raise ValueError(f"bins: expected an int >= 1, got {bins}")
    if not isinstance(adaptive, bool):
        raise TypeError(f"adaptive: expected True or False, got {kind(adaptive)}")
    probabilities, labels, counts = rows_of(predictions, labels, from_logits, ignore_index)
    if probabilities.ndim == 1:
        confidence, right = probabilities, labels == 1
    else:
        confidence, predicted = probabilities.max(-1)
        right = predicted == labels
    binned = equal_mass if adaptive else equal_width
    return binned(confidence.float().contiguous(), right, counts, bins)


def brier_score(
    predictions: Tensor,
    labels: Tensor,
    *,
    from_logits: bool | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """The mean squared distance of probabilities from the true class; the smaller the better.

    ``mean_i Σ_k (p_ik - [k = label_i])²``, of two classes by one probability
    ``mean_i (p_i - label_i)²``

    Equivalent to::

        (probabilities - F.one_hot(labels, K)).square().sum(1).mean()

    Args:
        predictions, labels, from_logits, ignore_index: as :func:`expected_calibration_error`.

    Returns:
        A scalar in [0, 2], [0, 1] for predictions of the shape of labels; float64 for float64
        predictions, else float32. NaN where no row counts.

    Raises:
        TypeError, ValueError, IndexError: as :func:`expected_calibration_error`.

    Notes:
        Two columns of two classes thus have twice the score of one, as in Brier's definition and
        in scikit-learn with ``scale_by_half=False``. Not differentiable; nothing waits for a GPU.

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    probabilities, labels, counts = rows_of(predictions, labels, from_logits, ignore_index)
    if probabilities.ndim == 1:
        score = (probabilities - labels.to(probabilities.dtype)).square()
    else:
        kept = labels if counts is None else labels.where(counts, 0)
        one = torch.ones((), dtype=probabilities.dtype, device=labels.device)
        apart = probabilities.scatter_add(1, kept[:, None], -one.expand(len(labels), 1))
        score = apart.square().sum(1)
    if counts is None:
        return score.mean()
    return score.masked_fill(~counts, 0).sum() / counts.sum()
