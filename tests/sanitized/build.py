"""Builds the CPU module under a sanitizer, and says how a Python runs with it: :class:`Build`.

    address   AddressSanitizer, UndefinedBehaviorSanitizer, assertions of the standard library;
              carries AVX-512 kernels that run on any CPU (avx512_on_any_cpu.h)
    thread    ThreadSanitizer, with a parallel_for whose threads it can see (parallel_for.cpp)
    avx512    as address, with the AVX-512 kernels themselves: for CPUs that run them

Everything goes to build/sanitized, under names made from the content, and is built once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CPU = ROOT / "csrc" / "cpu"
CACHE = ROOT / "build" / "sanitized"
TORCH = Path(torch.__file__).resolve().parent
PYTHON_HEADERS = Path(sysconfig.get_path("include"))

sys.path.append(str(ROOT / "tools"))

import build_probes  # noqa: E402
import build_support  # noqa: E402

# -Og compiles in half the time of -O1 here, and keeps more of what a sanitizer can look at.
# Vectors of 64 bytes without AVX-512 have no ABI across modules; they stay inside one file.
_ADDRESS = "-Og -g1 -fsanitize=address,undefined,float-cast-overflow".split()
_ADDRESS += "-fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS -Wno-psabi".split()


@dataclass(frozen=True)
class Kind:
    flags: list[str]
    runtimes: tuple[str, ...]  # libraries that must be in the process before any other
    options: dict[str, str]  # environment of a run
    replaced: tuple[str, ...] = ()  # files of csrc/cpu whose namesakes here are taken instead
    added: tuple[str, ...] = ()


_address = Kind(
    _ADDRESS,
    ("libasan.so", "libubsan.so"),
    {
        # Python leaves much of its memory to the end of the process.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "2",  # work is split on machines of one core, too
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


@functools.cache
def compiler() -> list[str] | str:
    """The command that compiles, or why nothing can be compiled here."""
    command, text = build_probes.find_compiler(os.environ)
    return shlex.split(command) if command else text


def _runtime(name: str) -> Path | None:
    """A sanitizer's library, which some distributions keep as a linker script that names it."""
    command = [*compiler(), f"-print-file-name={name}"]
    found = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    if not found.is_absolute() or not found.exists():
        return None
    if found.read_bytes()[:4] != b"\x7fELF":
        named = re.search(r"INPUT\s*\(\s*(\S+)", found.read_text(errors="replace"))
        found = Path(named.group(1)) if named else found
    return found.resolve()


