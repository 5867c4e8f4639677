"""What `make gpu` runs, stage by stage: what proves the most comes first.

Groups run one after the other, the stages of a group side by side. Each has a limit of its own; the
benchmarks have the GPU to themselves, and the last of them fill what time is left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import gpu_readers as readers
from gpu_run import ROOT, Stage

SANITIZERS = ("memcheck", "racecheck")
MORE_SANITIZERS = ("initcheck", "synccheck")  # only where they are asked for by name
NAMES = (
    "environment",
    "smoke",
    "headlines",
    "grid",
    "graphs",
    *SANITIZERS,
    "counters",
    "benchmarks",
)
ALL = (*NAMES, *MORE_SANITIZERS)
TOGETHER = {  # for --only
    "bench": ("headlines", "benchmarks"),
    "tests": ("smoke", "grid", "graphs"),
    "sanitizers": (*SANITIZERS, *MORE_SANITIZERS),
}
LIMITS = {"environment": 30, "smoke": 60, "headlines": 90, "grid": 120, "graphs": 60}
LIMITS |= dict.fromkeys((*SANITIZERS, *MORE_SANITIZERS), 60) | {"counters": 30, "benchmarks": 480}
LOG, TESTS = "stages.log", "tests.jsonl"
# A machine that lends a GPU may take back few files: all stages share these.
LEAVES = {
    "headlines": "headlines.json",
    "benchmarks": "benchmarks.json",
    "counters": "counters.json",
}

# Files of tests, by how their names begin, of the build and of kernels compiled without a GPU:
# `make test` runs them on any machine.
HOST_ONLY = (
    "test_bench",
    "test_build",
    "test_cpu_sanitizers",
    "test_cuda_build",
    "test_cuda_host",
    "test_demo",
    "test_gpu_readers",
    "test_gpu_rehearsal",
    "test_gpu_run",
    "test_gpu_shard",
    "test_gpu_tool",
    "test_gpu_wheel",
    "test_harness",
    "test_kernels_report",
    "test_triton_compile",
)
# What a program meets on a GPU beyond values: graphs, streams, synchronisation, memory.
GRAPHS = ("test_gpu_streams", "test_gpu_costs", "test_gpu_large")
MOST_PROCESSES = 12

_ASK = """
import json, sys
try:
    import torch
except ImportError as error:
    sys.exit(f"PyTorch cannot be imported: {error}")
if not torch.cuda.is_available():
    built = torch.version.cuda or torch.version.hip
    sys.exit(f"PyTorch {torch.__version__} " + (
        "sees no GPU" if built else "is built without CUDA; make PYTHON=… names another"))
p = torch.cuda.get_device_properties(0)
print(json.dumps({
    "name": p.name, "count": torch.cuda.device_count(), "capability": f"{p.major}.{p.minor}",
    "memory_gib": round(p.total_memory / 2**30, 1), "torch": torch.__version__,
    "cuda": torch.version.cuda}))
