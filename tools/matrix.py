"""Builds, imports and tries the package under each PyTorch and Python that it names.

    python tools/matrix.py [--torch 2.10.0 ...] [--python 3.12 ...] [--home DIR] [--clean]
                           [--wheel FILE]

Each PyTorch gets its own environment and these steps: build from source (for 2.11, whose wheel has
CUDA, both modules if nvcc is there), install, import, `python -m fused_mixup.env`, and
tests/smoke.py on every backend that runs. Then the newest PyTorch's binary runs under the oldest
PyTorch, the oldest's under the newest, and one binary under every other Python. Each prints a line
with seconds. Missing interpreters and tools are named and skipped; the exit code tells of failures.
With --wheel nothing is built: that file is tried everywhere.

Environments lie in build/matrix (--home) and are reused while intact; --clean, the default where
CI is set, removes each after its last use.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_probes
from matrix_env import NEWEST, ROOT, Environment, Interpreter, Result, interpreters, make, run

TORCHES = ("2.10.0", "2.11.0", "2.13.0", NEWEST)
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.13t", "3.14t")
WITH_CUDA = "2.11.0"  # the PyTorch for which the CUDA module is built too, which is slow
TORCH_OF_PYTHONS = "2.13.0"
ARCHITECTURE = "9.0"
SMOKE = ROOT / "tests" / "smoke.py"

IMPORT = """
import sys, torch, fused_mixup
from fused_mixup import backends
print(fused_mixup.__file__)
for device in sys.argv[1:]:
    __import__("fused_mixup." + backends.MODULES[device])
    why = backends.reason_unavailable("native", device)
    if why is not None:
        sys.exit(f"error: no native backend for {device}: {why}")
