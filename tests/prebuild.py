"""Builds what tests load, so that they find it: ``python tests/prebuild.py [tests|proofs]``.

`make test` needs the CUDA kernels for the host. `make proofs` also needs them under the race
detector and the sanitizers, the CPU module under sanitizers, and with nvcc every CUDA kernel for
every architecture. All builds are kept under build/ and repeated only when a source changes; a test
that does not find its build makes it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tools")]

import kernels  # noqa: E402
import test_cpu_sanitizers as cpu_sanitizers  # noqa: E402
from host_cuda import build as host_cuda  # noqa: E402
from occupancy import ARCHS  # noqa: E402
from sanitized import build as sanitized  # noqa: E402

FOR_TESTS = ("plain",)  # variants of the CUDA kernels on the host


def builds(proofs: bool, pool: Executor) -> Iterator[tuple[str, str | None, Callable[[], object]]]:
    """(name, why it cannot be built or None, the function that builds it) of each build."""
    for variant in host_cuda.VARIANTS if proofs else FOR_TESTS:
        why_not = host_cuda.why_not(variant)
        yield f"CUDA kernels on the host, {variant}", why_not, lambda v=variant: host_cuda.build(v)
    if not proofs:
        return
    try:
        tools = kernels.find_tools(os.environ)
        archs = [arch for arch in ARCHS if tools.knows(arch)]
        yield "CUDA kernels by nvcc", None, lambda: kernels.compile_all(tools, archs)
    except kernels.Missing as missing:
        yield "CUDA kernels by nvcc", str(missing), lambda: None
    for kind in dict.fromkeys(kind for kind, _ in cpu_sanitizers.RUNS):
        why_not = cpu_sanitizers.why_not(kind)
        yield f"CPU module, {kind}", why_not, lambda kind=kind: sanitized.module(kind, pool)


def main(chosen: str = "proofs") -> None:
    """Build in parallel. A failure is printed, and repeats in the tests that need the build."""

    def build(name: str, make: Callable[[], object]) -> None:
        started = time.monotonic()
        try:
            make()
        except Exception as error:
            print(f"FAILED: {name}: {error}", flush=True)
        else:
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)

    cores = os.cpu_count() or 1
    # A build waits for its objects, which are compiled in another pool.
    with ThreadPoolExecutor(cores) as objects, ThreadPoolExecutor(cores) as pool:
        for name, why_not, make in builds(chosen == "proofs", objects):
            if why_not is None:
                pool.submit(build, name, make)
            else:
                print(f"LEFT OUT: {name}: {why_not}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
