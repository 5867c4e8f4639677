"""Compiles the CUDA kernels with the host compiler into a shared library: :func:`library`."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = ("driver_mix.cpp", "driver_loss.cpp")
# Contraction off: the intrinsics that round separately are plain operators on the host.
FLAGS = "-std=c++17 -O1 -fPIC -ffp-contract=off -fno-strict-aliasing -DFUSED_MIXUP_HOST".split()
FLAGS += "-Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function".split()
SANITIZE = "-g -fsanitize=undefined,address -fno-sanitize-recover=undefined".split()


def compiler() -> str | None:
    """The host compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")


def build(sanitize: bool = False) -> Path:
    """The library's path; compiled unless the cache has it for these very sources.

    A sanitized library needs ``LD_PRELOAD=$(g++ -print-file-name=libasan.so)`` and
    ``ASAN_OPTIONS=detect_leaks=0`` in the environment of the Python that loads it.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("no host C++ compiler (g++); set CXX")
    flags = FLAGS + (SANITIZE if sanitize else [])
    files = [
        *(ROOT / "csrc" / "common").glob("*.h"),
        *(ROOT / "csrc" / "cuda").glob("*.cuh"),
        *HERE.glob("*.h"),
        *HERE.glob("*.cpp"),
    ]
    digest = hashlib.sha256(" ".join([cxx, *flags]).encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    cache = ROOT / "build" / "host_cuda"
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"host_cuda_{digest.hexdigest()[:16]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=cache) as folder:

        def compile_one(source: str) -> str:
            out = f"{folder}/{source}.o"
            run = [cxx, *flags, f"-I{HERE}", "-c", str(HERE / source), "-o", out]
            subprocess.run(run, check=True)
            return out

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compile_one, SOURCES))
        linked = f"{folder}/linked.so"
        subprocess.run([cxx, *flags, "-shared", *objects, "-o", linked], check=True)
        os.replace(linked, path)  # in one step: another process may be building it too
    return path


def library() -> ctypes.CDLL:
    """The kernels on the host. ``FUSED_MIXUP_HOST_SANITIZE=1`` builds it with the sanitizers."""
    lib = ctypes.CDLL(str(build(os.environ.get("FUSED_MIXUP_HOST_SANITIZE") == "1")))
    lib.host_error.restype = ctypes.c_char_p
    return lib


if __name__ == "__main__":
    print(build())
