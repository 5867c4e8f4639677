"""Proves and times the package on this machine's GPU: `make gpu`, or after a set-up

    python tools/gpu.py [--only STAGE,…] [--list] [--since SECONDS]

Needs no network. Leaves in the folder named by the variable OUT (default: benchmarks/results/ and
the GPU's name) summary.json, written anew after each stage, the stages' logs, and benchmarks.json.
The last thing printed is a table of the stages. Ends within 9 minutes; --since says when the clock
started (seconds since 1970), for a set-up that came before.

Exit status: 0 where no stage failed, 1 where one did, 2 where there is nothing to run on.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gpu_stages
from gpu_run import ROOT, run_all, slug, table

MINUTES = 9.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="STAGE,…", help="these stages alone")
    parser.add_argument("--list", action="store_true", help="name the stages and run none")
    parser.add_argument("--since", type=float, default=None, metavar="SECONDS")
    args = parser.parse_args(arguments)
    started = time.time() if args.since is None else min(args.since, time.time())
    names = [name for name in args.only.split(",") if name]
    if args.list:
        print("\n".join(gpu_stages.NAMES))
        return 0
    unknown = set(names) - set(gpu_stages.NAMES)
    if unknown:
        known = ", ".join(gpu_stages.NAMES)
        print(f"gpu: no stage {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
        return 2
    gpu, why = gpu_stages.find_gpu()
    if gpu is None:
        print(f"gpu: nothing was run: {why}", file=sys.stderr)
        return 2
    chosen = os.environ.get("OUT")
    out = Path(chosen or ROOT / "benchmarks" / "results" / slug(gpu["name"])).resolve()
    deadline = time.monotonic() + MINUTES * 60 - (time.time() - started)
    with tempfile.TemporaryDirectory() as scratch:
        groups = gpu_stages.stages(gpu, out, Path(scratch))
        groups = [[s for s in group if not names or s.name in names] for group in groups]
        head = {"gpu": gpu, "started": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(started))}
        results = run_all([g for g in groups if g], out, head, deadline)
    print()
    figures = gpu_stages.figures(out / "benchmarks.json")
    if figures and "benchmarks" in {r.stage for r in results}:
        print(f"{figures}\n")
    print(f"{gpu['name']}, {time.time() - started:.0f} s in all; everything is in {out}")
    print(table(results))
    return 1 if any(r.result == "FAILED" for r in results) or not results else 0


if __name__ == "__main__":
    sys.exit(main())
