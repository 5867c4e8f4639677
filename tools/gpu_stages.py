"""What `make gpu` runs, stage by stage, and how to read what each of them printed or left.

Groups run one after the other, the stages of a group side by side: tests and sanitizers share the
GPU, the benchmarks have it to themselves.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from gpu_run import ROOT, Done, Stage

sys.path.append(str(ROOT))
from benchmarks.goals import judge

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
NAMES = ("environment", "tests", *TOOLS, "benchmarks")
# Files of tests, by how their names begin, of the build and of kernels compiled without a GPU:
# `make test` runs them on any machine.
HOST_ONLY = (
    "test_bench",
    "test_build",
    "test_cpu_sanitizers",
    "test_cuda_build",
    "test_cuda_host",
    "test_demo",
    "test_gpu_run",
    "test_gpu_tool",
    "test_harness",
    "test_kernels_report",
    "test_triton_compile",
)
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


def stages(gpu: dict, out: Path, scratch: Path) -> list[list[Stage]]:
    """The groups. ``scratch`` is for files that are read and thrown away."""
    python = [sys.executable]
    # An installed package is found anyway; one built in the source tree needs the path.
    path = os.pathsep.join(
        p for p in (str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH")) if p
    )
    env = {"PYTHONPATH": path}
    environment = Stage(
        "environment",
        [[*python, "-m", "fused_mixup.env"], [*python, "-c", _VERSIONS], *_device_queries()],
        "environment.txt",
        40,
        read=read_environment,
        env=env,
    )
    benchmarks = Stage(
        "benchmarks",
        [[*python, *"-m benchmarks.run --device cuda --seconds 0.3 --budget {seconds}".split()]],
        "benchmarks.log",
        240,
        read=lambda done: read_benchmarks(done, out / "benchmarks.json"),
        env=env,
        leaves=("benchmarks.json",),
    )
    benchmarks.commands[0].extend(["--json", str(out / "benchmarks.json")])
    return [[environment], [_tests(scratch, env), *_sanitizers(env)], [benchmarks]]


def _device_queries() -> list[list[str]]:
    smi, nvcc = shutil.which("nvidia-smi"), shutil.which("nvcc")
    what = "name,driver_version,pstate,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,"
    what += "power.draw,power.limit,temperature.gpu,memory.used,memory.total,compute_mode"
    queries = [[smi, f"--query-gpu={what}", "--format=csv"]] if smi else []
    return queries + ([[nvcc, "--version"]] if nvcc else [])


_VERSIONS = """
import importlib.metadata as m
for name in ("torch", "triton", "torchvision", "timm", "numpy", "pytest", "hypothesis"):
    try:
        print(f"{name:12}{m.version(name)}")
    except m.PackageNotFoundError:
        print(f"{name:12}not installed")
