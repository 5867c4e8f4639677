"""Finds what this machine can build: settings for setup.py, and the summary that it prints.

As a program it prints that summary and builds nothing. With --fingerprint it prints a digest that
changes where a new build would differ from the last one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from build_probes import (
    BuildError,
    Toolkit,
    Torch,
    arch_list,
    compile_jobs,
    find_compiler,
    find_toolkit,
    find_torch,
    free_memory,
    version_mismatch,
    visible_gpus,
)

ROOT = Path(__file__).resolve().parent.parent
LIMITED_API = ("Py_LIMITED_API", "0x030A0000")  # Python 3.10
# Macros of both modules; tests/sanitized builds the CPU module with them too.
MACROS = [
    ("TORCH_TARGET_VERSION", "0x020a000000000000"),  # stable ABI as of PyTorch 2.10
    LIMITED_API,
]
# Every product and sum is rounded on its own (no contraction), as eager PyTorch does.
CXX_FLAGS = ["-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS += ["-fvisibility=hidden", "-Wall"]
# Kernels round explicitly (__fmul_rn), so nvcc's default contraction stays on. PyTorch's
# flags disable operators of half types; kernel files also compile without it, so enable them.
NVCC_FLAGS = ["-std=c++17", "-lineinfo", "--compiler-options=-fvisibility=hidden"]
NVCC_FLAGS += [
    f"-U__CUDA_NO_{what}__"
    for what in ("HALF_OPERATORS", "HALF_CONVERSIONS", "HALF2_OPERATORS", "BFLOAT16_CONVERSIONS")
]


def without_paths(include: Path) -> list[str]:
    """Flags for g++ and clang++ that keep this machine's folders out of messages and binaries."""
    return [f"-fmacro-prefix-map={folder}/=" for folder in (ROOT, include)]


_SETTINGS = (
    "FUSED_MIXUP_CUDA",
    "TORCH_CUDA_ARCH_LIST",
    "CUDA_HOME",
    "CUDA_PATH",
    "CXX",
    "DEBUG",
    "FUSED_MIXUP_LINEINFO",
)


@dataclass
class BuildSettings:
    """What to build. A module named in ``left_out`` is not built, for the reason given there."""

    torch: Torch
    debug: bool
    compiler: str | None = None  # "g++ (GCC) 12.2.0"
    command: str | None = None  # "g++"
    jobs: int = 1  # files compiled at once
    toolkit: Toolkit | None = None
    arch_list: str | None = None  # as TORCH_CUDA_ARCH_LIST: "8.0;9.0+PTX"
    arch_origin: str = ""
    modules: dict[str, list[str]] = field(default_factory=dict)  # "_C" -> sources
    left_out: dict[str, str] = field(default_factory=dict)  # "_C_cuda" -> reason
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""  # see fingerprint()
    limited_api: bool = True  # one binary for every Python from 3.10

    @property
    def macros(self) -> list[tuple[str, str]]:
        return [macro for macro in MACROS if self.limited_api or macro is not LIMITED_API]


def has_limited_api() -> bool:
    """Whether one binary can serve every Python from 3.10; not the free-threaded ones.

    Their headers refuse Py_LIMITED_API with an #error.
    """
    return not sysconfig.get_config_var("Py_GIL_DISABLED")


def choice(env: Mapping[str, str], name: str, allowed: Sequence[str], default: str) -> str:
    value = env.get(name) or default
    if value not in allowed:
        raise BuildError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def _sources(folder: str, *suffixes: str) -> list[str]:
    found = [p for s in suffixes for p in sorted((ROOT / "csrc" / folder).glob(f"*{s}"))]
    return [p.relative_to(ROOT).as_posix() for p in found]


def find_settings(env: Mapping[str, str] = os.environ) -> BuildSettings:
    """Probe this machine.

    Raises:
        BuildError: no usable PyTorch, a setting with an unknown value, or ``FUSED_MIXUP_CUDA=1``
            where the CUDA module cannot be built.
    """
    cuda = choice(env, "FUSED_MIXUP_CUDA", ("auto", "0", "1"), "auto")
    debug = choice(env, "DEBUG", ("0", "1"), "0") == "1"
    if env.get("MAX_JOBS") and not env["MAX_JOBS"].isdigit():
        raise BuildError(f"MAX_JOBS: expected a number of compile jobs, got {env['MAX_JOBS']!r}")
    torch = find_torch()
    settings = BuildSettings(
        torch, debug, fingerprint=fingerprint(torch, env), limited_api=has_limited_api()
    )
    if torch.isolated:
        settings.notes.append(
            f"PyTorch {torch.version} was fetched by pip for this build alone. Where the one in "
            "use is for another CUDA major version, the CUDA module will be left out at load; pip "
            "install --no-build-isolation . builds for the one in use"
        )
    command, text = find_compiler(env)
    settings.compiler = text if command else None
    settings.command = command

    sources = _sources("cpu", ".cpp")
    if command is None:
        settings.left_out["_C"] = text
    elif not sources:
        settings.left_out["_C"] = "csrc/cpu holds no .cpp files"
    else:
        settings.modules["_C"] = sources

    why = _add_cuda(settings, env, cuda, None if command else text)
    if why is not None:
        settings.left_out["_C_cuda"] = why
        if cuda == "1":
            raise BuildError(f"FUSED_MIXUP_CUDA=1, but the CUDA module cannot be built: {why}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings.jobs = int(env.get("MAX_JOBS") or 0) or compile_jobs(
        [*settings.modules], cores or 1, free_memory()
    )
    return settings