"""


def find_gpu() -> tuple[dict | None, str]:
    """The GPU, or why there is none. Asked in a process of its own: a crash is an answer too."""
    if os.environ.get("FUSED_MIXUP_REHEARSAL") == "1":
        return {"name": "rehearsal on the CPU"}, ""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return None, "PyTorch did not say within 2 minutes whether there is a GPU"
    if asked.returncode != 0:
        last = asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"]
        return None, last[-1]
    return json.loads(asked.stdout.splitlines()[-1]), ""


@dataclass(frozen=True)
class Job:
    """Where the stages run. ``root`` holds the tests and benchmarks: the checkout, or a copy of it
    without the package's sources, so that what is installed is what is run."""

    out: Path
    scratch: Path  # for files that are read and thrown away
    root: Path = ROOT
    rehearsal: bool = False
    cores: int = os.cpu_count() or 1

    @property
    def device(self) -> str:
        return "cpu" if self.rehearsal else "cuda"

    @property
    def env(self) -> dict[str, str]:
        # An installed package is found anyway; one built in the source tree needs the path.
        paths = (str(self.root), str(self.root / "tools"), os.environ.get("PYTHONPATH"))
        env = {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
        # Tiny tensors: threads would cost more than they bring.
        return {**env, "OMP_NUM_THREADS": "1"} if self.rehearsal else env

    def stage(self, name: str, commands: list, **more) -> Stage:
        leaves = (LEAVES[name],) if name in LEAVES else ()
        env = {**self.env, **more.pop("env", {})}
        options = {"env": env, "leaves": leaves, "cwd": self.root, **more}
        return Stage(name, commands, LOG, LIMITS[name], **options)

    def program(self, folder: str, name: str, *words: str) -> list[str]:
        return [sys.executable, str(self.root / folder / name), *words]


def stages(job: Job, limits: Mapping[str, float]) -> list[list[Stage]]:
    """The groups. ``limits``: seconds, in place of those of LIMITS."""
    groups = [
        [_environment(job)],
        [_smoke(job)],
        [_benchmarks(job, "headlines")],
        [_tests(job, "grid")],
        [_tests(job, "graphs")],
        [_sanitizer(job, tool) for tool in SANITIZERS],
        [_sanitizer(job, tool) for tool in MORE_SANITIZERS],
        [_counters(job)],
        [_benchmarks(job, "benchmarks")],
    ]
    return [[replace(s, limit=limits.get(s.name, s.limit)) for s in group] for group in groups]


# ------------------------------------------------------------------ environment


def _environment(job: Job) -> Stage:
    python = sys.executable
    commands = [[python, "-m", "fused_mixup.env"], [python, "-c", _VERSIONS], *_device_queries()]
    return job.stage("environment", commands, read=readers.read_environment)


def _device_queries() -> list[list[str]]:
    smi, nvcc = shutil.which("nvidia-smi"), shutil.which("nvcc")
    what = "name,driver_version,pstate,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,"
    what += "power.draw,power.limit,temperature.gpu,memory.used,memory.total,compute_mode"
    queries = [[smi, f"--query-gpu={what}", "--format=csv"]] if smi else []
    return queries + ([[nvcc, "--version"]] if nvcc else [])


_VERSIONS = """
import importlib.metadata as m
import fused_mixup
print("package     ", fused_mixup.__file__)
for name in ("torch", "triton", "torchvision", "timm", "numpy", "pytest", "hypothesis"):
    try:
        print(f"{name:12}{m.version(name)}")
    except m.PackageNotFoundError:
        print(f"{name:12}not installed")
"""


# ------------------------------------------------------------------ tests


def _small(job: Job, most: int, *more: str) -> list[list[str]]:
    """tests/gpu_small.py: native in one process, Triton, which compiles, in several."""
    call = ["gpu_small.py", "--device", job.device, *more]
    found = [job.program("tests", *call, "--backends", "native")]
    count = 1 if job.rehearsal else max(1, min(most, job.cores - 2))
    return found + [
        job.program("tests", *call, "--backends", "triton", "--share", f"{i}/{count}")
        for i in range(count)
    ]


def _smoke(job: Job) -> Stage:
    commands = _small(job, 8, "--results", str(job.out / TESTS), "--stage", "smoke")
    if (job.root / "tests" / "smoke.py").exists():  # forward, backward and compiled
        for backend in ("native", "triton"):
            commands.append(job.program("tests", "smoke.py", backend, "--device", job.device))
    return job.stage("smoke", commands, read=readers.read_calls)


def _tests(job: Job, name: str) -> Stage:
    found = sorted((job.root / "tests").glob("test_*.py"))
    if name == "graphs":
        files = [p for p in found if p.stem in GRAPHS]
    else:
        files = [p for p in found if not p.stem.startswith(HOST_ONLY) and p.stem not in GRAPHS]
    if job.rehearsal:
        files = [p for p in files if p.stem in ("test_gpu", "test_gpu_large")]
    count = max(1, min(MOST_PROCESSES, job.cores - 1))
    results = job.out / TESTS
    each = ["-m", "pytest", "-q", "--tb=short", "-p", "gpu_shard", "-p", "no:cacheprovider"]
    # "no:xdist": several processes are there already.
    each += ["-p", "no:xdist", "--rootdir", str(job.root), *map(str, files)]
    commands = [["env", f"GPU_SHARD={i}/{count}", sys.executable, *each] for i in range(count)]
    env = {"GPU_RESULTS": str(results), "GPU_STAGE": name}
    read = partial(readers.read_tests, path=results, stage=name)
    return job.stage(name, commands, read=read, env=env)


# ------------------------------------------------------------------ tools of the toolkit


def find_tool(name: str) -> str | None:
    """A program on the PATH, or where CUDA's installer puts it."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [shutil.which(name), *(str(Path(home, "bin", name)) for home in homes if home)]
    return next((p for p in places if p and os.access(p, os.X_OK)), None)


def _sanitizer(job: Job, tool: str) -> Stage:
    program = find_tool("compute-sanitizer")
    missing = None if program else "compute-sanitizer is not installed (it comes with CUDA)"
    env = {
        # Each tensor an allocation of its own, so that one step past its end is seen.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
        "CUDA_MODULE_LOADING": "LAZY",  # only kernels that are launched need to be instrumented
    }
    # API errors are not asked for: PyTorch and Triton provoke some on purpose, to find out what
    # the driver can do. Failing launches of our own raise.
    options = "--error-exitcode 9 --report-api-errors no --print-limit 20 --launch-timeout 0"
    watch = [program or "", "--tool", tool, *options.split()]
    # What Triton compiles here, the smoke test has left in its cache.
    commands = [[*watch, *command] for command in _small(job, 3)]
    read = partial(readers.read_sanitizer, tool)
    return job.stage(tool, commands, missing=missing, read=read, env=env)


def _counters(job: Job) -> Stage:
    """The headlines' kernels under ncu: bytes moved, occupancy, why warps wait."""
    program, table = find_tool("ncu"), job.scratch / "ncu.csv"
    missing = None if program else "ncu is not installed (Nsight Compute comes with CUDA)"
    options = "--csv --page raw --print-units base --profile-from-start off --clock-control none"
    sections = "--section WarpStateStats --section Occupancy"
    metrics = "dram__bytes_read.sum,dram__bytes_write.sum,gpu__time_duration.sum"
    command = [program or "", *options.split(), *sections.split(), "--metrics", metrics]
    command += ["--log-file", str(table), *job.program("tools", "gpu_counters.py", job.device)]
    read = partial(readers.read_counters, table=table, path=job.out / LEAVES["counters"])
    return job.stage("counters", [command], missing=missing, read=read)


# ------------------------------------------------------------------ benchmarks


def _benchmarks(job: Job, name: str) -> Stage:
    fills = name == "benchmarks"
    part = "rest" if fills else name
    path, seconds = job.out / LEAVES[name], "0.02" if job.rehearsal else "0.3"
    command = [sys.executable, "-m", "benchmarks.run", "--device", job.device, "--part", part]
    command += ["--seconds", seconds, "--budget", "{seconds}", "--json", str(path)]
    read = partial(readers.read_benchmarks, path=path, until_the_limit=fills)
    return job.stage(name, [command], read=read, fills=fills)
