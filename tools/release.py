"""Builds and checks the files of a release: `make wheel`, or

    python tools/release.py [--out dist] [--plat manylinux_2_28_x86_64]
    python tools/release.py --check FILE.whl

The sdist comes first, and the wheel is built from it: what the sdist lacks, the wheel lacks too.
One wheel serves every Python from 3.10 and every PyTorch from 2.10. It has the CUDA module where
this Python's PyTorch is made for CUDA and there is an nvcc for it; TORCH_CUDA_ARCH_LIST names the
GPUs (default: ARCHS below). A free-threaded Python that is found, with PyTorch, gets a wheel of its
own. auditwheel names the systems that a wheel runs on, abi3audit looks for symbols outside Python's
limited API, the contents are checked, and tests/smoke.py runs on the very file, installed in an
environment of its own.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import matrix
from matrix_env import ROOT, Environment, interpreters
from setup_env import show_packages_of

WORK = ROOT / "build" / "wheel"
ARCHS = "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
PLATFORM = f"manylinux_2_28_{platform.machine()}"  # PyTorch's own: an older one serves nobody
# PyTorch has loaded these before the modules are.
OF_PYTORCH = ("libtorch*.so", "libc10*.so", "libcudart.so.*")
FREE_THREADED = ("3.13t", "3.14t")
MUST = ("py.typed", "_build_info.py", "triton_kernels/__init__.py", "__init__.py")
# The path of a source file, as messages and line tables have it.
SOURCE_PATH = re.compile(rb"(?<![\w.+@-])/(?:[\w.+@-]+/)+[\w.+-]+\.(?:cpp|cuh?|hpp|inl|h)\b")


def say(text: str) -> None:
    print(f"wheel: {text}", flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        sys.exit(f"wheel: {' '.join(words[:4])} failed; see above")


# ------------------------------------------------------------------ the contents of a wheel


def problems(wheel: Path) -> list[str]:
    """What is wrong with the contents of a wheel; an empty list where nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    return [*_wrong_names(wheel, files), *_wrong_record(files), *_paths_inside(files)]


def _wrong_names(wheel: Path, files: dict[str, bytes]) -> Iterator[str]:
    info = f"fused_mixup-{wheel.name.split('-')[1]}.dist-info"
    for name in files:
        top, _, rest = name.partition("/")
        if top not in ("fused_mixup", info):
            yield f"{name}: not part of the package"
        elif top == "fused_mixup" and Path(rest).suffix not in (".py", ".so", ".typed"):
            yield f"{name}: neither Python nor a compiled module"
        elif "__pycache__" in name or re.search(r"/(tests?|benchmarks|build)/", name):
            yield f"{name}: does not belong in a wheel"
    yield from (f"{name}: is missing" for name in MUST if f"fused_mixup/{name}" not in files)
    if not any(name.startswith(info) and name.endswith("LICENSE") for name in files):
        yield "the licence is missing"
    built = [name for name in files if name.endswith(".so")]
    kind = wheel.stem.split("-")[-2]
    if kind == "none" and built:
        yield f"{built[0]}: compiled, in a wheel for every system"
    if kind != "none" and not any(name.startswith("fused_mixup/_C.") for name in built):
        yield "fused_mixup/_C: is missing"
    ending = ".abi3.so" if kind == "abi3" else f".{sys.implementation.name}-"
    yield from (f"{name}: is not for {kind}" for name in built if ending not in name)


def _wrong_record(files: dict[str, bytes]) -> Iterator[str]:
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    rows = {row[0]: row[1] for row in csv.reader(io.StringIO(files[record].decode())) if row}
    for name in rows.keys() ^ files.keys():
        yield f"{name}: in one of RECORD and the wheel alone"
    for name, wanted in rows.items():
        if name.startswith(("/", "..")) or ":" in name:
            yield f"{name}: RECORD names a path outside of the wheel"
        digest = hashlib.sha256(files.get(name, b"")).digest()
        got = f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        if name != record and name in files and wanted != got:
            yield f"{name}: RECORD has another hash"


def _paths_inside(files: dict[str, bytes]) -> Iterator[str]:
    """Paths of the machine that built: they tell its folders, and differ from build to build."""
    for name, data in files.items():
        found = {path.decode() for path in SOURCE_PATH.findall(data)} if ".so" in name else set()
        folders = {str(ROOT), str(WORK), str(Path.home()) + "/"}
        found |= {folder for folder in folders if folder.encode() in data}
        if found:
            yield f"{name}: has paths of this machine, such as {min(found)}"


