"""Results files: makes rows from JSON lines, writes files in one step, checks what it reads."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from .registry import FLOOR, OURS, Case

SCHEMA = 2  # of the file; a change in its fields' meaning raises it
NORMAL_95 = 1.96


class ResultsError(Exception):
    """The file is no results file, or does not fit the request."""


def milliseconds(seconds: Sequence[float]) -> dict:
    """Median, quartiles, minimum, and a distribution-free 95 % interval of the median.

    The interval runs between two order statistics: the median's rank is binomial.
    """
    data = sorted(s * 1e3 for s in seconds)
    n = len(data)
    half = NORMAL_95 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    quartiles = statistics.quantiles(data, n=4) if n > 1 else [data[0]] * 3
    found = {
        "median_ms": statistics.median(data),
        "min_ms": data[0],
        "q25_ms": quartiles[0],
        "q75_ms": quartiles[2],
        "low_ms": data[low],
        "high_ms": data[high],
    }
    return {**{key: float(f"{value:.6g}") for key, value in found.items()}, "runs": n}


def rows(lines: Iterable[dict], cases: Sequence[Case]) -> list[dict]:
    """One row for each case that has figures of ours, from the lines of all turns."""
    found: list[dict] = []
    by_case: dict[str, list[dict]] = {}
    for line in lines:
        by_case.setdefault(line["case"], []).append(line)
    for case in cases:
        row = _row(case, by_case.get(case.name, []))
        if row is not None:
            found.append(row)
    floor = next((row for row in found if row["op"] == FLOOR), None)
    for row in found:
        _bandwidth(row, floor)
    return found


def _row(case: Case, lines: list[dict]) -> dict | None:
    providers: dict[str, dict] = {}
    skipped: dict[str, str] = {}
    for name in case.providers:
        mine = [line for line in lines if line["provider"] == name]
        seconds = [s for line in mine for s in line.get("seconds", ())]
        why = next((line[k] for line in mine for k in ("skipped", "failed") if k in line), None)
        if why is not None:
            skipped[name] = why
        elif seconds:
            providers[name] = milliseconds(seconds)
            for line in mine:
                providers[name] |= line.get("counts", {})
            parts = mine[-1].get("parts")
            if parts:
                medians = {part: statistics.median(s) * 1e3 for part, s in parts.items()}
                providers[name]["parts_ms"] = {p: float(f"{ms:.6g}") for p, ms in medians.items()}
    if OURS not in providers:
        return None
    shared = next(line for line in lines if "seconds" in line)
    return {
        "case": case.name,
        "op": case.op,
        "variant": case.variant,
        "shape": list(case.shape),
        "dtype": str(case.dtype).removeprefix("torch."),
        "memory_format": case.layout,
        "clock": case.clock,
        "sweep": list(case.sweep) if case.sweep else None,
        "goals": list(case.goals),
        "read": shared["read"],
        "written": shared["written"],
        "threads": shared["threads"],
        "providers": providers,
        "skipped": skipped,
    }


def _bandwidth(row: dict, floor: dict | None) -> None:
    """Adds GB/s on the counted bytes, and the share of this run's copy."""
    if row["read"] is None or row["clock"] == "host":
        return
    for figures in row["providers"].values():
        figures["gb_per_s"] = round(bytes_moved(row) / figures["median_ms"] / 1e6, 3)
    if floor is not None and row["threads"] is None:  # the copy uses all threads
        best = floor["providers"][OURS]["gb_per_s"] if row is not floor else None
        for figures in row["providers"].values() if best else ():
            figures["share_of_floor"] = round(figures["gb_per_s"] / best, 4)


def bytes_moved(row: dict) -> int:
    return row["read"] + row["written"]


def report(head: dict, lines: Sequence[dict], cases: Sequence[Case], finished: bool) -> dict:
    """The file's content. ``head`` has machine, versions, settings and date."""
    measured = rows(lines, cases)
    there = {row["case"] for row in measured}
    floor = next((row for row in measured if row["op"] == FLOOR), None)
    failed = {line["case"]: line["failed"] for line in lines if "failed" in line}
    return {
        "schema": SCHEMA,
        "finished": finished,
        **head,
        "copy_gb_per_s": floor["providers"][OURS]["gb_per_s"] if floor else None,
        "results": [row for row in measured if row["op"] != FLOOR],
        "not_measured": [case.name for case in cases if case.name not in there],
        "failed": failed,
    }


def read_lines(path: Path) -> list[dict]:
    """All complete lines: a stopped process may leave half a line."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def write(path: Path, content: dict) -> None:
    """Replaces the file in one step, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    part.replace(path)


def read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ResultsError(f"{path}: is no JSON ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ResultsError(
            f"{path}: expected a results file of schema {SCHEMA}, got {schema}; "
            "measure again: make bench"
        )
    return content
