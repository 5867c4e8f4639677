"""Packs what `make gpu WHEEL=…` needs on a machine without a network: `make gpu-wheel`, or

    python tools/gpu_wheel.py [--arch 9.0] [--python 3.12] [--out build/gpu-wheel]

Needs nvcc and no GPU. The folder then holds the package's own wheel, which runs with every PyTorch
from 2.10 and every Python from 3.10 (stable ABI, limited API), and the wheels that its tests and
benchmarks need, for one version of Python. The build uses this Python's PyTorch where that has
CUDA, otherwise one downloaded into build/gpu-wheel-env (variable TORCH).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.11.0"  # its wheel for Linux is made for CUDA 13.0
BUILDERS = ("setuptools>=70.1", "wheel", "ninja")
MOST_MIB = 64  # more may not fit one transfer to a machine

# These come with their dependencies.
WITH_THEIRS = ("pytest>=8", "pytest-xdist>=3.5", "pytest-benchmark>=4", "hypothesis>=6.100")
WITH_THEIRS += ("expecttest>=0.2", "numpy>=1.24", "tqdm>=4.60", "pillow>=10")
# These come without: they depend on PyTorch. They are peers; benchmarks name missing ones.
ALONE = ("timm>=1.0.29", "liger-kernel>=0.5")
GLIBC = (17, 27, 28)  # minor versions of glibc on systems with CUDA 13, oldest first


def say(text: str) -> None:
    print(f"gpu-wheel: {text}", flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None) -> bool:
    whole = {**os.environ, **(env or {})}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=ROOT, env=whole, stdin=subprocess.DEVNULL).returncode == 0


def cuda_of_torch() -> str | None:
    """The CUDA that this Python's PyTorch is made for, found without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], "version.py")
    return runpy.run_path(str(path)).get("cuda") if path.exists() else None


def builder() -> Path:
    """A Python with a PyTorch made for CUDA and what builds wheels."""
    absent = [w for w in ("setuptools", "wheel") if importlib.util.find_spec(w) is None]
    if cuda_of_torch() and not absent:
        return Path(sys.executable)
    folder = ROOT / "build" / "gpu-wheel-env"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, symlinks=True, clear=True)
    wanted = os.environ.get("TORCH") or TORCH
    say(f"{sys.executable} has no PyTorch made for CUDA; {wanted} goes into {folder}")
    if not run(python, "-m", "pip", "install", "--quiet", wanted, *BUILDERS):
        sys.exit(f"gpu-wheel: {wanted} could not be installed; PYTHON=… names a Python that has it")
    return python


def build(python: Path, arch: str, out: Path) -> Path:
    """The package's wheel with both modules. Removes older ones, so that there is one."""
    for old in out.glob("fused_mixup-*.whl"):
        old.unlink()
    env = {"FUSED_MIXUP_CUDA": "1", "TORCH_CUDA_ARCH_LIST": arch}
    command = (python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    if not run(*command, "--wheel-dir", out, ROOT, env=env):
        sys.exit("gpu-wheel: the build failed; see above")
    (wheel,) = out.glob("fused_mixup-*.whl")
    return wheel


def downloads(version: str, out: Path) -> list[list[str]]:
    """The commands that download the other wheels, for Python ``version`` on 64-bit Linux."""
    common = [sys.executable, *"-m pip download --quiet --disable-pip-version-check".split()]
    common += ["--only-binary", ":all:", "--python-version", version, "--implementation", "cp"]
    for minor in reversed(GLIBC):
        common += ["--platform", f"manylinux_2_{minor}_x86_64"]
    common += ["--platform", "manylinux2014_x86_64", "--dest", str(out)]
    return [[*common, *WITH_THEIRS], *([*common, "--no-deps", name] for name in ALONE)]


def fetch(version: str, out: Path, ours: Path) -> list[str]:
    """Downloads the other wheels; returns the packages that failed."""
    for old in out.glob("*.whl"):
        if old != ours:
            old.unlink()
    failed = []
    for command in downloads(version, out):
        if not run(*command):
            failed.append(command[-1] if "--no-deps" in command else ", ".join(WITH_THEIRS))
    return failed


def table(out: Path) -> tuple[str, float]:
    """One line for each wheel, the largest first, and the MiB of all."""
    sizes = {path.name: path.stat().st_size / 2**20 for path in out.glob("*.whl")}
    lines = [f"{size:8.2f} MiB  {name}" for name, size in sorted(sizes.items(), key=_largest)]
    return "\n".join(lines), sum(sizes.values())


def _largest(item: tuple[str, float]) -> float:
    return -item[1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make gpu-wheel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", default="9.0", help="as TORCH_CUDA_ARCH_LIST names it")
    parser.add_argument("--python", default="3.12", help="the version that the tests run under")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-wheel")
    parser.add_argument("--no-fetch", action="store_true", help="the package's own wheel alone")
    args = parser.parse_args(arguments)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    ours = build(builder(), args.arch, out)
    failed = [] if args.no_fetch else fetch(args.python, out, ours)
    text, total = table(out)
    print(text)
    say(f"{total:.1f} MiB in {out}, for CUDA architecture {args.arch}, Python {args.python}")
    for name in failed:
        say(f"left out: {name} could not be downloaded (no network?)")
    if total > MOST_MIB:
        say(f"that is more than {MOST_MIB} MiB, and may not fit one transfer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
