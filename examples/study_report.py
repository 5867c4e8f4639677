"""The study in words and numbers: means with spreads, and which claims hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from .study_train import BOTH, CUTMIX, EPSILONS, MANIFOLD, METHODS, MIXUP, NONE

Run = dict[str, Any]
Measure = Callable[[Run], float]

ATTACK = EPSILONS.index(0.1)  # the one of the table


class Column(NamedTuple):
    title: str
    corrupted: float
    measure: Measure
    percent: bool


def accuracy(run: Run) -> float:
    return run["accuracy"]


def calibration_error(run: Run) -> float:
    return run["calibration_error"]


def under_attack(run: Run) -> float:
    return run["under_attack"][ATTACK]


COLUMNS = (
    Column("accuracy", 0.0, accuracy, True),
    Column("calibration error", 0.0, calibration_error, False),
    Column("accuracy under FGSM, 0.1", 0.0, under_attack, True),
    Column("accuracy, 20 % corrupted", 0.2, accuracy, True),
    Column("accuracy, 40 % corrupted", 0.4, accuracy, True),
)


class Claim(NamedTuple):
    text: str
    column: Column
    better: str
    than: str
    higher: bool  # of the measure is meant


CLAIMS = (
    Claim("MixUp is more accurate than none [1]", COLUMNS[0], MIXUP, NONE, True),
    Claim("CutMix is more accurate than none [2]", COLUMNS[0], CUTMIX, NONE, True),
    Claim("CutMix is more accurate than MixUp [2]", COLUMNS[0], CUTMIX, MIXUP, True),
    Claim("Manifold Mixup is more accurate than none [3]", COLUMNS[0], MANIFOLD, NONE, True),
    Claim("Manifold Mixup is more accurate than MixUp [3]", COLUMNS[0], MANIFOLD, MIXUP, True),
    Claim("MixUp lowers the calibration error [4]", COLUMNS[1], MIXUP, NONE, False),
    Claim("CutMix lowers it", COLUMNS[1], CUTMIX, NONE, False),
    Claim("Manifold Mixup lowers it", COLUMNS[1], MANIFOLD, NONE, False),
    Claim("MixUp resists FGSM better [1]", COLUMNS[2], MIXUP, NONE, True),
    Claim("CutMix resists FGSM better [2]", COLUMNS[2], CUTMIX, NONE, True),
    Claim("Manifold Mixup resists FGSM better [3]", COLUMNS[2], MANIFOLD, NONE, True),
    Claim("MixUp resists 20 % corrupted labels better [1]", COLUMNS[3], MIXUP, NONE, True),
    Claim("MixUp resists 40 % corrupted labels better [1]", COLUMNS[4], MIXUP, NONE, True),
    Claim("CutMix resists 40 % better", COLUMNS[4], CUTMIX, NONE, True),
    Claim("both resist 40 % better", COLUMNS[4], BOTH, NONE, True),
    Claim("Manifold Mixup resists 40 % better", COLUMNS[4], MANIFOLD, NONE, True),
)
HOLDS, UNDECIDED, REVERSED = "holds", "not decided", "the opposite"


def values(results: Run, method: str, corrupted: float, measure: Measure) -> list[float]:
    """The measure of each seed, in the order of seeds."""
    runs = [r for r in results["runs"] if (r["method"], r["corrupted"]) == (method, corrupted)]
    return [measure(run) for run in sorted(runs, key=lambda run: run["seed"])]


def mean_and_spread(numbers: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds."""
    return statistics.fmean(numbers), statistics.stdev(numbers)


def difference(results: Run, claim: Claim) -> tuple[float, float]:
    """Mean of the paired differences, and half the width of its 95 % interval (Student's t)."""
    better, than = (
        values(results, method, claim.column.corrupted, claim.column.measure)
        for method in (claim.better, claim.than)
    )
    apart = [a - b for a, b in zip(better, than, strict=True)]
    mean, spread = mean_and_spread(apart)
    return mean, t_95(len(apart) - 1) * spread / math.sqrt(len(apart))


def verdict(results: Run, claim: Claim) -> str:
    mean, half = difference(results, claim)
    if abs(mean) <= half:
        return UNDECIDED
    return HOLDS if (mean > 0) == claim.higher else REVERSED


def t_95(degrees: int) -> float:
    """The two-sided 95 % point of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))


# ------------------------------------------------------------------------------- tables


def table(results: Run) -> list[str]:
    """Means and standard deviations, as lines of Markdown."""
    lines = [
        "| mixing | " + " | ".join(column.title for column in COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for method in METHODS:
        cells = []
        for column in COLUMNS:
            mean, spread = mean_and_spread(
                values(results, method, column.corrupted, column.measure)
            )
            cells.append(shown(column, mean) + " ± " + shown(column, spread))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def claims(results: Run) -> list[str]:
    """Each claim, the difference that was measured, and what becomes of it, in Markdown."""
    lines = ["| claim | difference | at this size |", "|---|---|---|"]
    for claim in CLAIMS:
        mean, half = difference(results, claim)
        sign = "+" if mean >= 0 else "-"
        numbers = f"{sign}{shown(claim.column, abs(mean))} ± {shown(claim.column, half)}"
        lines.append(f"| {claim.text} | {numbers} | {verdict(results, claim)} |")
    return lines


def shown(column: Column, value: float) -> str:
    return f"{100 * value:.1f}" if column.percent else f"{value:.3f}"


def text(results: Run) -> str:
    made = [
        f"mean ± standard deviation over {results['seeds']} seeds, {results['epochs']} epochs; "
        "accuracies in %",
        *table(results),
        "",
        "paired differences with their 95 % intervals; accuracies in points",
        *claims(results),
        "",
        f"{len(results['runs'])} trainings: {results['wall_seconds']:.0f} s, "
        f"{results['cpu_seconds']:.0f} s of CPU time",
    ]
    return "\n".join(made)