"""


def read_environment(done: list[Done]) -> tuple[bool, str]:
    report = done[0].output
    chosen = re.search(r"^  mix_ +\S+ +(\S+)", report, re.M)
    compiled = re.search(r"^  _C_cuda +(.*)", report, re.M)
    answers = (re.search(r"^.+?, (\d[\d.]+), P\d", d.output, re.M) for d in done[1:])
    driver = next(filter(None, answers), None)
    detail = f"CUDA tensors: {chosen[1] if chosen else 'no answer'}"
    if chosen and chosen[1] != "native" and compiled:
        detail += f" (native: {compiled[1]})"
    detail += f"; driver {driver[1]}" if driver else ""
    # The queries beside it are there to be kept, not to be judged.
    return done[0].status == 0 and chosen is not None, detail


# ------------------------------------------------------------------ tests


def _tests(scratch: Path, env: dict[str, str]) -> Stage:
    found = sorted((ROOT / "tests").glob("test_*.py"))
    files = [str(p) for p in found if not p.stem.startswith(HOST_ONLY)]
    count = max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) - len(TOOLS)))
    reports = [scratch / f"tests-{i}.xml" for i in range(count)]
    commands = [
        ["env", f"GPU_SHARD={i}/{count}", sys.executable, "-m", "pytest", "-q", "--tb=short"]
        + ["-p", "gpu_shard", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
        for i, report in enumerate(reports)
    ]
    return Stage(
        "tests", commands, "tests.log", 210, read=lambda done: read_tests(done, reports), env=env
    )


def read_tests(done: list[Done], reports: list[Path]) -> tuple[bool, str]:
    """Counts of all processes together, the first failures, and the most frequent skip."""
    passed, failed, reasons, lost = 0, [], Counter(), 0
    for report in reports:
        try:
            cases = list(ElementTree.parse(report).iter("testcase"))
        except (OSError, ElementTree.ParseError):  # none, or one that a crash cut short
            lost += 1
            continue
        for case in cases:
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                failed.append(f"{case.get('classname', '')}.{case.get('name')}".split("tests.")[-1])
            elif "skipped" in kinds:
                reasons[case.find("skipped").get("message") or "no reason"] += 1
            else:
                passed += 1
    skipped = sum(reasons.values())
    parts = [f"{len(failed)} failed ({', '.join(failed[:2])})"] if failed else []
    parts += [f"{lost} of {len(reports)} processes left no result"] if lost else []
    parts += [f"{passed} passed", f"{skipped} skipped"]
    often = "; most often: {0[0]} ({0[1]})".format(reasons.most_common(1)[0]) if reasons else ""
    detail = ", ".join(parts) + often
    if passed == 0 and skipped and not failed and not lost:
        return True, f"skipped: {detail}"
    # 5: a process whose share held no test.
    good = not failed and not lost and passed > 0 and all(d.status in (0, 5) for d in done)
    return good, detail


# ------------------------------------------------------------------ sanitizers


def find_sanitizer() -> str | None:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [shutil.which("compute-sanitizer")]
    places += [str(Path(home, "bin", "compute-sanitizer")) for home in homes if home]
    return next((p for p in places if p and os.access(p, os.X_OK)), None)


def _sanitizers(env: dict[str, str]) -> list[Stage]:
    program = find_sanitizer()
    missing = None if program else "compute-sanitizer is not installed (it comes with CUDA)"
    env = {
        **env,
        # Each tensor an allocation of its own, so that one step past its end is seen.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
        "CUDA_MODULE_LOADING": "LAZY",  # only kernels that are launched need to be instrumented
    }
    # API errors are not asked for: PyTorch and Triton provoke some on purpose, to find out what
    # the driver can do. Failing launches of our own raise.
    options = "--error-exitcode 9 --report-api-errors no --print-limit 20 --launch-timeout 0"
    return [
        Stage(
            tool,
            [
                [program or "", "--tool", tool, *options.split()]
                + [sys.executable, str(ROOT / "tests" / "gpu_small.py")]
            ],
            "sanitizer.log",
            150,
            missing,
            lambda done, tool=tool: read_sanitizer(tool, done[0]),
            env,
        )
        for tool in TOOLS
    ]


def read_sanitizer(tool: str, done: Done) -> tuple[bool, str]:
    text = done.output
    calls = re.search(r"(\d+) calls, (\d+) wrong", text)
    if "Device not supported" in text:
        return True, "skipped: compute-sanitizer does not support this device or its driver"
    if done.status == 3 and calls and calls[1] == "0":
        why = re.findall(r"left out: (.*)", text)
        return True, f"skipped: no backend has kernels to watch: {'; '.join(why)}"
    if tool == "racecheck":
        found = re.search(r"RACECHECK SUMMARY: \d+ hazards?.*?\((\d+) errors?, (\d+) warn", text)
        summary = f"{found[1]} hazards, {found[2]} warnings" if found else ""
    else:
        found = re.search(r"ERROR SUMMARY: (\d+) errors?", text)
        summary = f"{found[1]} errors" if found else ""
    if found is None:
        return False, f"{tool} printed no summary (exit status {done.status})"
    detail = (
        f"{summary} in {calls[1]} calls, {calls[2]} wrong" if calls else f"{summary}; cut short"
    )
    left_out = re.findall(r"left out: (\w+)", text)
    detail += f"; without {', '.join(left_out)}" if left_out else ""
    clean = found[1] == "0" and calls is not None and calls[2] == "0"
    return clean and done.status == 0, detail


# ------------------------------------------------------------------ benchmarks


def read_benchmarks(done: list[Done], path: Path) -> tuple[bool, str]:
    if not path.exists():
        return by_last_line(done[0])
    report = json.loads(path.read_text(encoding="utf-8"))
    detail = f"{len(report['results'])} cases"
    if report["copy_gb_per_s"]:
        detail += f", copy {report['copy_gb_per_s']:.0f} GB/s"
    first = next((r for r in report["results"] if "share_of_floor" in r["providers"]["ours"]), None)
    if first:
        detail += (
            f", {first['case']}: {first['providers']['ours']['share_of_floor']:.0%} of the floor"
        )
    failed, absent = report["failed"], report["not_measured"]
    detail += f"; failed: {', '.join(failed)}" if failed else ""
    detail += f"; not measured: {', '.join(absent)}" if absent else ""
    return done[0].status == 0 and not absent and not failed, detail


def by_last_line(done: Done) -> tuple[bool, str]:
    lines = done.output.strip().splitlines() or ["no output"]
    return False, f"exit status {done.status}: {lines[-1]}"


def figures(path: Path) -> str:
    """One line for each case: time, share of the floor, ratios, and the goals that go with them."""
    if not path.exists():
        return ""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return ""
    goals: dict[str, list[str]] = {}
    for goal in judge(report):
        if goal["case"] is not None:
            wants = [part["want"] for part in goal["parts"]]
            goals.setdefault(goal["case"], []).append(f"{goal['verdict']}: {', '.join(wants)}")
    lines = []
    for r in report["results"]:
        ours = r["providers"]["ours"]
        parts = [f"{ours['median_ms'] * 1e3:.1f} µs"]
        if "share_of_floor" in ours:
            parts.append(f"floor {ours['share_of_floor']:.2f}")
        parts += [
            f"{name} {figures['median_ms'] / ours['median_ms']:.1f}×"
            for name, figures in r["providers"].items()
            if name != "ours"
        ]
        said = "".join(f" ({text})" for text in goals.get(r["case"], ()))
        lines.append(f"{r['case']}: {', '.join(parts)}{said}")
    return "\n".join(lines)
