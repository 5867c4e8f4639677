"""The part of ``make kernels`` on Triton: the compiled code of each of its kernels."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from occupancy import ARCHS, blocks_per_multiprocessor

ROOT = Path(__file__).resolve().parents[1]
COMPILES = ROOT / "tests" / "triton_machine_code.py"
HEAD = ("case", "kernel", "threads", "registers", "shared", "programs", "in flight")


def machine_code(target: str) -> list[dict]:
    """Figures of ``tests/triton_machine_code.py``, once for each kernel."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = [str(ROOT), str(ROOT / "tools"), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    with tempfile.TemporaryDirectory() as cache:
        env["TRITON_CACHE_DIR"] = cache
        done = subprocess.run(
            [sys.executable, str(COMPILES), target], env=env, capture_output=True, text=True
        )
    if done.returncode != 0:
        raise RuntimeError(f"{target}: {done.returncode} {done.stderr[-2000:]}")
    found: dict[str, dict] = {}
    for line in done.stdout.splitlines():
        kernel = json.loads(line)
        found.setdefault(kernel["hash"], kernel)  # under the first case that launches it
    return list(found.values())


def row(kernel: dict, arch: int) -> tuple[object, ...]:
    threads, registers, shared = 32 * kernel["warps"], kernel["registers"], kernel["shared"]
    programs = blocks_per_multiprocessor(ARCHS[arch], threads, registers, shared)
    name = kernel["kernel"].removesuffix("_kernel")
    return (kernel["case"], name, threads, registers, shared, programs, kernel["ahead"])


def tables(archs: Sequence[int]) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """A title and the rows of its kernels, for each architecture."""
    if importlib.util.find_spec("triton") is None:
        print("left out: Triton is not installed", file=sys.stderr)
        return
    from triton import __version__ as version

    for arch in archs:
        name = ARCHS[arch].name
        yield f"Triton {version}, {name}", [row(k, arch) for k in machine_code(name)]
