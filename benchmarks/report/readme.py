"""Writes the tables of README.md and docs/measured.md between markers, from results files.

README has six rows, with a column for each machine; the page has all tables of each machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..goals import README_ROWS
from ..registry import OURS
from ..results import ResultsError
from . import pictures, tables

TABLE, EVERYTHING = "six rows", "measured"  # names of the markers


def six_rows(runs: Mapping[str, dict]) -> str:
    """README's table. ``runs`` maps the link to a file to its results, a column each."""
    head = ["", *(f"[{machine(report)}]({link})" for link, report in runs.items())]
    body = [
        [f"{label} ({peer})", *(_cell(run, op, variant, peer) for run in runs.values())]
        for label, op, variant, peer in README_ROWS
    ]
    return tables.markdown(head, body)


def machine(report: dict) -> str:
    where, how = report["machine"], report["settings"]
    return where["device"] + (f", {how['threads']} threads" if how["device"] == "cpu" else "")


def _cell(report: dict, op: str, variant: str, peer: str) -> str:
    """Times faster, and the share of a copy's speed where the work has such a floor."""
    rows = [
        row
        for row in report["results"]
        if (row["op"], row["variant"], row["clock"]) == (op, variant, "device")
        and peer in row["providers"]
        and not row["sweep"]
    ]
    if not rows:
        return "–"
    row = max(rows, key=lambda row: bool(row["goals"]))  # the first has the usual dtype
    share = tables.share(row["providers"][OURS])
    return f"**{tables.ratio(row, peer):.1f}×**" + (f", {share}" if share else "")


def everything(runs: Mapping[str, dict]) -> str:
    """The page's sections. ``runs`` has paths from the root as keys: a site lacks these files."""
    parts = []
    for i, (path, report) in enumerate(runs.items()):
        parts += [f"## {machine(report)}", f"{tables.machine_line(report)}; the run is `{path}`."]
        if pictures.headline_bars(report):
            parts.append(f"![times faster than each baseline]({plot_name(i)})")
        for title, text in tables.sections(report).items():
            parts += [f"### {title}", text]
    return "\n\n".join(parts)


def _fill(path: Path, name: str, content: str) -> str:
    """The text of a file with ``content`` between the two markers of ``name``."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ResultsError(f"{path}: expected lines {start} and {end}, found not both of them")
    return f"{before}{start}\n{content}\n{end}{after}"


def _links(page: Path, sources: Sequence[Path], reports: Sequence[dict]) -> dict[str, dict]:
    folder = page.resolve().parent
    links = (Path(os.path.relpath(path.resolve(), folder)).as_posix() for path in sources)
    return dict(zip(links, reports, strict=True))


def plot_name(index: int) -> str:
    """File name of the plot of run ``index``, in the page's folder."""
    return f"speed-{index + 1}.png" if index else "speed.png"


def texts(
    readme: Path | None, measured: Path | None, sources: Sequence[Path], reports: Sequence[dict]
) -> dict[Path, str]:
    """The new text of each file asked for. Raises where a file has no markers."""
    found: dict[Path, str] = {}
    if readme:
        found[readme] = _fill(readme, TABLE, six_rows(_links(readme, sources, reports)))
    if measured:
        content = everything(_links(measured.parent, sources, reports))
        found[measured] = _fill(measured, EVERYTHING, content)
    return found


def write(
    readme: Path | None, measured: Path | None, sources: Sequence[Path], reports: Sequence[dict]
) -> None:
    """Writes all files asked for and their plots; where one has no markers, writes none."""
    for path, text in texts(readme, measured, sources, reports).items():
        path.write_text(text, encoding="utf-8")
    for i, report in enumerate(reports if measured else ()):
        png = pictures.headline(report)
        if measured and png:
            measured.with_name(plot_name(i)).write_bytes(png)
