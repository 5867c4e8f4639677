"""Environments of the matrix: one for each PyTorch and Python, reused while intact.

A step that runs a program returns a :class:`Result`. Nothing here raises for what a machine lacks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST = "newest"
PACKAGES = ("numpy", "ninja", "setuptools>=77", "wheel")
# Bytes that the environment of a CUDA build needs, download and unpacking included.
ROOM = 14 << 30

# A constraints file of the machine may pin another PyTorch.
UNCONSTRAINED = {"PIP_CONSTRAINT": os.devnull}


@dataclass
class Result:
    ok: bool
    seconds: float
    output: str

    def last_line(self) -> str:
        """The last line of output with an error, else the last line."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        errors = [line for line in lines if re.search("error", line, re.IGNORECASE)]
        return (errors or lines or ["no output"])[-1][:200]


def run(
    command: Sequence[str | os.PathLike],
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    started = time.monotonic()
    try:
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        ok, output = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired as error:
        text = error.stdout or b""
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        ok, output = False, f"{text}\nerror: not done after {timeout:.0f} s"
    except OSError as error:
        ok, output = False, f"error: {error}"
    return Result(ok, time.monotonic() - started, output)


# ------------------------------------------------------------------ interpreters


@dataclass(frozen=True)
class Interpreter:
    path: Path
    version: str  # "3.13" or, without the interpreter's lock, "3.13t"


def interpreters(wanted: Sequence[str]) -> dict[str, Interpreter]:
    """The ``wanted`` interpreters found here: this Python, the PATH, pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [Path(sys.executable)]
    for version in wanted:
        on_path = shutil.which(f"python{version}")
        candidates += [Path(on_path)] if on_path else []
        candidates += sorted(pyenv.glob(f"{version.rstrip('t')}.*/bin/python{version}"))
    found: dict[str, Interpreter] = {}
    for path in candidates:
        version = version_of(path)
        if version in wanted:
            found.setdefault(version, Interpreter(path, version))
    return found


def version_of(python: Path) -> str | None:
    """The version, or None for a program that does not start (pyenv has such on the PATH)."""
    code = (
        "import sys, sysconfig, venv, ensurepip; "
        "t = 't' if sysconfig.get_config_var('Py_GIL_DISABLED') else ''; "
        "print('.'.join(map(str, sys.version_info[:2])) + t)"
    )
    done = run([python, "-c", code], timeout=30)
    return done.output.strip() if done.ok else None


# ------------------------------------------------------------------ environments


@dataclass
class Environment:
    """A virtual environment with a PyTorch; ``why_not`` where it could not be made."""

    folder: Path
    torch: str = ""
    why_not: str | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def pip(self, *arguments: str | os.PathLike, timeout: float = 900, **env: str) -> Result:
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
        return run([self.python, "-m", "pip", *arguments, *quiet], timeout, env=env)

    def has(self, package: str) -> bool:
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
        return run([self.python, "-c", code], timeout=60, cwd=self.folder).ok

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def installed_torch(environment: Environment) -> str:
    """The version of a PyTorch that can be imported, or ""."""
    code = "import torch; print(torch.__version__)"
    done = run([environment.python, "-c", code], timeout=300, cwd=environment.folder)
    return done.output.strip().splitlines()[-1] if done.ok else ""


def make(home: Path, torch: str, python: Interpreter) -> Environment:
    """The environment of this PyTorch ("2.10.0" or "newest") under this Python."""
    started = time.monotonic()
    environment = Environment(home / f"torch-{torch}-python-{python.version}")
    environment.why_not = _fill(environment, torch, python)
    environment.seconds = time.monotonic() - started
    if environment.why_not is None:
        environment.torch = installed_torch(environment)
        if not environment.torch:
            environment.why_not = "its PyTorch does not import"
    return environment


def _fill(environment: Environment, torch: str, python: Interpreter) -> str | None:
    marker = environment.folder / "made"
    if marker.exists():
        # A newer one may be out. Without a network the installed one stays.
        newer = ("install", "--upgrade", "torch")
        if torch == NEWEST and not environment.pip(*newer, **UNCONSTRAINED).ok:
            environment.notes.append("could not ask for a newer PyTorch")
        return None
    environment.remove()
    environment.folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(environment.folder.parent).free < ROOM:
        return f"less than {ROOM >> 30} GB of disk is free"
    made = run([python.path, "-m", "venv", environment.folder], timeout=120)
    if not made.ok:
        return f"venv: {made.last_line()}"
    if torch == NEWEST:
        done = environment.pip("install", "torch", *PACKAGES, **UNCONSTRAINED)
    else:
        exact = f"torch=={torch}"
        done = environment.pip("install", exact, *PACKAGES)
        if not done.ok:
            done = environment.pip("install", exact, *PACKAGES, **UNCONSTRAINED)
    if not done.ok:
        environment.remove()
        return f"pip: {done.last_line()}"
    marker.touch()
    return None
