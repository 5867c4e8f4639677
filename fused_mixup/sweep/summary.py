"""What the runs say of each α: means, spreads over seeds, and where mixing under-fits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .records import Record

SHOWN = ("train_accuracy", "val_accuracy", "val_loss", "val_ece")


class Spread(NamedTuple):
    mean: float
    deviation: float  # of the seeds; 0 for one

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f}"


def spread(values: Iterable[float]) -> Spread | None:
    """Mean and standard deviation; None for no values."""
    numbers = list(values)
    if not numbers:
        return None
    return Spread(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else 0.0)


def by_alpha(records: Sequence[Record]) -> dict[float, list[Record]]:
    found: dict[float, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["alpha"], r["seed"])):
        found.setdefault(record["alpha"], []).append(record)
    return found


def measured(records: Iterable[Record], name: str) -> list[float]:
    return [record[name] for record in records if record[name] is not None]


def table(records: Sequence[Record]) -> str:
    head = ["alpha", "runs", *(name.replace("_", " ") for name in SHOWN)]
    rows = [head]
    for alpha, runs in by_alpha(records).items():
        spreads = (spread(measured(runs, name)) for name in SHOWN)
        cells = [str(s) if s is not None else "diverged" for s in spreads]
        rows.append([f"{alpha:g}", str(len(runs)), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(lines)


def differences(runs: Sequence[Record], base: Sequence[Record], name: str) -> tuple[float, float]:
    """Mean of the differences to the runs of the same seeds, and its standard error."""
    of_seed = {record["seed"]: record[name] for record in base if record[name] is not None}
    pairs = [
        record[name] - of_seed[record["seed"]]
        for record in runs
        if record[name] is not None and record["seed"] in of_seed
    ]
    found = spread(pairs)
    if found is None:
        return math.nan, math.nan
    return found.mean, found.deviation / math.sqrt(len(pairs))


def warnings_of(records: Sequence[Record]) -> list[str]:
    """A line for each α with which training diverged or under-fits.

    It under-fits where the model fits the unmixed training data less well than without mixing, by
    more than the standard error over seeds, and validation is not better by more than its own. The
    accuracies are compared: soft targets raise the loss of a good model too.
    """
    groups = by_alpha(records)
    lines = []
    for alpha, runs in groups.items():
        lost = sum(record["train_loss"] is None for record in runs)
        if lost:
            lines.append(
                f"warning: alpha {alpha:g}: {lost} of {len(runs)} runs diverged, and are left out"
            )
    base = groups.pop(0.0, [])
    for alpha, runs in groups.items():
        train, train_error = differences(runs, base, "train_accuracy")
        val, val_error = differences(runs, base, "val_accuracy")
        if train < -train_error and val <= val_error:
            with_and_without = (
                statistics.fmean(measured(group, name))
                for name in ("train_accuracy", "val_accuracy")
                for group in (runs, base)
            )
            a, b, c, d = (f"{value:.4f}" for value in with_and_without)
            lines.append(
                f"warning: alpha {alpha:g} under-fits: training accuracy {a} against {b} without "
                f"mixing, validation {c} against {d}; lower alpha, or train longer (--epochs)"
            )
    return lines
