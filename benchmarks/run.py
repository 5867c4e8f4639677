"""Times the ops against eager PyTorch on this machine: ``make bench`` or

python -m benchmarks.run [--device cpu|cuda] [--seconds S] [--only TEXT] [--json FILE]
python -m benchmarks.run --from FILE --readme README.md      # the table of an earlier run

Ratios above 1 mean that ours is faster. "share of floor" is the least time that the bytes can take
at the copy bandwidth measured in the same run, over our time; above 100 % where data that stays in
cache is moved faster than a copy from memory. With --budget, cases that it leaves no time for are
named as not measured, and the exit status is 3.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from .cases import Case, groups
from .timing import CACHE_BYTES, compare, extra_bytes, graphed, machine, rotated

START, END = "<!-- benchmark table: start -->", "<!-- benchmark table: end -->"


def copy_bandwidth(device: str, seconds: float) -> float:
    """Bytes per second of PyTorch's copy, reads and writes both counted."""
    # A GPU's cache would hold much of a target of that size.
    size = CACHE_BYTES if device == "cpu" else 8 * CACHE_BYTES
    source = rotated(lambda: torch.randn(size // 4, device=device))
    target = torch.empty_like(source[0])
    turn = iter(range(10**9))
    run = {"copy": lambda: target.copy_(source[next(turn) % len(source)])}
    milliseconds = compare(run, device, seconds)["copy"]["median_ms"]
    return 2 * size / milliseconds * 1e3


def measure_case(case: Case, device: str, seconds: float) -> dict:
    runs, cannot = {"ours": case.ours}, {}
    for name, run in case.peers.items():
        try:
            if device == "cuda":
                run()
            runs[name] = run
        except Exception as error:  # a smaller GPU's memory, or no compiler: the others still count
            cannot[name] = str(error).partition("\n")[0][:200]
            torch.cuda.empty_cache()
    timed = {n: graphed(run) for n, run in runs.items()} if case.clock == "graph" else runs
    times = compare(timed, device, seconds, case.clock)
    extra = {name: round(extra_bytes(run, device) / 2**20, 3) for name, run in runs.items()}
    ours = times["ours"]["median_ms"]
    ratio = {n: round(t["median_ms"] / ours, 2) for n, t in times.items() if n != "ours"}
    result = {"case": case.name, "times": times, "ratio": ratio, "extra_mib": extra}
    if case.bytes is not None:
        result["bytes"] = case.bytes
    if device == "cuda" and case.goals:
        result["goals"] = case.goals
    if cannot:
        result["cannot"] = cannot
    return result


def measure_group(
    name: str, device: str, seconds: float, only: str, end: float = math.inf
) -> tuple[list[dict], list[str]]:
    """Results, and the names of the cases that came after ``end`` (time.monotonic())."""
    results, absent = [], []
    for case in groups(device)[name]():
        if only not in case.name:
            continue
        if time.monotonic() > end:
            absent.append(case.name)
            continue
        print(f"  {case.name} …", file=sys.stderr, flush=True)
        results.append(measure_case(case, device, seconds))
    return results, absent


def in_a_process(name: str, device: str, seconds: float, only: str) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "group.json")
        command = [sys.executable, "-m", "benchmarks.run", "--group", name]
        command += ["--device", device, "--seconds", str(seconds), "--only", only]
        # Keeps the profiler, which counts memory, from writing to the terminal.
        env = {"KINETO_LOG_LEVEL": "99", **os.environ}
        subprocess.run([*command, "--json", str(path)], env=env, check=True)
        return json.loads(path.read_text(encoding="utf-8"))


def measure(
    device: str, seconds: float, only: str, budget: float, path: Path | None = None
) -> dict:
    """All groups; the figures so far are in the file ``path`` after each of them."""
    end = time.monotonic() + budget
    bandwidth = copy_bandwidth(device, seconds)
    report: dict = {
        "machine": machine(device),
        "copy_gb_per_s": round(bandwidth / 1e9, 2),
        "results": [],
    }
    absent: list[str] = []
    for name in groups(device):
        if time.monotonic() > end:
            absent.append(name)
            continue
        if device == "cpu":
            # A process for each: the state in which one case leaves the memory allocator decides
            # how many pages the next one's temporaries cost, on either side.
            results = in_a_process(name, device, seconds, only)
        else:  # there the allocator keeps what it has, and a process takes seconds to start
            results, late = measure_group(name, device, seconds, only, end)
            absent += late
            torch.compiler.reset()
            gc.collect()
            torch.cuda.empty_cache()
        for result in results:
            if "bytes" in result:
                least = result["bytes"] / bandwidth * 1e3
                result["share_of_floor"] = round(least / result["times"]["ours"]["median_ms"], 3)
        report["results"] += results
        if absent:
            report["not_measured"] = absent
        write_json(path, report)
    if absent:
        report["not_measured"] = absent
        write_json(path, report)
    return report


def write_json(path: Path | None, report: dict) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")


def duration(ms: float, kind: str) -> str:
    return f"{ms * 1e3:.1f} µs" if kind == "cuda" and ms < 1 else f"{ms:.2f} ms"


def table(report: dict) -> str:
    m = report["machine"]
    kind = m.get("kind", "cpu")
    lines = [
        f"{m['device']}, {m['threads']} threads, torch {m['torch']}, {m['date']}; copy bandwidth "
        f"{report['copy_gb_per_s']} GB/s (reads and writes). Medians.",
        "",
        "| case | ours | beside it | ours is faster by | share of floor | extra memory |",
        "|---|---|---|---|---|---|",
    ]
    for r in report["results"]:
        ours, extra = r["times"]["ours"]["median_ms"], r["extra_mib"]
        share = f"{r['share_of_floor']:.0%}" if "share_of_floor" in r else ""
        for i, (name, ratio) in enumerate(r["ratio"].items()):
            first = [r["case"], duration(ours, kind)] if i == 0 else ["", ""]
            cells = [
                *first,
                f"{name}: {duration(r['times'][name]['median_ms'], kind)}",
                f"{ratio:.1f}×",
                share if i == 0 else "",
                f"{extra['ours']:.1f} / {extra[name]:.0f} MiB",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_readme(path: Path, text: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(START)
    _, found, after = rest.partition(END)
    if not found:
        sys.exit(f"{path}: no lines {START} and {END}")
    path.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each case")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds for everything")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--from", dest="source", type=Path, help="read figures, measure nothing")
    parser.add_argument("--group", help=argparse.SUPPRESS)  # of a process for one group
    parser.add_argument("--readme", type=Path, help="put the table between the markers there")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.group:
        found, _ = measure_group(args.group, args.device, args.seconds, args.only)
        args.json.write_text(json.dumps(found), encoding="utf-8")
        return
    if args.source:
        report = json.loads(args.source.read_text(encoding="utf-8"))
    else:
        report = measure(args.device, args.seconds, args.only, args.budget, args.json)
    write_json(args.json, report)
    text = table(report)
    print(text)
    if args.readme:
        write_readme(args.readme, text)
    if report.get("not_measured"):
        print(f"no time was left for: {', '.join(report['not_measured'])}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
