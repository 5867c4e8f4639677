"""The native builds of the tests share this module: compiler, sanitizers, a cache of builds.

tests/sanitized/build.py makes the CPU module under sanitizers, tests/host_cuda/build.py the CUDA
kernels for the host. Tests run in several processes side by side, which may want the same file.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import build_probes  # noqa: E402

# A new build removes older ones unused for this long; a test in another process may still use
# a younger one.
STALE_SECONDS = 2 * 3600


# ------------------------------------------------------------------ the compiler


@functools.cache
def _found() -> tuple[list[str] | None, str]:
    command, text = build_probes.find_compiler(os.environ)
    return (shlex.split(command) if command else None), text


def compiler() -> list[str] | None:
    """The command that compiles (more than one word for CXX="ccache g++"), or None."""
    return _found()[0]


def why_no_compiler() -> str | None:
    return None if compiler() else _found()[1]


def compile_with(*arguments: str | os.PathLike) -> None:
    """Run the compiler; print its warnings to stderr and put its errors into the exception."""
    if compiler() is None:
        raise RuntimeError(why_no_compiler())
    command = [*compiler(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")
    sys.stderr.write(done.stderr)


@functools.cache
def _version() -> bytes:
    return subprocess.run([*compiler(), "--version"], capture_output=True).stdout


def digest(what: object, files: Iterable[Path]) -> str:
    """A name for the result of this compiler, these files and the options in ``what``."""
    state = hashlib.sha256(f"{compiler()} {what}".encode())
    state.update(_version())
    for path in files:
        content = path.read_bytes()
        state.update(f"{path.name} {len(content)} ".encode() + content)
    return state.hexdigest()[:16]


# ------------------------------------------------------------------ the cache


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Admit one thread of one process at a time: each open file has its own lock."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.utime(path)  # in use: not stale
        yield


def cache(folder: Path, family: str, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """The file or folder {family}-{key}{suffix}, made once and renamed into place when complete.

    ``make`` is called with the path to write. Older ones of the family, under other keys, are
    removed if unused for STALE_SECONDS.
    """
    out = folder / f"{family}-{key}{suffix}"
    if not _exists(out):
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f".{out.name}.lock"):
            if not _exists(out):
                with tempfile.TemporaryDirectory(dir=folder, prefix=f".{family}-") as parts:
                    part = Path(parts) / out.name
                    make(part)
                    os.replace(part, out)
                _prune(folder, family)
    return out


def _exists(out: Path) -> bool:
    """Whether the file exists; if so this counts as a use of it."""
    try:
        os.utime(out)
    except FileNotFoundError:
        return False
    return True


def _prune(folder: Path, family: str) -> None:
    for pattern in (f"{family}-*", f".{family}-*"):  # builds; locks and partial builds
        for path in folder.glob(pattern):
            try:
                if path.lstat().st_mtime > time.time() - STALE_SECONDS:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except OSError:  # another process is removing it
                pass


@functools.cache
def _included(command: tuple[str, ...]) -> tuple[Path, ...]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")
    return tuple(Path(name) for name in done.stdout.partition(":")[2].split() if name != "\\")


def object_file(folder: Path, options: list[str], source: Path) -> Path:
    """The object of ``source``, compiled where it or a file that it includes has changed.

    System headers are taken not to change, nor what a file includes while this process runs.
    """
    included = _included((*compiler(), *options, "-MM", str(source)))
    # The path tells builds of copies of the sources apart, which may name it (__FILE__).
    family = f"{source.stem}-{digest((options, str(source)), [])}"
    return cache(
        folder,
        family,
        digest("", included),
        ".o",
        lambda part: compile_with(*options, "-c", source, "-o", part),
    )


# ------------------------------------------------------------------ Python under a sanitizer


def runtime(name: str) -> Path | None:
    """A sanitizer's library, which some distributions keep as a linker script that names it."""
    command = [*compiler(), f"-print-file-name={name}"]
    found = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    if not found.is_absolute() or not found.exists():
        return None
    if found.read_bytes()[:4] != b"\x7fELF":
        named = re.search(r"INPUT\s*\(\s*([^\s)]+)", found.read_text(errors="replace"))
        if named is None or not Path(named[1]).exists():
            return None
        found = Path(named[1])
    return found.resolve()


@dataclass(frozen=True)
class Launch:
    """How a Python under a sanitizer is started, or ``why_not``."""

    prefix: tuple[str, ...] = ()
    preload: str = ""
    why_not: str | None = None

    def run(
        self, arguments: Iterable[str], env: dict[str, str], cwd: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with ``arguments``, and with ``env`` added to this process' environment."""
        return subprocess.run(
            [*self.prefix, sys.executable, *arguments],
            env={
                **os.environ,
                "OMP_WAIT_POLICY": "passive",
                **env,
                "LD_PRELOAD": self.preload,
            },
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=1800,
        )


def _trial(how: Launch) -> str:
    """The error of a Python under a sanitizer's library; "" if there is none."""
    code = "import threading; threading.Thread(target=print).start()"
    try:
        done = how.run(["-c", code], {"ASAN_OPTIONS": "detect_leaks=0"}, ROOT)
    except OSError as error:  # no setarch
        return str(error)
    if done.returncode == 0 and "cannot be preloaded" not in done.stderr:
        return ""
    return done.stderr.strip() or f"exit {done.returncode}"


@functools.cache
def launch(runtimes: tuple[str, ...]) -> Launch:
    """A Python that loads these libraries before any other: ("libasan.so", ...)."""
    if sys.platform != "linux":
        return Launch(why_not="sanitizers are preloaded as on Linux only")
    if compiler() is None:
        return Launch(why_not=why_no_compiler())
    paths = {name: runtime(name) for name in runtimes}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        return Launch(why_not=f"{shlex.join(compiler())} comes without {' and '.join(missing)}")
    preload = " ".join(map(str, paths.values()))
    # Older ThreadSanitizers cannot handle the address ranges that newer kernels randomise over.
    still = ("setarch", os.uname().machine, "-R")
    trials = []
    for prefix in ((), still):
        how = Launch(prefix, preload)
        trials.append(_trial(how))
        if not trials[-1]:
            return how
    return Launch(why_not=f"Python does not run under {preload}: {trials[0].splitlines()[0]}")
