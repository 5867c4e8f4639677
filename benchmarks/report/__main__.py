"""Tables, plots and a page from the files of runs.

    python -m benchmarks.report RESULTS.json… -o report/
    python -m benchmarks.report BEFORE.json AFTER.json --compare [--anyway] -o report/
    python -m benchmarks.report RESULTS.json… --readme README.md --measured docs/measured.md

The page needs no other file. With --compare it begins with the slower cases; the exit status is 1
where there are any. Runs of different machines, versions or settings need --anyway, and the page
says so. --readme writes six rows with a column for each file; --measured writes all tables, and
the plots into the same folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import results
from . import compare, page, pictures, readme, tables


def run_sections(report: dict, name: str, plots: dict[str, bytes]) -> list[str]:
    """The sections of one run. Adds its plots to ``plots``."""
    parts = [f"<h2>{page.inline(name)}</h2>", page.block(tables.machine_line(report))]
    if not report["finished"]:
        parts.append(page.warning("This run was interrupted: the later cases are not measured."))
    for title, draw in (
        ("speed", pictures.headline),
        ("sweeps", pictures.sweeps),
        ("steps", pictures.steps),
        ("loaders", pictures.loaders),
    ):
        png = draw(report)
        if png is not None:
            plots[f"{name}-{title}"] = png
            parts.append(page.picture(png, f"{name}: {title}"))
    for title, text in tables.sections(report).items():
        parts += [f"<h3>{title}</h3>", page.block(text)]
    return parts


def comparison(a: dict, b: dict, anyway: bool, plots: dict[str, bytes]) -> tuple[list[str], bool]:
    """The comparison, and whether anything got slower."""
    changes, differ = compare.compare(a, b, anyway)
    line = compare.threshold(a, b)
    parts = ["<h2>Second run against the first</h2>"]
    if differ:
        said = "\n".join(f"- {text}" for text in differ)
        text = "Compared because of --anyway: these runs differ in more than time.\n" + said
        parts.append(page.warning(text))
        print(text)
    png = pictures.changes(changes, line)
    if png is not None:
        plots["comparison"] = png
        parts.append(page.picture(png, "comparison"))
    slower = [change for change in changes if change.verdict == "slower"]
    told = f"{len(slower)} of {len(changes)} cases got slower by more than {line:.0%} and noise."
    text = "\n".join([told, "", compare.table(changes), "", *compare.unshared_cases(a, b)])
    print(text)
    return [*parts, page.block(text)], bool(slower)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument("-o", "--out", type=Path, help="folder for index.html and the plots")
    parser.add_argument("--compare", action="store_true", help="compares the two files")
    parser.add_argument("--anyway", action="store_true", help="even if machine or versions differ")
    parser.add_argument("--readme", type=Path, help="file whose marked table is written")
    parser.add_argument("--measured", type=Path, help="page whose marked tables are written")
    args = parser.parse_args(argv)
    if args.compare and len(args.files) != 2:
        parser.error(f"--compare: expected 2 files, got {len(args.files)}")
    if not (args.out or args.compare or args.readme or args.measured):
        parser.error("nothing to make: expected -o, --compare, --readme or --measured")
    return args


def run(args: argparse.Namespace) -> int:
    reports = [results.read(path) for path in args.files]
    plots: dict[str, bytes] = {}
    parts: list[str] = []
    slower = False
    if args.compare:
        parts, slower = comparison(*reports, args.anyway, plots)
    if args.out:
        names = [path.stem for path in args.files]
        for i, report in enumerate(reports):  # files in different folders may share a name
            alone = names.count(names[i]) == 1
            parts += run_sections(report, names[i] if alone else f"{names[i]}-{i + 1}", plots)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, png in plots.items():
            (args.out / f"{name}.png").write_bytes(png)
        (args.out / "index.html").write_text(page.page("fused_mixup, measured", parts), "utf-8")
        print(f"{args.out / 'index.html'} and {len(plots)} plots")
    readme.write(args.readme, args.measured, args.files, reports)
    return 1 if slower else 0


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return run(parse(argv))
    except results.ResultsError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
