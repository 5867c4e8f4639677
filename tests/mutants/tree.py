"""A copy of the sources in which edits are tried, with a CPU module of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import native_build
import numpy  # noqa: F401 - imported once for all tests, as torch, Triton and pytest are
import pytest
import triton.language  # noqa: F401
from native_build import ROOT
from sanitized import build as sanitized

from .edits import Edit

TREE = ROOT / "build" / "mutants"
# The drivers of tests/host_cuda that a file of tests calls; others call all of them.
DRIVERS = {
    "tests/test_cuda_host_cluster.py": "loss",
    "tests/test_cuda_host_collage.py": "collage mix",
    "tests/test_cuda_host_launches.py": "loss mix plan",
    "tests/test_cuda_host_loss.py": "loss",
    "tests/test_cuda_host_masks.py": "masks mix",
    "tests/test_cuda_host_mix.py": "mix",
    "tests/test_cuda_host_normalize.py": "normalize mix",
    "tests/test_cuda_host_plan.py": "plan",
    "tests/test_cuda_host_ring.py": "mix",
}
TIMEOUT = 600  # seconds of an edit's tests; one that makes a loop endless counts as seen


def _files() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def copy_sources() -> None:
    """Make the copy equal the sources; what was built in it stays."""
    names = _files()
    for name in names:
        content, copy = (ROOT / name).read_bytes(), TREE / name
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    kept = {TREE / name for name in names}
    for folder in ("csrc", "fused_mixup", "tests", "triton_kernels"):
        for path in (TREE / folder).rglob("*"):
            if path.is_file() and path not in kept and path.suffix != ".so":
                path.unlink()


_kernels: dict[str, Path] = {}  # objects of kernels that edits leave as they are


def build_cpu() -> None:
    """fused_mixup._C of the copy, where only files that changed are compiled.

    An edit of a kernel (*.inl) reaches the baseline's alone, which its tests ask for: those of
    larger vectors come from the same lines, and take longest to compile.
    """
    cpu, built = TREE / "csrc" / "cpu", TREE / "build" / "cpu"
    options = [option for option in sanitized.options(["-O0"]) if option != f"-I{sanitized.CPU}"]

    def compile_one(source: Path) -> Path:
        if source.name in _kernels:
            return _kernels[source.name]
        made = native_build.object_file(built, [*options, f"-I{cpu}"], source)
        if source.name.startswith("kernels_avx"):
            _kernels[source.name] = made
        return made

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        objects = list(pool.map(compile_one, sorted(cpu.glob("*.cpp"))))
    library = sanitized.TORCH / "lib"
    link = ["-shared", *objects, f"-L{library}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library}"]
    out = TREE / "fused_mixup" / "_C.abi3.so"
    native_build.compile_with(*link, "-o", out.with_suffix(".new"))
    os.replace(out.with_suffix(".new"), out)


@contextmanager
def edited(edit: Edit) -> Iterator[None]:
    path = TREE / edit.file
    before = path.read_text()
    path.write_text(edit.applied(TREE))
    if path.suffix == ".inl":
        os.environ["FUSED_MIXUP_CPU"] = "baseline"
    try:
        yield
    finally:
        path.write_text(before)
        os.environ.pop("FUSED_MIXUP_CPU", None)


def _in_the_copy(tests: str, drivers: str) -> None:
    """Run pytest in this process, a fork, as if it had started in the copy; exit with its code."""

    def ours(path: str) -> bool:
        return path.startswith(str(ROOT)) and not path.startswith(sys.prefix)

    for name, module in list(sys.modules.items()):
        if ours(str(getattr(module, "__file__", None) or "")):
            del sys.modules[name]
    sys.path[:] = [str(TREE), *(path for path in sys.path if not ours(path))]
    os.chdir(TREE)
    # An edit may keep a file's size and second, by which Python knows its bytecode.
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(TREE), "PYTHONDONTWRITEBYTECODE": "1"}
    words = shlex.split(tests)
    drivers = drivers or DRIVERS.get(words[0], "")
    if drivers:
        os.environ["FUSED_MIXUP_HOST_DRIVERS"] = drivers
    os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *words])))


def run_tests(tests: str, drivers: str = "") -> tuple[str, str]:
    """("passed", "failed", "crashed", "endless" or "broken", the output).

    The tests run in a fork of this process, which has imported what takes seconds to import.
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile("w+") as file:
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                _in_the_copy(tests, drivers)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(3)
        until = time.monotonic() + TIMEOUT
        endless = False
        while (done := os.waitpid(child, 0 if endless else os.WNOHANG))[0] == 0:
            time.sleep(0.05)
            if time.monotonic() > until:
                os.killpg(child, signal.SIGKILL)
                endless = True
        file.seek(0)
        output = file.read()
    code = os.waitstatus_to_exitcode(done[1])
    if endless:
        return "endless", output
    if code == 0 and " passed" not in output:
        return "broken", output  # all were skipped
    return {0: "passed", 1: "failed"}.get(code, "crashed" if code < 0 else "broken"), output
