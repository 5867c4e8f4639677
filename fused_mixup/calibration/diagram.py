"""Bins of confidences: what a reliability diagram shows, and the calibration error of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_choice
from ..plan.draw_checks import has_float64

NORMS = {"l1": 0, "l2": 1, "max": 2}


class ReliabilityDiagram:
    """Confidence and accuracy in bins; made by :func:`reliability_diagram`.

    ``error("l1") = Σ_b n_b/n · |accuracy_b - confidence_b|``

    Equal-width bins hold what was seen of a data set: ``a + b`` is the diagram of two batches
    together. ``sums`` may be added over processes in place (``all_reduce``).

    Args:
        sums: float64 [3, bins] (float32 on a device without float64): for each bin its rows, the
            sum of their confidences, and the number of those that are right.
        edges: float32 or float64 [bins + 1], the edges of the bins.
        adaptive: whether the edges were chosen by the data.

    Attributes:
        count: [bins], the rows of each bin.
        confidence: [bins], their mean confidence; NaN in an empty bin.
        accuracy: [bins], the share of them that is right; NaN in an empty bin.
    """

    def __init__(self, sums: Tensor, edges: Tensor, adaptive: bool = False) -> None:
        self.sums = sums
        self.edges = edges
        self.adaptive = adaptive

    @property
    def count(self) -> Tensor:
        return self.sums[0]

    @property
    def confidence(self) -> Tensor:
        return self.sums[1] / self.sums[0]

    @property
    def accuracy(self) -> Tensor:
        return self.sums[2] / self.sums[0]

    def error(self, norm: str = "l1") -> Tensor:
        """The calibration error: a float32 scalar, NaN where no row counts.

        Args:
            norm: ``"l1"``, the expected calibration error; ``"l2"``, the root of the mean square;
                ``"max"``, the largest gap of a bin.
        """
        chosen = check_choice("norm", norm, NORMS)
        count, confident, right = self.sums.unbind()
        total = count.sum()
        gap = (right - confident).abs()
        if chosen == NORMS["l1"]:
            error = gap.sum() / total
        elif chosen == NORMS["l2"]:
            # The mean gap of a bin, squared, times its rows; an empty bin has a gap of 0.
            error = ((gap * gap / count.clamp_min(1)).sum() / total).sqrt()
        else:
            error = (gap / count.clamp_min(1)).amax() + 0 / total
        return error.float()

    def __add__(self, other: ReliabilityDiagram) -> ReliabilityDiagram:
        if not isinstance(other, ReliabilityDiagram):
            return NotImplemented
        if self.adaptive or other.adaptive:
            raise ValueError(
                "+: expected diagrams of equal-width bins, got adaptive ones, whose edges differ "
                "from batch to batch; collect the predictions and bin them once"
            )
        if self.sums.shape != other.sums.shape:
            raise ValueError(
                f"+: expected the same bins, got {self.sums.shape[1]} and {other.sums.shape[1]}"
            )
        return ReliabilityDiagram(self.sums + other.sums, self.edges)

    def plot(self, ax: Any = None) -> Any:
        """Draw the diagram with matplotlib and return its axes; this reads the values.

        Args:
            ax: axes to draw into; by default those of a new figure (``.figure`` of the result).
        """
        if ax is None:
            try:
                from matplotlib.figure import Figure  # no window, no state of pyplot
            except ImportError:
                raise ImportError(
                    "plot: expected matplotlib, which is not installed; pip install matplotlib"
                ) from None
            ax = Figure(figsize=(4.2, 4.2), layout="constrained").subplots()
        edges = self.edges.tolist()
        accuracy = self.accuracy.nan_to_num(0.0).tolist()
        confidence = self.confidence.nan_to_num(0.0).tolist()
        shown = self.count.gt(0).tolist()
        # A bin of one value (confidence 1) has no width: it is drawn as wide as a line.
        width = [max(b - a, 0.008) for a, b in pairwise(edges)]
        left = [min(a, 1 - w) for a, w in zip(edges[:-1], width, strict=True)]
        ax.bar(left, accuracy, width, align="edge", color="#4c78a8", edgecolor="white")
        dots = [(c, a) for c, a, s in zip(confidence, accuracy, shown, strict=True) if s]
        if dots:
            x, y = zip(*dots, strict=True)
            ax.plot(x, y, "o", color="#f58518", label="mean confidence")
        ax.plot([0, 1], [0, 1], "--", color="#57606a", linewidth=1, label="calibrated")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        ax.set_title(f"calibration error {float(self.error()):.3f}")
        ax.legend(loc="upper left", frameon=False)
        return ax

    def __repr__(self) -> str:
        kind = "adaptive" if self.adaptive else "equal-width"
        return f"ReliabilityDiagram({self.sums.shape[1]} {kind} bins on {self.sums.device})"


def equal_width(confidence: Tensor, right: Tensor, counts: Tensor | None, bins: int) -> Any:
    """The diagram of bins [k/bins, (k+1)/bins), and one more of confidence 1 alone."""
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    # A NaN comes behind the last edge, and one confidence that is out of range to its nearest bin.
    index = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, bins)
    edges = torch.cat([edges, edges[-1:]])
    return ReliabilityDiagram(_sums(index, confidence, right, counts, bins + 1), edges)


def equal_mass(confidence: Tensor, right: Tensor, counts: Tensor | None, bins: int) -> Any:
    """The diagram of bins between quantiles, closed on the right, so that equals stand together.

    Edge k lies between the order statistics j and j + 1, j = k (n - 1) div bins, or at j. Between
    the two lies no confidence, so that j serves as the edge.
    """
    if confidence.numel() == 0:
        empty = confidence.new_zeros(3, bins, dtype=_wide(confidence))
        return ReliabilityDiagram(empty, confidence.new_full((bins + 1,), torch.nan), True)
    held = confidence if counts is None else confidence.masked_fill(~counts, torch.inf)
    ordered = held.sort().values
    n = confidence.numel() if counts is None else counts.sum()
    k = torch.arange(bins + 1, device=confidence.device)
    edges = ordered[(k * (n - 1) // bins).clamp_min(0)]
    if counts is not None:
        edges = edges.where(counts.any(), torch.nan)
    index = torch.bucketize(confidence, edges[1:-1]).clamp_max(bins - 1)
    return ReliabilityDiagram(_sums(index, confidence, right, counts, bins), edges, True)


def _sums(
    index: Tensor, confidence: Tensor, right: Tensor, counts: Tensor | None, bins: int
) -> Tensor:
    dtype = _wide(confidence)
    kept = torch.ones_like(index, dtype=dtype) if counts is None else counts.to(dtype)
    sure = confidence if counts is None else confidence.masked_fill(~counts, 0)
    rows = torch.stack([kept, sure.to(dtype), right.to(dtype) * kept])
    sums = torch.zeros(3, bins, dtype=dtype, device=index.device)
    return sums.scatter_add_(1, index.expand(3, -1), rows)


def _wide(t: Tensor) -> torch.dtype:
    """float32 would stop counting at 2^24 rows of a bin: a batch of class maps has more."""
    return torch.float64 if has_float64(t.device) else torch.float32
