"""Times the ops against eager PyTorch on this machine: ``make bench`` or

python -m benchmarks.run [--device cpu|cuda] [--seconds S] [--only TEXT] [--json FILE]
python -m benchmarks.run --from FILE --readme README.md      # the table of an earlier run

Ratios above 1 mean that ours is faster. "share of floor" is the least time that the bytes can take
at the copy bandwidth measured in the same run, over our time; above 100 % where data that stays in
cache is moved faster than a copy from memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from .cases import groups
from .timing import CACHE_BYTES, compare, extra_bytes, machine, rotated

START, END = "<!-- benchmark table: start -->", "<!-- benchmark table: end -->"


def copy_bandwidth(device: str, seconds: float) -> float:
    """Bytes per second of PyTorch's threaded copy, reads and writes both counted."""
    source = rotated(lambda: torch.randn(CACHE_BYTES // 4, device=device))
    target = torch.empty_like(source[0])
    turn = iter(range(10**9))
    run = {"copy": lambda: target.copy_(source[next(turn) % len(source)])}
    milliseconds = compare(run, device, seconds)["copy"]["median_ms"]
    return 2 * CACHE_BYTES / milliseconds * 1e3


def measure_group(name: str, device: str, seconds: float, only: str) -> list[dict]:
    results = []
    for case in groups(device)[name]():
        if only not in case.name:
            continue
        print(f"  {case.name} …", file=sys.stderr, flush=True)
        times = compare({"ours": case.ours, **case.peers}, device, seconds)
        ours = times["ours"]["median_ms"]
        result = {
            "case": case.name,
            "times": times,
            "ratio": {name: round(times[name]["median_ms"] / ours, 2) for name in case.peers},
            "extra_mib": {
                name: round(extra_bytes(run, device) / 2**20, 3)
                for name, run in {"ours": case.ours, **case.peers}.items()
            },
        }
        if case.bytes is not None:
            result["bytes"] = case.bytes
        results.append(result)
    return results


def measure(device: str, seconds: float, only: str) -> dict:
    bandwidth = copy_bandwidth(device, seconds)
    results = []
    for name in groups(device):
        # A process for each: the state in which one case leaves the memory allocator decides how
        # many pages the next one's temporaries cost, on either side.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "group.json")
            command = [sys.executable, "-m", "benchmarks.run", "--group", name]
            command += ["--device", device, "--seconds", str(seconds), "--only", only]
            # Keeps the profiler, which counts memory, from writing to the terminal.
            env = {"KINETO_LOG_LEVEL": "99", **os.environ}
            subprocess.run([*command, "--json", str(path)], env=env, check=True)
            results += json.loads(path.read_text(encoding="utf-8"))
    for result in results:
        if "bytes" in result:
            least = result["bytes"] / bandwidth * 1e3
            result["share_of_floor"] = round(least / result["times"]["ours"]["median_ms"], 3)
    return {
        "machine": machine(device),
        "copy_gb_per_s": round(bandwidth / 1e9, 2),
        "results": results,
    }


def table(report: dict) -> str:
    m = report["machine"]
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
            first = [r["case"], f"{ours:.2f} ms"] if i == 0 else ["", ""]
            cells = [
                *first,
                f"{name}: {r['times'][name]['median_ms']:.2f} ms",
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
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--from", dest="source", type=Path, help="read figures, measure nothing")
    parser.add_argument("--group", help=argparse.SUPPRESS)  # of a process for one group
    parser.add_argument("--readme", type=Path, help="put the table between the markers there")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.group:
        found = measure_group(args.group, args.device, args.seconds, args.only)
        args.json.write_text(json.dumps(found), encoding="utf-8")
        return
    if args.source:
        report = json.loads(args.source.read_text(encoding="utf-8"))
    else:
        report = measure(args.device, args.seconds, args.only)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    text = table(report)
    print(text)
    if args.readme:
        write_readme(args.readme, text)


if __name__ == "__main__":
    main()