"""


class Line:
    """One cell, printed step by step; ``failed`` once a step has failed."""

    def __init__(self, name: str) -> None:
        self.failed = False
        print(name, end="", flush=True)

    def add(self, step: str, done: Result) -> bool:
        self.failed |= not done.ok
        text = "ok" if done.ok else f"FAILED ({done.last_line()})"
        print(f"  {step} {text} {done.seconds:.0f}s", end="", flush=True)
        if not done.ok:
            print(f"\n{done.output}\n", file=sys.stderr, flush=True)
        return done.ok

    def say(self, text: str) -> None:
        print(f"  {text}", end="", flush=True)

    def end(self) -> bool:
        print(flush=True)
        return not self.failed


# ------------------------------------------------------------------ the steps of a cell


def build(environment: Environment, cuda: bool, wheels: Path) -> tuple[Result, Path | None]:
    """Builds a wheel from source; returns its path."""
    folder = wheels / environment.folder.name
    shutil.rmtree(folder, ignore_errors=True)
    settings = {"FUSED_MIXUP_CUDA": "1" if cuda else "0", "TORCH_CUDA_ARCH_LIST": ARCHITECTURE}
    # PyTorch finds ninja on the PATH.
    settings["PATH"] = os.pathsep.join([str(environment.folder / "bin"), os.environ["PATH"]])
    command = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--verbose")
    done = environment.pip(*command, "--wheel-dir", folder, ROOT, timeout=1800, **settings)
    found = sorted(folder.glob("*.whl"))
    return done, found[0] if done.ok and found else None


def try_wheel(line: Line, environment: Environment, wheel: Path, devices: list[str]) -> None:
    """Runs install, import, env and smoke in a folder without sources."""
    replace = ("install", "--no-deps", "--no-index", "--force-reinstall")
    if not line.add("install", environment.pip(*replace, wheel, timeout=300)):
        return
    with tempfile.TemporaryDirectory() as elsewhere:

        def python(*arguments: str, timeout: float = 300, **env: str) -> Result:
            return run([environment.python, *arguments], timeout, env=env, cwd=Path(elsewhere))

        if not line.add("import", python("-c", IMPORT, *devices)):
            return
        line.add("env", python("-m", "fused_mixup.env"))
        for backend in ("native", "reference", "triton"):
            interpreted = {"TRITON_INTERPRET": "1"} if backend == "triton" else {}
            if backend == "triton" and not environment.has("triton"):
                line.say("triton left out (not installed with this PyTorch)")
                continue
            line.add(backend, python(str(SMOKE), backend, timeout=900, **interpreted))


def why_no_cuda(environment: Environment) -> str | None:
    """Why the CUDA module is not built for this PyTorch."""
    code = "import torch; print(torch.version.cuda)"
    cuda = run([environment.python, "-c", code], timeout=300).output.strip().splitlines()[-1]
    if cuda == "None":
        return f"PyTorch {environment.torch} is built without CUDA"
    toolkit, why, _ = build_probes.find_toolkit(os.environ)
    if toolkit is None:
        return why
    return build_probes.version_mismatch(build_probes.Torch(environment.torch, cuda), toolkit)


# ------------------------------------------------------------------ all cells


class Matrix:
    def __init__(self, home: Path, clean: bool, wheel: Path | None = None) -> None:
        self.home, self.clean, self.wheel = home, clean, wheel
        self.good = True
        self.wheels: dict[str, Path] = {}
        self.environments: dict[str, Environment] = {}

    def torch_cell(self, name: str, environment: Environment, python: Interpreter) -> None:
        line = Line(f"torch {environment.torch or name} python {python.version}")
        if environment.why_not is not None:
            line.say(f"left out ({environment.why_not})")
            line.end()
            return
        line.say(f"environment {environment.seconds:.0f}s")
        for note in environment.notes:
            line.say(f"({note})")
        self.environments[name] = environment
        if self.wheel is not None:
            self.wheels[name] = self.wheel
            try_wheel(line, environment, self.wheel, ["CPU"])
            self.good &= line.end()
            return
        without = why_no_cuda(environment) if name == WITH_CUDA else "not here"
        done, wheel = build(environment, without is None, self.home / "wheels")
        if line.add("build" if without else "build with CUDA", done) and wheel is not None:
            if without and name == WITH_CUDA:
                line.say(f"CUDA module left out ({without})")
            self.wheels[name] = wheel
            try_wheel(line, environment, wheel, ["CPU"] if without else ["CPU", "CUDA"])
        self.good &= line.end()

    def binary_cell(self, built: str, under: str) -> None:
        line = Line(f"binary of torch {self.name(built)} under {self.name(under)}")
        if built not in self.wheels or under not in self.environments:
            line.say("left out (one of the two is not there)")
            line.end()
            return
        try_wheel(line, self.environments[under], self.wheels[built], ["CPU"])
        self.good &= line.end()

    def python_cell(self, environment: Environment, python: Interpreter) -> None:
        line = Line(f"python {python.version} torch {environment.torch or TORCH_OF_PYTHONS}")
        wheel = next(iter(reversed(self.wheels.values())), None)
        if python.version.endswith("t") and environment.why_not is None:
            # It has no limited API, so another Python's binary does not load.
            wheel = None
            if self.wheel is None:
                done, wheel = build(environment, False, self.home / "wheels")
                line.add("build", done)
        if environment.why_not is not None or wheel is None:
            line.say(f"left out ({environment.why_not or 'there is no binary'})")
            line.end()
            return
        line.say(f"environment {environment.seconds:.0f}s")
        try_wheel(line, environment, wheel, ["CPU"])
        self.good &= line.end()

    def name(self, key: str) -> str:
        return self.environments[key].torch if key in self.environments else key

    def release(self, *environments: Environment) -> None:
        for environment in environments if self.clean else ():
            environment.remove()


def run_all(matrix: Matrix, torches: list[str], pythons: list[str]) -> bool:
    found = interpreters(PYTHONS)
    mine = next(i for i in found.values() if i.path == Path(sys.executable))
    others = [found[v] for v in pythons if v in found and v != mine.version]
    # One environment downloads while another builds: network and processor work in parallel.
    with ThreadPoolExecutor(1) as pool:

        def start(torch: str, python: Interpreter) -> Future[Environment]:
            return pool.submit(make, matrix.home, torch, python)

        made = [(torch, start(torch, mine)) for torch in torches]
        under = [(python, start(TORCH_OF_PYTHONS, python)) for python in others]
        ends = (torches[0], torches[-1])
        for torch, future in made:
            matrix.torch_cell(torch, future.result(), mine)
            if torch not in ends:
                matrix.release(future.result())
        if ends[0] != ends[1] and matrix.wheel is None:
            matrix.binary_cell(ends[1], ends[0])
            matrix.binary_cell(ends[0], ends[1])
        matrix.release(*(future.result() for _, future in made))
        for python, made_under in under:
            matrix.python_cell(made_under.result(), python)
            matrix.release(made_under.result())
    for version in pythons:
        if version not in found:
            print(f"python {version}  left out (no such interpreter on this machine)")
    return matrix.good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", action="append", metavar="VERSION", help="2.10.0 … or newest")
    parser.add_argument("--python", action="append", metavar="VERSION", help="3.10 … or none")
    parser.add_argument("--home", type=Path, default=ROOT / "build" / "matrix")
    parser.add_argument("--wheel", type=Path, metavar="FILE")
    parser.add_argument("--clean", action="store_true", default=bool(os.environ.get("CI")))
    asked = parser.parse_args()
    pythons = [v for v in asked.python or PYTHONS if v != "none"]
    wheel = asked.wheel.resolve() if asked.wheel else None  # the trials run in another folder
    started = time.monotonic()
    good = run_all(Matrix(asked.home, asked.clean, wheel), asked.torch or list(TORCHES), pythons)
    print(f"matrix: {'ok' if good else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
