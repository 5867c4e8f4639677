"""Times the ops and their peers on this machine: ``make bench``, ``make bench-full``, or

python -m benchmarks.run [--full] [--device cpu|cuda] [--seconds S] [--only TEXT] [--json FILE]
                         [--isa avx2,avx512]

On the CPU each group of cases runs in a process of its own, with pinned threads. With several
instruction sets (--isa) the whole suite runs once for each, into FILE-avx2.json and so on: compare
them with `python -m benchmarks.report FILE-avx2.json FILE-avx512.json --compare`. The file always
holds all figures so far, so that an interrupted run leaves a usable one. The exit status is 1 where
a case failed, 3 where --budget left no time for some, 130 after an interrupt.
`python -m benchmarks.report` makes tables, pictures and pages from such files.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from . import results
from .machine import PINNED, best_isa, machine, settings, today, versions
from .registry import FLOOR, PARTS, Case, collect
from .report.tables import summary
from .suite import TURNS

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_JSON = ROOT / "build" / "benchmarks.json"
POLL = 0.5  # seconds between reads of a group's lines
GRACE = 10.0  # seconds in which an interrupted group may end by itself
TAIL = 2000  # characters kept of a failed group's output


def command(args: argparse.Namespace, group: str, out: Path, until: float) -> list[str]:
    words = [sys.executable, "-m", "pytest", "-q", "-x" if group == FLOOR else "--no-header"]
    words += ["-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", "--benchmark-quiet"]
    words += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    words += ["--bench-device", args.device, "--bench-seconds", str(args.seconds)]
    words += ["--bench-only", args.only, "--bench-part", args.part]
    words += ["--bench-group", group, "--bench-out", str(out)]
    words += ["--bench-until", repr(until)] if until < math.inf else []
    words += ["--bench-full"] if args.full else []
    return [*words, str(Path(__file__).with_name("suite.py"))]


def environment(isa: str) -> dict[str, str]:
    quiet = {"KINETO_LOG_LEVEL": "99"}  # the profiler would write to the terminal
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    # pytest must load plugins: pytest-benchmark is one. It times nothing where it finds
    # variables of pytest-xdist.
    around = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    held = {"FUSED_MIXUP_CPU": isa} if isa else {}
    return {**quiet, **PINNED, **around, "PYTHONPATH": path, **held}


def groups(cases: Sequence[Case], device: str) -> dict[str, list[Case]]:
    """Cases by process. On a GPU one process runs all: a start takes seconds."""
    if device == "cuda":
        return {"": list(cases)}
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group, []).append(case)
    return found


class Run:
    """A run, which shows and saves its figures so far."""

    def __init__(
        self, args: argparse.Namespace, cases: list[Case], lines: Path, isa: str, file: Path
    ) -> None:
        self.args, self.cases, self.lines, self.isa, self.file = args, cases, lines, isa, file
        self.head = {
            "date": today(),
            "machine": machine(args.device),
            "versions": versions(),
            "settings": settings(args.device, args.full, args.seconds, isa),
        }
        self.broken: dict[str, str] = {}  # groups whose process failed
        self.measured = 0

    def save(self, finished: bool) -> dict:
        report = results.report(self.head, results.read_lines(self.lines), self.cases, finished)
        report["failed"] |= self.broken
        if report["results"] or finished:
            results.write(self.file, report)
        return report

    def group(self, name: str, bar: tqdm, until: float) -> None:
        """Runs one process and reads the lines that it writes."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            process = subprocess.Popen(
                command(self.args, name, self.lines, until),
                cwd=ROOT,
                env=environment(self.isa),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(POLL)
                    self.follow(bar)
            finally:
                if process.poll() is None:
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(GRACE)
                    process.kill()
                    process.wait()
            self.follow(bar)
            if process.returncode != 0:
                log.seek(0)
                text = log.read()[-TAIL:].strip()
                self.broken[name or "all"] = f"exit status {process.returncode}"
                tqdm.write(f"{name or 'the suite'} failed:\n{text}", file=sys.stderr)

    def follow(self, bar: tqdm) -> None:
        found = results.read_lines(self.lines)
        if len(found) == self.measured:
            return
        bar.update(len(found) - self.measured)
        bar.set_postfix_str(found[-1]["case"][:60], refresh=False)
        self.measured = len(found)
        self.save(finished=False)


@contextlib.contextmanager
def progress(cases: Sequence[Case]) -> Iterator[tqdm]:
    total = TURNS * sum(len(case.providers) for case in cases)
    # disable=None: silent where the error output is no terminal.
    with tqdm(total=total, unit="", disable=None, dynamic_ncols=True) as bar:
        yield bar


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default)
    parser.add_argument("--full", action="store_true", help="all dtypes, layouts and sweep points")
    parser.add_argument("--seconds", type=float, default=0.6, help="time for each provider")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--part", choices=PARTS, default="all", help="the headlines, or the rest")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds for everything")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="the figures go here")
    parser.add_argument("--isa", default="", help="instruction sets of the CPU, one run for each")
    parser.add_argument("--list", action="store_true", help="name the cases, measure nothing")
    return parser.parse_args(argv)


def isas(asked: str) -> list[str]:
    """The instruction sets to run, by default the best. Raises ValueError for others."""
    known = ["baseline", "avx2", "avx512"]
    best = best_isa()
    if not asked:
        return [best]
    names = asked.split(",")
    here = known[: known.index(best) + 1] if best else []
    for name in names:
        if name not in here:
            raise ValueError(f"--isa: expected some of {here or 'none'} on this CPU, got {name!r}")
    return list(dict.fromkeys(names))


def interrupt(*_args: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    signal.signal(signal.SIGTERM, interrupt)  # SIGTERM saves the figures too
    args.json = args.json.resolve()
    cases = collect(args.device, args.full, args.only, args.part)
    if args.list:
        print("\n".join(f"{case.name}: {', '.join(case.providers)}" for case in cases))
        return 0
    if len(cases) == 1:
        print(f"--only: no case has {args.only!r} in its name; see --list", file=sys.stderr)
        return 2
    try:
        chosen = isas(args.isa)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    until = time.time() + args.budget
    status = 0
    for isa in chosen:
        file = args.json if len(chosen) == 1 else args.json.with_stem(f"{args.json.stem}-{isa}")
        status = measure(args, cases, isa, file, until)
        if status not in (0, 3):
            break
    return status


def measure(args: argparse.Namespace, cases: list[Case], isa: str, file: Path, until: float) -> int:
    interrupted = False
    with tempfile.TemporaryDirectory() as folder, progress(cases) as bar:
        run = Run(args, cases, Path(folder, "lines.jsonl"), isa, file)
        try:
            for name in groups(cases, args.device):
                run.group(name, bar, until)
        except KeyboardInterrupt:
            interrupted = True
        report = run.save(finished=not interrupted)
    print(summary(report))
    shown = os.path.relpath(file)
    print(f"\n{shown}; a page with plots: python -m benchmarks.report {shown} -o report/")
    if report["not_measured"]:
        why = "interrupted before" if interrupted else "not measured"
        print(f"{why}: {', '.join(report['not_measured'])}", file=sys.stderr)
    if interrupted:
        return 130
    if report["failed"]:
        return 1
    return 3 if report["not_measured"] else 0


if __name__ == "__main__":
    sys.exit(main())