def _add_cuda(
    settings: BuildSettings, env: Mapping[str, str], asked: str, no_compiler: str | None
) -> str | None:
    """Add the CUDA module, or say why it is left out. A GPU need not be present."""
    if asked == "0":
        return "FUSED_MIXUP_CUDA=0"
    if settings.torch.cuda is None:
        return (
            f"PyTorch {settings.torch.version} is built without CUDA; to have it, install a "
            "PyTorch with CUDA"
        )
    if no_compiler is not None:
        return no_compiler
    toolkit, why, notes = find_toolkit(env)
    settings.notes += notes
    if toolkit is None:
        return why
    settings.toolkit = toolkit
    why = version_mismatch(settings.torch, toolkit)
    if why is not None:
        return why
    sources = _sources("cuda", ".cu", ".cpp")
    if not any(s.endswith(".cu") for s in sources):
        return "csrc/cuda holds no .cu files"
    settings.modules["_C_cuda"] = sources
    visible = [] if env.get("TORCH_CUDA_ARCH_LIST") else visible_gpus()
    settings.arch_list, settings.arch_origin = arch_list(env, toolkit, visible)
    return None


def summary(settings: BuildSettings) -> str:
    toolkit = settings.toolkit
    rows = [
        ("Python", f"{sys.version.split()[0]} ({sys.executable})"),
        ("PyTorch", f"{settings.torch.version}, CUDA {settings.torch.cuda or 'none'}"),
        ("C++ compiler", settings.compiler or "none"),
        ("CUDA toolkit", f"{toolkit.version} in {toolkit.home}" if toolkit else "not used"),
    ]
    if not settings.limited_api:
        rows.append(("binary for", "this Python alone: a free-threaded one has no limited API"))
    if settings.debug:
        rows.append(("flags", "DEBUG=1: no optimisation, debug symbols"))
    for name, sources in settings.modules.items():
        target = "CPU" if name == "_C" else f"CUDA {settings.arch_list} ({settings.arch_origin})"
        rows.append((f"build {name}", f"{target}, {len(sources)} files"))
    if settings.modules:
        rows.append(("jobs", f"{settings.jobs} at once, by cores and free memory, or MAX_JOBS"))
    rows += [(f"leave out {name}", why) for name, why in settings.left_out.items()]
    rows += [("note", note) for note in settings.notes]
    if not settings.modules:
        rows.append(("so", "plain Python: Triton where it runs, else the PyTorch reference"))
    return "\n".join(["fused_mixup build", *(f"  {key + ':':20}{text}" for key, text in rows)])


# ------------------------------------------------------------------ fingerprint of a build


def fingerprint(torch: Torch, env: Mapping[str, str] = os.environ) -> str:
    """A digest that changes when a new build would differ from the last one."""
    state = hashlib.sha256(f"{torch}\n".encode())
    for name in _SETTINGS:
        state.update(f"{name}={env.get(name)}\n".encode())
    for program in ("c++", "g++", "clang++", "nvcc"):
        state.update(f"{program}={shutil.which(program, path=env.get('PATH'))}\n".encode())
    files = [
        ROOT / "setup.py",
        ROOT / "pyproject.toml",
        *sorted((ROOT / "tools").glob("build_*.py")),
    ]
    files += sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())
    for path in files:
        state.update(str(path.relative_to(ROOT)).encode())
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def build_info(settings: BuildSettings) -> str:
    """The text of fused_mixup/_build_info.py; ``fused_mixup.env`` prints it."""
    values = {
        "TORCH": settings.torch.version,
        "TORCH_CUDA": settings.torch.cuda,
        "COMPILER": settings.compiler,
        "CUDA_TOOLKIT": settings.toolkit.version if settings.toolkit else None,
        "ARCH_LIST": settings.arch_list,
        "DEBUG": settings.debug,
        "LIMITED_API": settings.limited_api,
        "MODULES": sorted(settings.modules),
        "LEFT_OUT": settings.left_out,
        "FINGERPRINT": settings.fingerprint,
    }
    head = '"""Written by setup.py: what the compiled modules were made from."""\n'
    return head + "".join(f"{name} = {value!r}\n" for name, value in values.items())


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["--fingerprint"]:
            print(fingerprint(find_torch()))
        else:
            print(summary(find_settings()))
    except BuildError as error:
        sys.exit(f"error: {error}")
