"""Proves and times the package on this machine's GPU: `make gpu`, or after a set-up

    python tools/gpu.py [--only STAGE,…] [--limit STAGE=SECONDS,…] [--installed]

Needs no network. Writes into the folder OUT (environment; default: benchmarks/results/ and the
GPU's name): summary.json, anew after each stage; stages.log, the output of the stages;
headlines.json and benchmarks.json, case by case; experimental.json, both paths of kernels that are
not the default yet; counters.csv. Ends within 8 minutes (--minutes); --since is the start in
seconds since 1970, so that the time of a set-up counts.

--only takes names, or "tests" and "bench" for several, and keeps an earlier run's results of the
other stages. --installed is for a package installed from a wheel: tests and benchmarks then run
from a copy without the package's sources. FUSED_MIXUP_REHEARSAL=1 rehearses on the CPU, on tiny
sizes.

Exit status: 0 where no stage failed, 1 where one did, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpu_run import FAILED, GRACE, LOG, ROOT, SUMMARY, Run, Stage, line

MINUTES = 8.0
# Seconds, in order: correctness and the headline figures come within three minutes.
LIMITS = {"environment": 30, "smoke": 60, "headlines": 90, "grid": 100, "experimental": 40}
LIMITS |= {"graphs": 60, "sanitizers": 60, "more-sanitizers": 60, "counters": 20, "benchmarks": 480}
TOGETHER = {"tests": ("smoke", "grid", "graphs"), "bench": ("headlines", "benchmarks")}
ON_REQUEST = ("more-sanitizers",)
COPIED = ("tests", "benchmarks", "examples", "tools", "csrc", "pyproject.toml")
# Tests of graphs, streams, synchronisation and memory.
GRAPHS = ("test_gpu_streams.py", "test_gpu_costs.py", "test_gpu_large.py")
MOST_PROCESSES = 12

ASK = """
import json, torch
p = torch.cuda.get_device_properties(0)
print(json.dumps({"name": p.name, "count": torch.cuda.device_count(), "torch": torch.__version__,
                  "capability": f"{p.major}.{p.minor}", "cuda": torch.version.cuda}))
