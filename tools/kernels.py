"""Lists the compiled code of each kernel in build/kernels.md: `make kernels`, or

    python tools/kernels.py              sm_80, sm_90 and sm_100, as far as nvcc knows them
    python tools/kernels.py 90           one of them
    python tools/kernels.py --out FILE

Needs nvcc and cuobjdump (of the CUDA toolkit, or of Triton's package), and no GPU. build/kernels
caches compiled code by a digest of source and compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import build_probes  # noqa: E402
import build_support  # noqa: E402
import flow_table  # noqa: E402
import kernels_triton  # noqa: E402
import ring_table  # noqa: E402
import sass  # noqa: E402
from kernel_table import Design, design_of, label_of  # noqa: E402
from occupancy import ARCHS, RESERVED, blocks_per_multiprocessor, most_registers  # noqa: E402

DRIVERS = ("mix", "loss", "normalize", "masks", "collage", "plan")  # the longer to compile first


class MissingTool(Exception):
    """A missing tool; the message names it and its source."""


@dataclass(frozen=True)
class Tools:
    toolkit: build_probes.Toolkit
    cuobjdump: Path
    filt: str

    def knows(self, arch: int) -> bool:
        return not self.toolkit.archs or divmod(arch, 10) in self.toolkit.archs

    @property
    def nvcc(self) -> str:
        return str(self.toolkit.home / "bin" / "nvcc")


def find_tools(env: Mapping[str, str]) -> Tools:
    toolkit, why, _ = build_probes.find_toolkit(env)
    if toolkit is None:
        raise MissingTool(str(why))
    cuobjdump = sass.find_cuobjdump(env, toolkit.home)
    if cuobjdump is None:
        raise MissingTool(
            "cuobjdump and nvdisasm are missing; they come with a full CUDA toolkit and with Triton"
        )
    for name in (str(toolkit.home / "bin" / "cu++filt"), "c++filt", "llvm-cxxfilt"):
        filt = shutil.which(name, path=env.get("PATH"))
        if filt:
            return Tools(toolkit, cuobjdump, filt)
    raise MissingTool("no cu++filt, c++filt or llvm-cxxfilt: names of kernels cannot be read")


# ------------------------------------------------------------------ compile


# The flags of setup.py; no kernel includes PyTorch.
NVCC_FLAGS = ["-O3", *build_support.NVCC_FLAGS]


def _digest(tools: Tools) -> str:
    """A digest of everything that the machine code depends on."""
    found = hashlib.sha256(" ".join([tools.toolkit.version, *NVCC_FLAGS]).encode())
    sources = [*(ROOT / "csrc/cuda").glob("*.cuh"), *(ROOT / "csrc/common").glob("*.h")]
    sources += (ROOT / "tests/host_cuda").glob("device_*.cu")
    for path in sorted(sources):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def compile_all(tools: Tools, archs: Sequence[int]) -> dict[tuple[str, int], Path]:
    """(driver, architecture) -> cubin; runs one compiler per core."""
    folder = ROOT / "build" / "kernels" / _digest(tools)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(driver, arch) for driver in DRIVERS for arch in archs]

    def one(job: tuple[str, int]) -> Path:
        driver, arch = job
        cubin = folder / f"{driver}-{arch}.cubin"
        if not cubin.exists():
            part = cubin.with_suffix(f".{os.getpid()}")  # another process may do the same
            command = [tools.nvcc, *NVCC_FLAGS, "-cubin"]
            command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}", "-o", str(part)]
            command.append(str(ROOT / "tests" / "host_cuda" / f"device_{driver}.cu"))
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}{done.stdout}")
            part.replace(cubin)
        return cubin

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = dict(zip(jobs, pool.map(one, jobs), strict=True))
    for old in folder.parent.iterdir():  # another process may still write one
        if old != folder and old.stat().st_mtime < time.time() - 3600:
            shutil.rmtree(old, ignore_errors=True)
    return found


# ------------------------------------------------------------------ read


@dataclass(frozen=True)
class Instance:
    """One instantiation of a kernel on one architecture."""

    label: str
    driver: str
    arch: int
    design: Design
    code: sass.Kernel

    @property
    def static_shared(self) -> int:
        """Bytes; from sm_90 on the compiler's figure may include the reserved part."""
        given = self.code.usage.shared
        return given - RESERVED if self.arch >= 90 and given >= RESERVED else given

    @property
    def most_registers(self) -> int:
        return most_registers(ARCHS[self.arch], self.design.threads, self.design.blocks)

    def blocks(self, dynamic_shared: int = 0) -> int:
        shared = self.static_shared + dynamic_shared
        threads, registers = self.design.threads, self.code.usage.registers
        return blocks_per_multiprocessor(ARCHS[self.arch], threads, registers, shared)