def _trial(command: list[str], preload: str) -> str:
    """What goes wrong with a Python under a sanitizer's library; "" if nothing does."""
    code = "import threading; threading.Thread(target=print).start()"
    done = subprocess.run(
        [*command, sys.executable, "-c", code],
        env={**os.environ, "LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
    )
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")


@dataclass(frozen=True)
class Launch:
    """How a Python under a sanitizer is started, or ``why_not``."""

    prefix: list[str]
    preload: str = ""
    why_not: str | None = None


@functools.cache
def launch(kind: str) -> Launch:
    if sys.platform != "linux":
        return Launch([], why_not="sanitizers are preloaded as on Linux only")
    if isinstance(compiler(), str):
        return Launch([], why_not=str(compiler()))
    paths = {name: _runtime(name) for name in KINDS[kind].runtimes}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        return Launch([], why_not=f"{compiler()[0]} comes without {' and '.join(missing)}")
    preload = " ".join(str(path) for path in paths.values())
    # ThreadSanitizer of older compilers has no place for the addresses that newer kernels draw.
    still = ["setarch", os.uname().machine, "-R"]
    trials = []
    for prefix in ([], still):
        try:
            trials.append(_trial(prefix, preload))
        except OSError as error:
            trials.append(str(error))
        if not trials[-1]:
            return Launch(prefix, preload)
    return Launch([], why_not=f"Python does not run under {preload}: {trials[0].splitlines()[0]}")


def _compile_command(flags: list[str]) -> list[str]:
    macros = [f"-D{name}={value}" for name, value in build_support.MACROS]
    include = [f"-I{CPU}"]
    for path in (TORCH / "include", PYTHON_HEADERS):
        include += ["-isystem", str(path)]
    return [*compiler(), *build_support.CXX_FLAGS, "-fPIC", *flags, *macros, *include]


def _digest(command: list[str], files: list[Path]) -> str:
    state = hashlib.sha256(f"{command} {torch.__version__} {sys.version}".encode())
    version = subprocess.run([*compiler(), "--version"], capture_output=True)
    state.update(version.stdout)
    for path in files:
        state.update(path.name.encode() + path.read_bytes())
    return state.hexdigest()[:16]


def _run(command: list[str], out: Path) -> Path:
    """``command`` with ``-o out``, in one step: another process may be at the same file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{os.getpid()}-{out.name}")
    done = subprocess.run([*command, "-o", str(part)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")
    os.replace(part, out)
    return out


def _headers() -> list[Path]:
    return sorted(
        path
        for folder in (CPU, ROOT / "csrc" / "common", HERE)
        for path in folder.iterdir()
        if path.suffix in (".h", ".inl")
    )


def _object(command: list[str], source: Path) -> Path:
    # The namesakes here include the file that they stand for.
    files = [source, CPU / source.name] if (CPU / source.name).exists() else [source]
    digest = _digest(command, [*files, *_headers()])
    out = CACHE / "objects" / f"{source.stem}-{digest}.o"
    return out if out.exists() else _run([*command, "-c", str(source)], out)


def module(kind: str, pool: Executor) -> Path:
    """A folder for PYTHONPATH with the package and its module under the sanitizer."""
    what = KINDS[kind]
    command = _compile_command(what.flags)
    sources = [CPU / p.name for p in sorted(CPU.glob("*.cpp")) if p.name not in what.replaced]
    sources += [HERE / name for name in (*what.replaced, *what.added)]
    objects = list(pool.map(functools.partial(_object, command), sources))
    # -Bsymbolic: parallel_for here is taken, not the one of PyTorch.
    library = TORCH / "lib"
    link = [*compiler(), *what.flags, "-shared", "-Wl,-Bsymbolic", *map(str, objects)]
    link += [f"-L{library}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library}"]
    folder = CACHE / f"{kind}-{_digest(link, objects)}"
    out = folder / "fused_mixup" / "_C.abi3.so"
    if not out.exists():
        _run(link, out)
    for source in (ROOT / "fused_mixup").glob("*.py"):
        if source.name != "_build_info.py" and not (out.parent / source.name).is_symlink():
            _link(source, out.parent / source.name)
    return folder


def _link(source: Path, at: Path) -> None:
    part = at.with_name(f".{os.getpid()}-{at.name}")
    part.symlink_to(source)
    os.replace(part, at)


def stand_ins() -> Path:
    """A library of the AVX-512 stand-ins and of the CPU's own instructions; no sanitizer."""
    command = [*compiler(), *"-std=c++17 -O1 -fPIC -ffp-contract=off -Wno-psabi -shared".split()]
    sources = [HERE / "stand_ins.cpp", HERE / "real_instructions.cpp"]
    out = CACHE / f"stand_ins-{_digest(command, [*sources, *_headers()])}.so"
    return out if out.exists() else _run([*command, *map(str, sources)], out)


def run(
    kind: str, folder: Path, arguments: list[str], **env: str
) -> subprocess.CompletedProcess[str]:
    """Python with ``arguments`` and the module in ``folder``."""
    how = launch(kind)
    return subprocess.run(
        [*how.prefix, sys.executable, *arguments],
        env={
            **os.environ,
            **KINDS[kind].options,
            "OMP_WAIT_POLICY": "passive",
            "LD_PRELOAD": how.preload,
            "PYTHONPATH": str(folder),
            **env,
        },
        cwd=folder,  # where python -c looks first
        capture_output=True,
        text=True,
        timeout=1800,
    )
