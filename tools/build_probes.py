"""Finds PyTorch, a C++ compiler, a CUDA toolkit and GPUs for build_support.py.

This module needs the standard library alone. It finds PyTorch without importing it, and imports
it only to ask which GPUs are visible, where no architecture is named.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIN_TORCH = (2, 10)
DEFAULT_ARCHS = ((8, 0), (9, 0), (10, 0))
DEFAULT_CUDA_HOME = Path("/usr/local/cuda")

# An extension needs C++17 and its standard library.
_PROBE_SOURCE = "#include <optional>\n#include <cstdint>\nstd::optional<int> probe;\n"


class BuildError(Exception):
    """The build cannot be done as asked. The message says what is missing and the remedy."""


@dataclass(frozen=True)
class Torch:
    version: str  # "2.11.0+cu130"
    cuda: str | None  # "13.0"
    isolated: bool = False  # pip fetched it for this build alone; the PyTorch in use may be another


@dataclass(frozen=True)
class Toolkit:
    home: Path
    version: str  # "13.0"
    archs: tuple[tuple[int, int], ...]  # compute capabilities it can compile for; () if unknown


# ------------------------------------------------------------------ PyTorch


def find_torch() -> Torch:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        remedy = "pip install torch first, or leave --no-build-isolation out"
        if "musl" in str(sysconfig.get_config_var("SOABI")):
            remedy = (
                "there are no wheels of it for musl (Alpine); use a system with glibc, such as the "
                "image python:3.12-slim"
            )
        raise BuildError(
            f"fused_mixup is built against PyTorch, and this Python has none; {remedy}"
        )
    values = runpy.run_path(os.path.join(spec.submodule_search_locations[0], "version.py"))
    isolated = "pip-build-env-" in spec.submodule_search_locations[0]
    found = Torch(str(values["__version__"]), values.get("cuda"), isolated)
    if _numbers(found.version)[:2] < MIN_TORCH:
        raise BuildError(
            f"fused_mixup needs PyTorch {'.'.join(map(str, MIN_TORCH))} or newer, "
            f"this Python has {found.version}; pip install --upgrade torch"
        )
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0]))


# ------------------------------------------------------------------ C++ compiler


def find_compiler(env: Mapping[str, str]) -> tuple[str | None, str]:
    """The C++ compiler as (command, description), or (None, why there is none)."""
    if os.name == "nt":
        return None, "Windows is not supported yet"
    headers = sysconfig.get_path("include")
    if not os.path.exists(os.path.join(headers, "Python.h")):
        return None, (
            "the headers of this Python are missing (Python.h); install its development package, "
            "such as python3-dev"
        )
    asked = env.get("CXX")
    why = "no C++ compiler found (c++, g++, clang++); install one, or name it in CXX"
    for command in [asked] if asked else ["c++", "g++", "clang++"]:
        program = shutil.which(shlex.split(command)[0], path=env.get("PATH"))
        if program is None:
            if asked:
                why = f"CXX={asked} is not a program that can be run"
            continue
        run = [program, *shlex.split(command)[1:]]
        trial = _run([*run, "-std=c++17", "-x", "c++", "-fsyntax-only", "-"], _PROBE_SOURCE)
        if trial.returncode == 0:
            version = _run([*run, "--version"]).stdout.splitlines()
            return command, version[0] if version else command
        error = (trial.stderr.strip().splitlines() or ["no message"])[0]
        why = f"{command} does not compile a C++17 file: {error}"
    return None, why


def _run(command: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


# ------------------------------------------------------------------ jobs

JOB_MB = {"_C": 500, "_C_cuda": 1000}  # what one compiler takes at most, with room to spare


def free_memory(root: Path = Path("/")) -> int | None:
    """MB that the compilers may take: what is free, in this container; None where unknown."""
    found = []
    listed = re.search(r"MemAvailable: *(\d+) kB", _text(root / "proc/meminfo"))
    if listed:
        found.append(int(listed[1]) * 1024)
    for name, limit, used in (
        ("sys/fs/cgroup", "memory.max", "memory.current"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        group = root / name
        values = [_text(group / file).strip() for file in (limit, used)]
        if all(value.isdigit() for value in values):  # "max" where there is no limit
            cached = re.search(r"^inactive_file (\d+)", _text(group / "memory.stat"), re.MULTILINE)
            found.append(int(values[0]) - int(values[1]) + (int(cached[1]) if cached else 0))
    return min(found) // 2**20 if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def compile_jobs(modules: Sequence[str], cores: int, free: int | None) -> int:
    """How many files are compiled at once: as many as there are cores, and as memory holds."""
    largest = max((JOB_MB[name] for name in modules), default=1)
    return cores if free is None else max(1, min(cores, free // largest))


# ------------------------------------------------------------------ CUDA toolkit


def _missing_files(home: Path) -> str | None:
    missing = [p for p in ("bin/nvcc", "include/cuda_runtime.h") if not (home / p).exists()]
    return f"{home} has no {' and no '.join(missing)}" if missing else None


def find_toolkit(
    env: Mapping[str, str], default: Path = DEFAULT_CUDA_HOME
) -> tuple[Toolkit | None, str | None, list[str]]:
    """The CUDA toolkit, why there is none, and notes on guesses that were wrong.

    CUDA_HOME and CUDA_PATH are used as given. ``nvcc`` on the PATH may be a wrapper script outside
    its toolkit, so a home guessed from it counts only if the headers are there.
    """
    notes: list[str] = []
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if env.get(name):
            home = Path(env[name])
            wrong = _missing_files(home)
            if wrong:
                return None, f"{name} does not name a CUDA toolkit: {wrong}", notes
            return _toolkit(home), None, notes
    guesses = []
    nvcc = shutil.which("nvcc", path=env.get("PATH"))
    if nvcc:
        guesses.append((Path(nvcc).resolve().parent.parent, f"guessed from {nvcc}"))
    guesses.append((default, "the usual place"))
    for home, origin in guesses:
        wrong = _missing_files(home)
        if wrong is None:
            return _toolkit(home), None, notes
        if home.exists() and home != default:
            notes.append(f"{origin}, the CUDA home would be {home}; not taken: {wrong}")
    return None, "no CUDA toolkit (nvcc) found; install one, or name it in CUDA_HOME", notes


def _toolkit(home: Path) -> Toolkit:
    nvcc = str(home / "bin" / "nvcc")
    release = re.search(r"release (\d+\.\d+)", _run([nvcc, "--version"]).stdout)
    if release is None:
        raise BuildError(f"{nvcc} --version does not answer; repair the toolkit, or set CUDA_HOME")
    listed = re.findall(r"compute_(\d+)(\d)\b", _run([nvcc, "--list-gpu-arch"]).stdout)
    return Toolkit(home, release[1], tuple(sorted((int(a), int(b)) for a, b in listed)))


def version_mismatch(torch: Torch, toolkit: Toolkit) -> str | None:
    """Why this toolkit cannot build for this PyTorch. Minor versions may differ."""
    assert torch.cuda is not None
    wanted, have = torch.cuda.split(".")[0], toolkit.version.split(".")[0]
    if wanted == have:
        return None
    return (
        f"PyTorch {torch.version} is built for CUDA {torch.cuda}, the toolkit in {toolkit.home} is "
        f"CUDA {toolkit.version}; install a CUDA {wanted} toolkit and name it in CUDA_HOME, or a "
        f"PyTorch for CUDA {have}"
    )


def arch_list(
    env: Mapping[str, str], toolkit: Toolkit, visible: Sequence[tuple[int, int]]
) -> tuple[str, str]:
    """(list in the form of TORCH_CUDA_ARCH_LIST, where it comes from).

    ``visible``: compute capabilities of this machine's GPUs; with any, only these are built for.
    """
    if env.get("TORCH_CUDA_ARCH_LIST"):
        return env["TORCH_CUDA_ARCH_LIST"], "TORCH_CUDA_ARCH_LIST"
    known = toolkit.archs or DEFAULT_ARCHS
    if visible:
        if max(visible) > max(known) and toolkit.archs:
            newest = _arch_text(max(known))
            return f"{newest}+PTX", "the newest that the toolkit knows; the GPU is newer"
        return ";".join(map(_arch_text, sorted(set(visible)))), "visible GPU"
    archs = [a for a in DEFAULT_ARCHS if a in known] or [max(known)]
    return ";".join(map(_arch_text, archs)) + "+PTX", "default, no GPU is visible"


def _arch_text(arch: tuple[int, int]) -> str:
    return f"{arch[0]}.{arch[1]}"


def visible_gpus() -> list[tuple[int, int]]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
