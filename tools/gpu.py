"""Proves and times the package on this machine's GPU: `make gpu`, or after a set-up

    python tools/gpu.py [--only STAGE,…] [--limit STAGE=SECONDS,…] [--installed] [--list]

Needs no network. Leaves in the folder named by the variable OUT (default: benchmarks/results/ and
the GPU's name) summary.json, written anew after each stage, tests.jsonl and the benchmarks' JSON,
written test by test and case by case, and stages.log. The last thing printed is a table of the
stages. Ends within 8 minutes (--minutes); --since says when the clock started (seconds since 1970),
for a set-up that came before.

--only takes names, or "bench", "tests", "sanitizers" for several. --installed is for a package
installed from a wheel: tests and benchmarks run from a copy of theirs, without its sources beside.
FUSED_MIXUP_REHEARSAL=1 rehearses all of it on the CPU, on tiny sizes.

Exit status: 0 where no stage failed, 1 where one did, 2 where there is nothing to run on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import gpu_stages
from gpu_readers import figures, lines_of
from gpu_run import FAILED, GRACE, ROOT, Stage, run_all, slug, table

MINUTES = 8.0
COPIED = ("tests", "benchmarks", "examples", "tools", "csrc", "pyproject.toml")


def names_of(text: str) -> tuple[list[str], list[str]]:
    """The stages that ``text`` names, and the words in it that name none."""
    known, names, unknown = {*gpu_stages.ALL}, [], []
    for word in filter(None, text.split(",")):
        some = gpu_stages.TOGETHER.get(word, (word,))
        (names if known.issuperset(some) else unknown).extend(some)
    return names, unknown


def limits_of(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in filter(None, text.split(",")))
    return {name: float(seconds) for name, _, seconds in pairs}


def without_sources(folder: Path) -> Path:
    """A copy of what tests and benches the package, where nothing shadows the one installed."""
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "results", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, folder / name)
    return folder


def other_sources(installed: Path) -> list[str]:
    """The package's Python files that are not the same in the checkout, or only in one of them."""
    ours = {p.relative_to(ROOT / "fused_mixup"): p for p in (ROOT / "fused_mixup").rglob("*.py")}
    kernels = (ROOT / "triton_kernels").rglob("*.py")
    ours |= {p.relative_to(ROOT): p for p in kernels}
    theirs = {p.relative_to(installed): p for p in installed.rglob("*.py")}
    made = {Path("_build_info.py")}  # by a build
    return sorted(
        str(name)
        for name in (ours.keys() | theirs.keys()) - made
        if name not in ours
        or name not in theirs
        or ours[name].read_bytes() != theirs[name].read_bytes()
    )


def clear(out: Path, groups: Sequence[Sequence[Stage]], second: bool) -> dict:
    """Take away what an earlier run has left of these stages. Of the others a ``second`` run keeps
    what it finds, and the verdicts, which are returned."""
    names = {stage.name for group in groups for stage in group}
    for leaf in (leaf for group in groups for stage in group for leaf in stage.leaves):
        (out / leaf).unlink(missing_ok=True)
    summary, tests = out / "summary.json", out / gpu_stages.TESTS
    if not second:
        for name in (gpu_stages.LOG, gpu_stages.TESTS, "summary.json"):
            (out / name).unlink(missing_ok=True)
        return {}
    if tests.exists():
        kept = [line for line in lines_of(tests) if line.get("stage") not in names]
        tests.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in kept))
    if not summary.exists():
        return {}
    old = json.loads(summary.read_text(encoding="utf-8"))
    known = [*old.get("earlier", []), *old["stages"]]
    return {"earlier": [stage for stage in known if stage["stage"] not in names]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="STAGE,…", help="these stages alone")
    parser.add_argument("--limit", default="", metavar="STAGE=SECONDS,…", help="in place of ours")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    parser.add_argument("--installed", action="store_true", help="run what a wheel installed")
    parser.add_argument("--list", action="store_true", help="name the stages and run none")
    parser.add_argument("--since", type=float, default=None, metavar="SECONDS")
    args = parser.parse_args(arguments)
    started = time.time() if args.since is None else min(args.since, time.time())
    names, unknown = names_of(args.only)
    try:
        limits = limits_of(args.limit)
    except ValueError:
        parser.error(f"--limit: expected STAGE=SECONDS,…, got {args.limit!r}")
    if args.list:
        print("\n".join(f"{name}: {gpu_stages.LIMITS[name]:.0f} s" for name in gpu_stages.ALL))
        return 0
    unknown += set(limits) - {*gpu_stages.ALL}
    if unknown:
        known = ", ".join((*gpu_stages.ALL, *gpu_stages.TOGETHER))
        print(f"gpu: no stage {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
        return 2
    gpu, why = gpu_stages.find_gpu()
    if gpu is None:
        print(f"gpu: nothing was run: {why}", file=sys.stderr)
        return 2
    chosen = os.environ.get("OUT")
    out = Path(chosen or ROOT / "benchmarks" / "results" / slug(gpu["name"])).resolve()
    # The last stage has to be ended, read and written within the time, too.
    deadline = time.monotonic() + args.minutes * 60 - (time.time() - started) - GRACE
    with tempfile.TemporaryDirectory() as scratch:
        root = without_sources(Path(scratch, "checkout")) if args.installed else ROOT
        rehearsal = os.environ.get("FUSED_MIXUP_REHEARSAL") == "1"
        groups = gpu_stages.stages(gpu_stages.Job(out, Path(scratch), root, rehearsal), limits)
        wanted = set(names or gpu_stages.NAMES)
        groups = [[s for s in group if s.name in wanted] for group in groups]
        groups = [group for group in groups if group]
        head = {"gpu": gpu, "started": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(started))}
        head |= clear(out, groups, second=bool(names))
        package = importlib.util.find_spec("fused_mixup")
        if args.installed and package and package.origin:
            differ = other_sources(Path(package.origin).parent)
            head["other_sources"] = differ
            if differ:
                print(f"gpu: the wheel is of other sources: {', '.join(differ[:6])}", flush=True)
        results = run_all(groups, out, head, deadline)
    print()
    for name in ("headlines", "benchmarks"):
        if name in {r.stage for r in results} and (text := figures(out / gpu_stages.LEAVES[name])):
            print(f"{text}\n")
    print(f"{gpu['name']}, {time.time() - started:.0f} s in all; everything is in {out}")
    print(table(results))
    return 1 if any(r.result == FAILED for r in results) or not results else 0


if __name__ == "__main__":
    sys.exit(main())
