"""Builds the CPU module under a sanitizer, and starts a Python with it.

    address   AddressSanitizer, UndefinedBehaviorSanitizer, assertions of the standard library;
              carries AVX-512 kernels that run on any CPU (avx512_on_any_cpu.h)
    thread    ThreadSanitizer, with a parallel_for whose threads it can see (parallel_for.cpp)
    avx512    as address, with the AVX-512 kernels themselves: for CPUs that run them

Everything goes to build/sanitized, under names made from the content, and is built once.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import sysconfig
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import native_build
import torch
from native_build import ROOT

HERE = Path(__file__).resolve().parent
CPU = ROOT / "csrc" / "cpu"
CACHE = ROOT / "build" / "sanitized"
TORCH = Path(torch.__file__).resolve().parent
PYTHON_HEADERS = Path(sysconfig.get_path("include"))

import build_support  # noqa: E402

# -Og compiles in half the time of -O1 here, and keeps more of what a sanitizer can look at.
# Vectors of 64 bytes without AVX-512 have no ABI across modules; they stay inside one file.
_ADDRESS = "-Og -g1 -fsanitize=address,undefined,float-cast-overflow".split()
_ADDRESS += "-fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS -Wno-psabi".split()


@dataclass(frozen=True)
class Kind:
    flags: list[str]
    runtimes: tuple[str, ...]  # libraries that the process loads before any other
    options: dict[str, str]  # environment variables of a run
    replaced: tuple[str, ...] = ()  # files of csrc/cpu that files of the same name here replace
    added: tuple[str, ...] = ()


_address = Kind(
    _ADDRESS,
    ("libasan.so", "libubsan.so"),
    {
        # Python frees much of its memory only when the process ends.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "2",  # kernels split work on machines of one core, too
    },
    added=("planted.cpp",),
)
KINDS = {
    "address": Kind(
        _address.flags,
        _address.runtimes,
        _address.options,
        ("kernels_baseline.cpp", "kernels_avx512.cpp"),
        _address.added,
    ),
    "avx512": _address,
    "thread": Kind(
        "-O1 -g1 -fsanitize=thread -D_GLIBCXX_ASSERTIONS".split(),
        ("libtsan.so",),
        {
            "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
            # PyTorch's own ops stay in one thread: the sanitizer would see the memory they copy,
            # but not that OpenMP orders it.
            "OMP_NUM_THREADS": "1",
        },
        added=("planted.cpp", "parallel_for.cpp"),
    ),
}


def launch(kind: str) -> native_build.Launch:
    return native_build.launch(KINDS[kind].runtimes)


def options(flags: list[str]) -> list[str]:
    macros = [f"-D{name}={value}" for name, value in build_support.MACROS]
    macros.append("-DFUSED_MIXUP_STREAM_BYTES=2048")  # the small results of the grid take both ways
    include = [f"-I{CPU}"]
    for path in (TORCH / "include", PYTHON_HEADERS):
        include += ["-isystem", str(path)]
    return [*build_support.CXX_FLAGS, "-fPIC", *flags, *macros, *include]


def _digest(options: list[str], files: list[Path]) -> str:
    return native_build.digest((options, torch.__version__, sys.version), files)


def _headers() -> list[Path]:
    return sorted(
        path
        for folder in (CPU, ROOT / "csrc" / "common", HERE)
        for path in folder.iterdir()
        if path.suffix in (".h", ".inl")
    )


def _object(options: list[str], source: Path) -> Path:
    # Replacing files here include the file that they replace.
    files = [source, CPU / source.name] if (CPU / source.name).exists() else [source]
    family = f"{source.stem}-{_digest(options, [])}"  # kinds with the same options share the object
    return native_build.cache(
        CACHE / "objects",
        family,
        _digest(options, [*files, *_headers()]),
        ".o",
        lambda part: native_build.compile_with(*options, "-c", source, "-o", part),
    )


def module(kind: str, pool: Executor) -> Path:
    """A folder for PYTHONPATH with the package and its module under the sanitizer."""
    what = KINDS[kind]
    sources = [CPU / p.name for p in sorted(CPU.glob("*.cpp")) if p.name not in what.replaced]
    sources += [HERE / name for name in (*what.replaced, *what.added)]
    objects = list(pool.map(functools.partial(_object, options(what.flags)), sources))
    # -Bsymbolic: the module calls parallel_for of this folder, not PyTorch's.
    library = TORCH / "lib"
    link = [*what.flags, "-shared", "-Wl,-Bsymbolic", *map(str, objects)]
    link += [f"-L{library}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library}"]
    package = sorted((ROOT / "fused_mixup").glob("*.py"))
    package = [path for path in package if path.name != "_build_info.py"]

    def make(part: Path) -> None:
        inside = part / "fused_mixup"
        inside.mkdir(parents=True)
        native_build.compile_with(*link, "-o", inside / "_C.abi3.so")
        for path in package:
            (inside / path.name).symlink_to(path)

    return native_build.cache(CACHE, kind, _digest([*link, *map(str, package)], objects), "", make)


def stand_ins() -> Path:
    """A library of the AVX-512 stand-ins and of the CPU's instructions, without a sanitizer."""
    options = "-std=c++17 -O1 -fPIC -ffp-contract=off -Wno-psabi -shared".split()
    sources = [HERE / "stand_ins.cpp", HERE / "real_instructions.cpp"]
    return native_build.cache(
        CACHE,
        "stand_ins",
        _digest(options, [*sources, *_headers()]),
        ".so",
        lambda part: native_build.compile_with(*options, *sources, "-o", part),
    )


def run(
    kind: str, folder: Path, arguments: list[str], **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with ``arguments`` and the module in ``folder``, which comes first on the path."""
    options = {**KINDS[kind].options, "PYTHONPATH": str(folder), **env}
    return launch(kind).run(arguments, options, folder)
