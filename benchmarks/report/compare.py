"""Compares two runs and tells slower cases from noise."""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import OURS
from ..results import ResultsError
from .tables import duration, markdown

LEAST_CHANGE = 0.05  # two runs of the same build differ by as much


@dataclass(frozen=True)
class Change:
    """Our time in the second run over that in the first, between ``low`` and ``high``."""

    case: str
    before_ms: float
    after_ms: float
    low: float
    high: float
    verdict: str  # slower, faster, the same

    @property
    def ratio(self) -> float:
        return self.after_ms / self.before_ms


def differences(a: dict, b: dict) -> list[str]:
    """Differences that make two runs incomparable: machine, versions, settings."""
    found = []
    for part in ("machine", "versions", "settings"):
        for key in sorted(set(a[part]) | set(b[part])):
            if key in ("seconds", "full"):  # the intervals reflect the time of measurement
                continue
            old, new = a[part].get(key), b[part].get(key)
            if old != new:
                found.append(f"{part.rstrip('s')} {key}: {old} and {new}")
    return found


def threshold(a: dict, b: dict) -> float:
    """The significance line: smaller changes come from the machine.

    The plain copy runs none of our code, so any case may change as much as the copy did.
    """
    if not (a["copy_gb_per_s"] and b["copy_gb_per_s"]):
        return LEAST_CHANGE
    copies = a["copy_gb_per_s"] / b["copy_gb_per_s"]
    return max(LEAST_CHANGE, max(copies, 1 / copies) - 1)


def compare(a: dict, b: dict, anyway: bool = False) -> tuple[list[Change], list[str]]:
    """Changes from ``a`` to ``b``, and the differences of the runs.

    Raises ResultsError where machine, versions or settings differ, unless ``anyway``. A change
    counts where the ratio of the medians is beyond the significance line and their 95 % intervals
    agree on its direction.
    """
    differ = differences(a, b)
    if differ and not anyway:
        raise ResultsError(
            "the runs differ in more than time: "
            + "; ".join(differ)
            + ". To compare them all the same, add --anyway"
        )
    line = 1 + threshold(a, b)
    before = {row["case"]: row["providers"][OURS] for row in a["results"]}
    found = []
    for row in b["results"]:
        old, new = before.get(row["case"]), row["providers"][OURS]
        if old is None:
            continue
        low, high = new["low_ms"] / old["high_ms"], new["high_ms"] / old["low_ms"]
        ratio = new["median_ms"] / old["median_ms"]
        verdict = "the same"
        if low > 1 and ratio > line:
            verdict = "slower"
        elif high < 1 and ratio < 1 / line:
            verdict = "faster"
        found.append(Change(row["case"], old["median_ms"], new["median_ms"], low, high, verdict))
    return found, differ


def table(found: list[Change]) -> str:
    order = {"slower": 0, "faster": 1, "the same": 2}
    body = [
        [
            change.case,
            duration(change.before_ms),
            duration(change.after_ms),
            f"{change.ratio:.2f}× ({change.low:.2f} to {change.high:.2f})",
            change.verdict,
        ]
        for change in sorted(found, key=lambda change: (order[change.verdict], -change.ratio))
    ]
    return markdown(["case", "first run", "second run", "time, second over first", ""], body)


def unshared_cases(a: dict, b: dict) -> list[str]:
    first, second = ({row["case"] for row in report["results"]} for report in (a, b))
    lines = [f"only in the first: {case}" for case in sorted(first - second)]
    return lines + [f"only in the second: {case}" for case in sorted(second - first)]