# ------------------------------------------------------------------ building


def source_package(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("fused_mixup-*.tar.gz"):
        old.unlink()
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    run(sys.executable, "-c", code)
    (path,) = out.glob("fused_mixup-*.tar.gz")
    return path


def unpacked(sdist: Path, into: Path) -> Path:
    shutil.rmtree(into, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(into, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (sources,) = into.iterdir()
    return sources


def build(python: Path, sources: Path, out: Path) -> Path:
    """The wheel of the unpacked sdist, as this Python's setuptools names it."""
    shutil.rmtree(out, ignore_errors=True)
    env = {"TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST") or ARCHS}
    env["FUSED_MIXUP_LINEINFO"] = "0"  # they hold paths, and double the size
    command = (python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    verbose = () if os.environ.get("VERBOSE") else ("--quiet",)
    run(*command, *verbose, "--wheel-dir", out, sources, env=env)
    (path,) = out.glob("fused_mixup-*.whl")
    return path


def audited(wheel: Path, tag: str, out: Path) -> Path:
    """The wheel under the name of the systems that it runs on, which auditwheel has proved."""
    if wheel.stem.endswith("-any"):
        return Path(shutil.copy2(wheel, out))
    auditwheel = (sys.executable, "-m", "auditwheel")
    run(*auditwheel, "show", wheel)
    excluded = [f"--exclude={name}" for name in OF_PYTORCH]
    repair = ("repair", "--only-plat", "--plat", tag, *excluded, "--wheel-dir", WORK / "audited")
    shutil.rmtree(WORK / "audited", ignore_errors=True)
    run(*auditwheel, *repair, wheel)
    (path,) = (WORK / "audited").glob("*.whl")
    if "-abi3-" in path.name:
        run(sys.executable, "-m", "abi3audit", "--strict", "--verbose", path)
    return Path(shutil.copy2(path, out))


def tried(wheel: Path, python: Path) -> bool:
    """Whether tests/smoke.py passes on the file, installed beside the PyTorch of ``python``."""
    environment = Environment(WORK / "environment")
    environment.remove()
    run(python, "-m", "venv", environment.folder)
    parents = subprocess.check_output(
        [python, "-c", "import site; print(*site.getsitepackages(), sep='\\n')"], text=True
    )
    show_packages_of(parents.splitlines(), environment.folder)
    line = matrix.Line(wheel.name)
    matrix.try_wheel(line, environment, wheel, ["CPU"])
    return line.end()


def free_threaded() -> Iterator[Path]:
    """The free-threaded Pythons here that can build; others are named."""
    found = interpreters(FREE_THREADED)
    for version in FREE_THREADED:
        if version not in found:
            say(f"no wheel for Python {version}, which is not on this machine")
            continue
        python = found[version].path
        probe = [python, "-c", "import torch, setuptools, wheel"]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            yield python
        else:
            say(f"no wheel for Python {version}: {python} lacks PyTorch, setuptools or wheel")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make wheel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--plat", default=PLATFORM, help="the tag for auditwheel; auto: it chooses")
    parser.add_argument("--check", type=Path, metavar="WHEEL", help="check the contents of a wheel")
    args = parser.parse_args(arguments)
    if args.check:
        wrong = problems(args.check)
        print("\n".join(wrong) or f"{args.check.name}: nothing is wrong")
        return 1 if wrong else 0
    started = time.monotonic()
    out = args.out.resolve()
    sources = unpacked(source_package(out), WORK / "sources")
    for old in out.glob("fused_mixup-*.whl"):
        old.unlink()
    good = True
    for python in (Path(sys.executable), *free_threaded()):
        began = time.monotonic()
        wheel = audited(build(python, sources, WORK / "built"), args.plat, out)
        say(f"{wheel.name}: built in {time.monotonic() - began:.0f} s")
        wrong = problems(wheel)
        for text in wrong:
            say(f"{wheel.name}: {text}")
        good &= not wrong and tried(wheel, python)
    for path in sorted(out.glob("fused_mixup-*")):
        say(f"{path.stat().st_size / 2**20:8.2f} MiB  {path.name}")
    say(f"{'ok' if good else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
