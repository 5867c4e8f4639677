"""Compiles the CUDA kernels with the host compiler into a shared library: :func:`build`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KERNELS = ("driver_mix.cpp", "driver_loss.cpp")
SELF_TESTS = ("driver_bugs.cpp", "driver_words.cpp")
# Contraction off: the intrinsics that round separately are plain operators on the host.
FLAGS = "-std=c++17 -fPIC -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing".split()
FLAGS += "-DFUSED_MIXUP_HOST -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function".split()
UNDEFINED = "alignment,bool,bounds,enum,float-cast-overflow,integer-divide-by-zero,shift"
UNDEFINED += ",signed-integer-overflow"


class Variant(NamedTuple):
    flags: str
    drivers: tuple[str, ...] = KERNELS + SELF_TESTS
    driver_flags: str = ""  # for the drivers alone
    harness: tuple[str, ...] = ("machine.cpp",)
    harness_flags: str = "-O2"  # small, and run for every access


VARIANTS = {
    "plain": Variant("-O1"),
    # Unoptimised: the optimiser takes three times as long over instrumented code, and drops reads
    # whose value nobody uses. Calls instead of inlined checks: they compile faster.
    "asan": Variant(
        f"-O0 -g1 -fsanitize=address,{UNDEFINED} -fno-sanitize-recover=all "
        "--param asan-instrumentation-with-call-threshold=0"
    ),
    # The compiler reports accesses to functions of races.cpp: nothing is linked with -fsanitize.
    "races": Variant(
        "-O1 -DFUSED_MIXUP_RACES",
        driver_flags="-fsanitize=thread -Wno-tsan",
        harness=("machine.cpp", "races.cpp"),
    ),
    # The fibers of machines other than x86-64.
    "ucontext": Variant("-O1 -DFUSED_MIXUP_UCONTEXT", drivers=SELF_TESTS),
}


def compiler() -> str | None:
    """The host compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")


@cache
def why_not(variant: str) -> str | None:
    """Why this machine cannot build or run the variant, or None."""
    cxx = compiler()
    if cxx is None:
        return "no host C++ compiler (g++)"
    flags = [*VARIANTS[variant].flags.split(), *VARIANTS[variant].driver_flags.split()]
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.cpp"
        probe.write_text("extern int* p; int read() { return *p; }\n")
        command = [cxx, *flags, "-fPIC", "-c", str(probe), "-o", f"{folder}/probe.o"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            return f"{cxx} does not take {flags}: {run.stderr.strip()[-200:]}"
    if variant == "asan" and not Path(runtime("asan")).is_absolute():
        return f"{cxx} has no libasan.so"
    return None


def runtime(name: str) -> str:
    """The path of the compiler's lib<name>.so; the bare name where it has none."""
    command = [str(compiler()), f"-print-file-name=lib{name}.so"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build(variant: str = "plain") -> Path:
    """The library's path; compiled unless the cache has it for these very sources.

    "asan" needs ``LD_PRELOAD`` and ``ASAN_OPTIONS`` as in :func:`sanitizer_environment` in the
    Python that loads it.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("no host C++ compiler (g++); set CXX")
    built = VARIANTS[variant]
    flags = [*FLAGS, *built.flags.split()]
    files = [
        *(ROOT / "csrc" / "common").glob("*.h"),
        *(ROOT / "csrc" / "cuda").glob("*.cuh"),
        *HERE.glob("*.h"),
        *HERE.glob("*.cpp"),
    ]
    digest = hashlib.sha256(
        " ".join([cxx, *flags, built.driver_flags, built.harness_flags]).encode()
    )
    for file in sorted(files):
        digest.update(file.read_bytes())
    cached = ROOT / "build" / "host_cuda"
    cached.mkdir(parents=True, exist_ok=True)
    path = cached / f"{variant}_{digest.hexdigest()[:16]}.so"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=cached) as folder:

        def compile_one(source: str) -> str:
            out = f"{folder}/{source}.o"
            more = (built.driver_flags if source in built.drivers else built.harness_flags).split()
            command = [cxx, *flags, *more, f"-I{HERE}", "-c", str(HERE / source), "-o", out]
            subprocess.run(command, check=True)
            return out

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compile_one, (*built.drivers, *built.harness)))
        linked = f"{folder}/linked.so"
        command = [cxx, *built.flags.split(), "-shared", *objects, "-Wl,-z,defs", "-o", linked]
        if variant == "asan":
            command.remove("-Wl,-z,defs")  # the runtime is preloaded
        subprocess.run(command, check=True)
        os.replace(linked, path)  # in one step: another process may be building it too
    return path


def sanitizer_environment() -> dict[str, str]:
    """The environment for a Python that loads the variant "asan"."""
    preload = [runtime(name) for name in ("asan", "ubsan")]
    preload = [path for path in preload if Path(path).is_absolute()]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)]),
        "LD_PRELOAD": ":".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks by design
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "FUSED_MIXUP_HOST_VARIANT": "asan",
    }


if __name__ == "__main__":
    for each in VARIANTS:
        print(build(each))
