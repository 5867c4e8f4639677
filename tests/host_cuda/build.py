"""Compiles the CUDA kernels with the host compiler into a shared library: :func:`build`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import native_build
from native_build import ROOT, compiler

HERE = Path(__file__).resolve().parent
CACHE = ROOT / "build" / "host_cuda"
KERNELS = (
    "driver_mix.cpp",
    "driver_loss.cpp",
    "driver_normalize.cpp",
    "driver_masks.cpp",
    "driver_collage.cpp",
    "driver_plan.cpp",
    "driver_variants.cpp",
)
HARNESS = (
    "machine.cpp",
    "cluster_barrier.cpp",
    "shared_memory.cpp",
    "bulk.cpp",
    "launches.cpp",
    "device.cpp",
)
SELF_TESTS = (
    "driver_bugs.cpp",
    "driver_cluster_bugs.cpp",
    "driver_bulk_bugs.cpp",
    "driver_words.cpp",
)
# Contraction off: the intrinsics that round separately are plain operators on the host.
FLAGS = "-std=c++17 -fPIC -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing".split()
FLAGS += "-DFUSED_MIXUP_HOST -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function".split()
UNDEFINED = "alignment,bool,bounds,enum,float-cast-overflow,integer-divide-by-zero,shift"
UNDEFINED += ",signed-integer-overflow"
RUNTIMES = ("libasan.so", "libubsan.so")


class Variant(NamedTuple):
    flags: str
    drivers: tuple[str, ...] = KERNELS + SELF_TESTS
    driver_flags: str = ""  # compiler options for the drivers alone
    harness: tuple[str, ...] = HARNESS
    harness_flags: str = "-O2"  # these files are small and run for every access


VARIANTS = {
    "plain": Variant("-O1"),
    # Unoptimised, as the optimiser takes three times as long for instrumented code, and drops reads
    # of values that are not used. Checks are calls, which compile faster than inlined checks.
    "asan": Variant(
        f"-O0 -g1 -fsanitize=address,{UNDEFINED} -fno-sanitize-recover=all "
        "--param asan-instrumentation-with-call-threshold=0"
    ),
    # The compiler reports accesses to tsan_calls.cpp: nothing is linked with -fsanitize.
    "races": Variant(
        "-O1 -DFUSED_MIXUP_RACES",
        driver_flags="-fsanitize=thread -Wno-tsan",
        harness=(*HARNESS, "races.cpp", "tsan_calls.cpp"),
    ),
    # Machines other than x86-64 use these fibers.
    "ucontext": Variant("-O1 -DFUSED_MIXUP_UCONTEXT", drivers=SELF_TESTS),
}


@cache
def why_not(variant: str) -> str | None:
    """Why this machine cannot build or run the variant, or None."""
    if compiler() is None:
        return native_build.why_no_compiler()
    flags = [*VARIANTS[variant].flags.split(), *VARIANTS[variant].driver_flags.split()]
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.cpp"
        probe.write_text("extern int* p; int read() { return *p; }\n")
        try:
            native_build.compile_with(*flags, "-fPIC", "-c", probe, "-o", f"{folder}/probe.o")
        except RuntimeError as error:
            return f"the host compiler does not take {flags}: {str(error).strip()[-200:]}"
    return native_build.launch(RUNTIMES).why_not if variant == "asan" else None


def build(variant: str = "plain") -> Path:
    """Compile the library unless the cache has it for these sources; return its path.

    The variant "asan" is loaded by a Python that :func:`run_sanitized` starts.
    """
    built = VARIANTS[variant]
    # Wrong edits (tests/mutants) compile the drivers alone that their tests call, and fast.
    if chosen := os.environ.get("FUSED_MIXUP_HOST_DRIVERS"):
        drivers = tuple(f"driver_{name}.cpp" for name in chosen.split())
        built = built._replace(drivers=drivers)
        if variant == "plain":
            built = built._replace(flags="-O0")
    flags = [*FLAGS, *built.flags.split()]
    files = [
        *(ROOT / "csrc" / "common").glob("*.h"),
        *(ROOT / "csrc" / "cuda").glob("*.cuh"),
        *HERE.glob("*.h"),
        *HERE.glob("*.cpp"),
    ]

    def make(part: Path) -> None:
        def compile_one(source: str) -> Path:
            more = (built.driver_flags if source in built.drivers else built.harness_flags).split()
            return native_build.object_file(
                CACHE / "objects", [*flags, *more, f"-I{HERE}"], HERE / source
            )

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compile_one, (*built.drivers, *built.harness)))
        # The address sanitizer's own functions come with its library, which is preloaded.
        complete = [] if variant == "asan" else ["-Wl,-z,defs"]
        native_build.compile_with(*built.flags.split(), "-shared", *objects, *complete, "-o", part)

    key = native_build.digest((flags, built), sorted(files))
    return native_build.cache(CACHE, variant, key, ".so", make)


def run_sanitized(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments`` with the variant "asan"."""
    env = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)]),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks by design
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "FUSED_MIXUP_HOST_VARIANT": "asan",
    }
    return native_build.launch(RUNTIMES).run(["-m", module, *arguments], env, ROOT)


if __name__ == "__main__":
    for each in VARIANTS:
        print(build(each))