def _read(tools: Tools, cubin: Path) -> dict[str, sass.Kernel]:
    """Kernels of a cubin, cached in its folder: the text has millions of lines."""
    reader = hashlib.sha256((ROOT / "tools" / "sass.py").read_bytes()).hexdigest()[:16]
    kept = cubin.with_suffix(f".{reader}.pickle")
    if not kept.exists():
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(sass.read(tools.cuobjdump, cubin)))
        part.replace(kept)
    return pickle.loads(kept.read_bytes())


def examine(tools: Tools, archs: Sequence[int]) -> list[Instance]:
    """Every instantiation on every architecture, sorted by name."""
    cubins = compile_all(tools, archs)

    def one(job: tuple[str, int]) -> list[Instance]:
        driver, arch = job
        kernels = _read(tools, cubins[job])
        listed = "\n".join(kernels)
        plain = subprocess.run(
            [tools.filt], input=listed, capture_output=True, text=True, check=True
        )
        labels = [label_of(name) for name in plain.stdout.splitlines()]
        return [
            Instance(label, driver, arch, design_of(label), code)
            for label, code in zip(labels, kernels.values(), strict=True)
            if arch >= design_of(label).since
        ]

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = [instance for part in pool.map(one, cubins) for instance in part]
    return sorted(found, key=lambda i: (i.arch, DRIVERS.index(i.driver), i.label))


# ------------------------------------------------------------------ report


INTRODUCTION = """
# Compiled code of each kernel

`make kernels` wrote this file from machine code of nvcc {nvcc}. `tests/test_cuda_build.py` checks
the limits, which stand in `tools/kernel_table.py`.

- **limit**: the most registers with which the wanted number of blocks fits on a multiprocessor.
- **shared**: static shared memory in bytes; a tile needs dynamic shared memory too.
- **blocks**: number that fits on a multiprocessor, without dynamic shared memory.
- **in flight**: 16-byte loads of a thread at once, on the best path; samples lie in one run.
- **box**: samples may have boxes; **transposed**: the backward; **rawN**: values of N bytes that
  `paste_` moves; **single**: one element at a time.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], texts: int = 1) -> list[str]:
    """Lines of Markdown. The first ``texts`` columns are text, the others numbers."""
    rule = "|---" * texts + "|--:" * (len(head) - texts) + "|"
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(map(str, r))} |" for r in rows)]


HEAD = ("kernel", "threads", "registers", "limit", "shared", "blocks", "in flight")


def row(at: Instance) -> tuple[object, ...]:
    found = (at.code.usage.registers, at.most_registers, at.static_shared, at.blocks())
    return (at.label, at.design.threads, *found, at.code.ahead)


def report(tools: Tools, instances: Sequence[Instance], archs: Sequence[int]) -> str:
    text = [INTRODUCTION.format(nvcc=tools.toolkit.version).strip()]
    for arch in archs:
        rows = [row(at) for at in instances if at.arch == arch]
        text += ["", f"## {ARCHS[arch].name}", "", *table(HEAD, rows)]
        if arch in ring_table.GPUS:
            predicted = table(ring_table.HEAD, ring_table.rows(arch))
            text += ["", f"### {ring_table.TITLE}", "", *predicted]
            predicted = table(flow_table.HEAD, flow_table.rows(arch))
            text += ["", f"### {flow_table.TITLE}", "", *predicted]
    for name, rows in kernels_triton.tables(archs):
        text += ["", f"## {name}", "", *table(kernels_triton.HEAD, rows, texts=2)]
    return "\n".join(text) + "\n"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("archs", nargs="*", type=int, default=list(ARCHS), metavar="ARCH")
    parser.add_argument("--out", metavar="FILE", type=Path, default=ROOT / "build" / "kernels.md")
    options = parser.parse_args(argv)
    unknown = [arch for arch in options.archs if arch not in ARCHS]
    if unknown:
        parser.error(f"architectures are {', '.join(map(str, ARCHS))}, not {unknown[0]}")
    try:
        tools = find_tools(os.environ)
    except MissingTool as missing:
        print(f"cannot read the compiled code: {missing}", file=sys.stderr)
        return 1
    archs = [arch for arch in options.archs if tools.knows(arch)]
    for arch in options.archs:
        if arch not in archs:
            print(f"left out: nvcc {tools.toolkit.version} has no sm_{arch}", file=sys.stderr)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report(tools, examine(tools, archs), archs), encoding="utf-8")
    print(f"kernels: {os.path.relpath(options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