"""
ABOUT = """
import fused_mixup
from fused_mixup import backends, env
print(env.report())
print(f"CUDA tensors: {backends.chosen('CUDA')}, package {fused_mixup.__file__}")
"""
QUERY = "name,driver_version,pstate,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw"
QUERY += ",power.limit,temperature.gpu,memory.used,memory.total,compute_mode"


def stages(out: Path, root: Path, rehearsal: bool) -> list[Stage]:
    """``root`` holds tests and benchmarks: the checkout, or a copy without the package's sources,
    so that the installed package runs."""
    device, cores, python = "cpu" if rehearsal else "cuda", os.cpu_count() or 1, sys.executable
    # An installed package is found anyway; one built in the source tree needs the path.
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    env = {"PYTHONPATH": paths, **({"OMP_NUM_THREADS": "1"} if rehearsal else {})}

    def stage(name: str, commands: list[list[str]], **more) -> Stage:
        env_of_stage = {**env, **more.pop("env", {})}
        return Stage(name, commands, LIMITS[name], env=env_of_stage, cwd=root, **more)

    def tests(name: str, marks: str, *words: str) -> Stage:
        command = [python, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
        command += ["--rootdir", str(root), "--continue-on-collection-errors"]
        command += ["-m", f"{marks} and not proof", *words]
        if importlib.util.find_spec("xdist"):  # compiling Triton's kernels takes long
            count = str(max(1, min(MOST_PROCESSES, cores - 1)))
            command += ["-n", count, "--dist", "loadgroup"]
        return stage(name, [command], unsupported=r"^=+ \d+ skipped\b.*")  # no test ran

    def bench(name: str, part: str, **more) -> Stage:
        command = [python, "-m", "benchmarks.run", "--device", device, "--part", part]
        command += ["--seconds", "0.02" if rehearsal else "0.3", "--budget", "{seconds}"]
        leaf = f"{name}.json"
        return stage(name, [[*command, "--json", str(out / leaf)]], leaf=leaf, **more)

    def experimental() -> Stage:
        """Both paths of each kernel behind FUSED_MIXUP_EXPERIMENTAL: bits, and times in turn."""
        command = [python, "-m", "benchmarks.experimental", "--device", device]
        leaf = "experimental.json"
        command += ["--seconds", "{seconds}", "--json", str(out / leaf)]
        unsupported = "^experimental: no compiled CUDA kernels.*"
        return stage("experimental", [command], leaf=leaf, shown=True, unsupported=unsupported)

    def sanitizers(name: str, *tools: str) -> Stage:
        program = find_tool("compute-sanitizer")
        # API errors are not reported: PyTorch and Triton provoke some to probe the driver. Failed
        # launches of our own raise.
        options = "--error-exitcode 9 --report-api-errors no --print-limit 20 --launch-timeout 0"
        count = 1 if rehearsal else max(1, min(4, cores // len(tools) - 1))
        commands = [
            [program, "--tool", tool, *options.split(), python, str(root / "tests/gpu_small.py")]
            + ["--device", device, "--share", f"{i}/{count}"]
            for tool in tools
            for i in range(count)
        ]
        # Each tensor has its own allocation, so that an access past its end is seen. Lazy loading
        # instruments launched kernels alone.
        env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CUDA_MODULE_LOADING": "LAZY"}
        missing = "" if program else "compute-sanitizer is not installed (it comes with CUDA)"
        return stage(name, commands, env=env, missing=missing, unsupported="Device not supported")

    def counters() -> Stage:
        """Runs the headlines' kernels under ncu: bytes moved, occupancy, stalls of warps."""
        program, leaf = find_tool("ncu"), "counters.csv"
        options = "--csv --page raw --print-units base --profile-from-start off --clock-control "
        options += "none --section WarpStateStats --section Occupancy --metrics "
        options += "dram__bytes_read.sum,dram__bytes_write.sum,gpu__time_duration.sum"
        command = [program, *options.split(), "--log-file", str(out / leaf)]
        command += [python, str(root / "tools/gpu_counters.py"), device]
        missing = "" if program else "ncu is not installed (Nsight Compute comes with CUDA)"
        unsupported = "ERR_NVGPUCTRPERM|LibraryNotLoaded|Failed to initialize the profiler"
        return stage("counters", [command], leaf=leaf, missing=missing, unsupported=unsupported)

    folder = root / "tests"
    grid = folder / "test_gpu.py" if rehearsal else folder
    apart = [f"--ignore={folder / name}" for name in GRAPHS]
    # The log keeps this output; ":" makes the command pass.
    query = f"'{python}' -m pip list; nvcc --version; "
    query += f"nvidia-smi --query-gpu={QUERY} --format=csv; :"
    environment = [[python, "-c", ABOUT], ["sh", "-c", query]]
    return [
        stage("environment", environment),
        tests("smoke", "gpu_first", str(folder / "test_gpu.py")),
        bench("headlines", "headlines", shown=True),
        tests("grid", "gpu and not gpu_first", *apart, str(grid)),
        experimental(),
        tests("graphs", "gpu", *(str(folder / name) for name in GRAPHS)),
        sanitizers("sanitizers", "memcheck", "racecheck"),
        sanitizers("more-sanitizers", "initcheck", "synccheck"),
        counters(),
        bench("benchmarks", "rest", fills=True),
    ]


def find_tool(name: str) -> str:
    """A program on the PATH, or where CUDA's installer puts it; "" where there is none."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    places = (os.environ.get("PATH", ""), *(str(Path(home, "bin")) for home in homes if home))
    return shutil.which(name, path=os.pathsep.join(places)) or ""


def find_gpu() -> tuple[dict | None, str]:
    """The GPU, or why there is none. A process of its own asks: it may crash."""
    if os.environ.get("FUSED_MIXUP_REHEARSAL") == "1":
        return {"name": "rehearsal on the CPU"}, ""
    command = [sys.executable, "-c", ASK]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return None, "PyTorch did not say within 2 minutes whether there is a GPU"
    if asked.returncode != 0:
        last = asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"]
        return None, last[-1]
    return json.loads(asked.stdout.splitlines()[-1]), ""


def copy_without_sources(folder: Path) -> Path:
    """A copy of tests and benchmarks, in which no source shadows the installed package."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "results", ".*")
    folder.mkdir()
    for source in (ROOT / name for name in COPIED):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, folder)
    return folder


