"""The README's tables, between markers: no number there is typed by hand."""

from __future__ import annotations

import os
from pathlib import Path

from ..goals import AT_MOST, judge
from ..registry import OURS
from ..results import ResultsError
from . import tables


def first_screen(report: dict, source: str, picture: str) -> str:
    """One plot and one table: the goals that name a peer."""
    head = ["", "ours", "beside it", "faster by", "extra memory"]
    rows = {row["case"]: row for row in report["results"]}
    body = []
    for goal in judge(report):
        row = rows.get(goal["case"])
        for part in goal["parts"] if row else ():
            if part["got"] is None or part["against"] in (*AT_MOST, "floor"):
                continue
            mine, other = row["providers"][OURS], row["providers"][part["against"]]
            body.append(
                [
                    goal["case"],
                    tables.duration(mine["median_ms"]),
                    f"{part['against']}: {tables.duration(other['median_ms'])}",
                    f"**{part['got']:.1f}×**",
                    f"{tables.extra(mine)} instead of {tables.extra(other)}",
                ]
            )
    return "\n\n".join(
        [
            f"![how many times faster]({picture})",
            tables.markdown(head, body),
            f"{tables.machine_line(report)}; [the run]({source}).",
        ]
    )


def blocks(report: dict, source: str, picture: str) -> dict[str, str]:
    """What stands between the markers, by their name."""
    goals = "\n\n".join([tables.goals(report), tables.explanations(report)])
    parts = [tables.machine_line(report), tables.cases(report)]
    parts += [tables.steps(report)] if tables.steps(report) else []
    skipped = tables.skipped(report)
    parts += [f"Took no part:\n\n{skipped}"] if skipped else []
    return {
        "first screen": first_screen(report, source, picture),
        "benchmark table": "\n\n".join(parts),
        "goals": goals,
    }


def put(text: str, name: str, content: str, where: str) -> str:
    """``text`` with ``content`` between the two markers of ``name``."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ResultsError(f"{where}: expected lines {start} and {end}, found not both of them")
    return f"{before}{start}\n{content}\n{end}{after}"


def write(path: Path, report: dict, source: Path, picture: Path) -> None:
    """All blocks or none."""
    text = path.read_text(encoding="utf-8")
    beside = [os.path.relpath(p.resolve(), path.resolve().parent) for p in (source, picture)]
    for name, content in blocks(report, *beside).items():
        text = put(text, name, content, str(path))
    path.write_text(text, encoding="utf-8")