def other_sources(installed: Path) -> list[str]:
    """The checkout's Python files that are missing in the installed package, or differ there."""
    folders = {
        ROOT / "fused_mixup": installed,
        ROOT / "triton_kernels": installed / "triton_kernels",
    }
    pairs = {p: to / p.relative_to(top) for top, to in folders.items() for p in top.rglob("*.py")}
    differ = (p for p, q in pairs.items() if not q.exists() or p.read_bytes() != q.read_bytes())
    return sorted(str(p.relative_to(ROOT)) for p in differ if p.name != "_build_info.py")


def keep_earlier(out: Path, chosen: Sequence[Stage], second: bool) -> dict[str, dict]:
    """Results of an earlier run's other stages, for a ``second`` run. Removes the files of the
    chosen stages; a first run removes all."""
    summary = out / SUMMARY
    known = json.loads(summary.read_text(encoding="utf-8"))["stages"] if summary.exists() else {}
    files = [stage.leaf for stage in chosen if stage.leaf] + ([] if second else [LOG, SUMMARY])
    for name in files:
        (out / name).unlink(missing_ok=True)
    names = {stage.name for stage in chosen}
    return {name: found for name, found in known.items() if second and name not in names}


def names_of(text: str) -> list[str]:
    words = filter(None, text.split(","))
    return [name for word in words for name in TOGETHER.get(word, (word,))]


def limits_of(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in filter(None, text.split(",")))
    return {name: float(seconds) for name, _, seconds in pairs}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=names_of, default=[], metavar="STAGE,…")
    parser.add_argument("--limit", type=limits_of, default={}, metavar="STAGE=SECONDS,…")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all of it")
    parser.add_argument("--installed", action="store_true", help="run what a wheel installed")
    parser.add_argument("--since", type=float, default=time.time(), metavar="SECONDS")
    args = parser.parse_args(arguments)
    unknown = {*args.only, *args.limit} - {*LIMITS}
    if unknown:
        known = ", ".join((*LIMITS, *TOGETHER))
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {known}")
    gpu, why = find_gpu()
    if gpu is None:
        print(f"gpu: nothing was run: {why}", file=sys.stderr)
        return 2
    slug = re.sub(r"[^a-z0-9]+", "-", gpu["name"].lower()).strip("-")
    out = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results" / slug).resolve()
    out.mkdir(parents=True, exist_ok=True)
    # The time includes stopping the last stage and judging it.
    deadline = time.monotonic() + args.minutes * 60 - (time.time() - args.since) - GRACE
    head: dict = {
        "gpu": gpu,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(args.since)),
    }
    with tempfile.TemporaryDirectory() as scratch:
        root = ROOT
        if args.installed:
            root = copy_without_sources(Path(scratch, "checkout"))
            package = importlib.util.find_spec("fused_mixup")
            differ = other_sources(Path(str(package and package.origin)).parent)
            head["other_sources"] = differ
            if differ:
                print(f"gpu: the wheel has other sources: {', '.join(differ[:6])}", flush=True)
        wanted = args.only or [name for name in LIMITS if name not in ON_REQUEST]
        rehearsal = os.environ.get("FUSED_MIXUP_REHEARSAL") == "1"
        found = stages(out, root, rehearsal)
        chosen = [
            replace(s, limit=args.limit.get(s.name, s.limit)) for s in found if s.name in wanted
        ]
        run = Run(out, head, keep_earlier(out, chosen, second=bool(args.only)))
        results = run.run_all(chosen, deadline)
    print(f"\n{gpu['name']}, {time.time() - args.since:.0f} s in all; everything is in {out}")
    print("\n".join(line(name, result) for name, result in results.items()))
    return 1 if any(r.result == FAILED for r in results.values()) or run.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
