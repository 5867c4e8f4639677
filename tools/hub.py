"""Lays the package out for the Hugging Face kernel hub: `make hub`, or

    python tools/hub.py [--out build/hub] [--build]

The folder is a project for kernel-builder (`build.toml`, edition 5). It compiles a library for each
backend against PyTorch's stable ABI: CPU kernels in both, CUDA kernels in one. The ops stand
in the namespace that kernel-builder names, so that versions of the kernel can share a process.
Packages that need more than PyTorch and Triton (timm, torchvision, …) are left out. kernel-builder
needs Nix; --build compiles the CPU library without it, where kernels.get_local_kernel finds it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_support as support

ROOT = support.ROOT
NAME = "fused-mixup"
VERSION = 0  # of the interface on the hub, where 0 says that it may still change
ABI = "2.10"  # as TORCH_TARGET_VERSION in build_support.py
CAPABILITIES = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
# They import other packages, which the hub's kernels may not.
LEFT_OUT = ("huggingface", "keras", "kornia", "lightning", "openmixup", "preview", "recipes")
LEFT_OUT += ("sweep", "timm", "torchvision")
NAMESPACE = "-DFUSED_MIXUP_OPS=TORCH_EXTENSION_NAME"

NAMES = '''\
"""Names of this build. kernel-builder has made the library and _ops.py."""

from ._ops import add_op_namespace_prefix

NAMESPACE = add_op_namespace_prefix("").removesuffix("::")
CHOSEN = f"{NAMESPACE}_chosen"
# One library has both devices' kernels, or the CPU's alone.
MODULES = {"CPU": NAMESPACE, "CUDA": NAMESPACE if "_cuda_" in NAMESPACE else "_no_cuda_kernels"}
'''

OPS = '''\
import torch
from . import {ops}
ops = torch.ops.{ops}

def add_op_namespace_prefix(op_name: str):
    """
    Prefix op by namespace.
    """
    return f"{ops}::{{op_name}}"
'''

FLAKE = """\
{
  description = "Flake for fused-mixup";

  inputs.kernel-builder.url = "github:huggingface/kernels";

  outputs = { self, kernel-builder }:
    kernel-builder.lib.genKernelFlakeOutputs { inherit self; path = ./.; };
}
"""

CARD = """\
---
library_name: kernels
license: apache-2.0
---

MixUp, CutMix and soft-target cross-entropy for PyTorch as fused kernels.
"""


def sources(folder: str) -> list[str]:
    """All files of csrc/FOLDER; headers too, as kernel-builder copies what it is told of."""
    return sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc" / folder).iterdir())


def build_toml() -> str:
    cxx = [*(flag for flag in support.CXX_FLAGS if not flag.startswith("-std")), NAMESPACE]
    nvcc = [f for f in support.NVCC_FLAGS if not f.startswith(("-std", "-lineinfo"))]
    cuda = [name for name in sources("cuda") if not name.endswith("module.cpp")]

    def array(values: Iterable[str]) -> str:
        return "[\n" + "".join(f'  "{value}",\n' for value in values) + "]"

    return f"""\
[general]
name = "{NAME}"
version = {VERSION}
edition = 5
license = "Apache-2.0"
backends = ["cpu", "cuda"]

[torch]
minver = "{ABI}"
cxx-flags = {array(cxx)}
src = {array([*sources("common"), *sources("cpu")])}

[torch.stable-abi]
cpu = "{ABI}"
cuda = "{ABI}"

[kernel.fused_mixup_cuda]
backend = "cuda"
depends = ["torch"]
cuda-capabilities = {json.dumps(CAPABILITIES)}
cuda-flags = {array([*nvcc, NAMESPACE])}
src = {array([*sources("common"), *cuda])}
"""


def package(out: Path) -> None:
    """The Python side, complete but for _ops.py, which the build makes."""
    rubbish = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.py", "py.typed")
    shutil.copytree(ROOT / "fused_mixup", out, ignore=rubbish)
    shutil.copytree(ROOT / "triton_kernels", out / "triton_kernels", ignore=rubbish)
    for name in LEFT_OUT:
        shutil.rmtree(out / name)
    (out / "names.py").write_text(NAMES, encoding="utf-8")


def project(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    package(out / "torch-ext" / "fused_mixup")
    shutil.copytree(ROOT / "csrc", out / "csrc")
    shutil.copy2(ROOT / "LICENSE", out)
    texts = {"build.toml": build_toml(), "flake.nix": FLAKE, "CARD.md": CARD}
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")


# ------------------------------------------------------------------ a build without kernel-builder


def digests(folder: Path) -> dict[str, str]:
    """Base64 of the SHA-256 of each file, by its path."""
    return {
        path.relative_to(folder).as_posix(): base64.b64encode(
            hashlib.sha256(path.read_bytes()).digest()
        ).decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def unique_name(out: Path) -> str:
    """The library's name: another one for other sources."""
    state = json.dumps([digests(out / "csrc"), digests(out / "torch-ext")])
    return f"_fused_mixup_cpu_{hashlib.sha256(state.encode()).hexdigest()[:7]}"


def compile_cpu(out: Path, ops: str, into: Path) -> None:
    from setuptools import Distribution
    from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

    flags = [*support.CXX_FLAGS, *support.without_paths(Path(include_paths()[0])), NAMESPACE]
    extension = CppExtension(
        ops,
        [str(path) for path in sorted((out / "csrc" / "cpu").glob("*.cpp"))],
        include_dirs=[str(out / "csrc")],
        define_macros=support.MACROS,
        extra_compile_args={"cxx": ["-O3", "-g0", *flags]},
        py_limited_api=True,
    )
    command = BuildExtension(Distribution({"ext_modules": [extension]}))
    command.build_lib, command.build_temp = str(into), str(out / "build" / "objects")
    command.ensure_finalized()
    command.run()
    shutil.rmtree(out / "build" / "objects")


def build_cpu(out: Path) -> Path:
    """The variant that kernels.get_local_kernel picks where PyTorch has no CUDA; its folder."""
    tag = f"torch-stable-abi{ABI.replace('.', '')}-cpu-{platform.machine()}-linux"
    variant, ops = out / "build" / tag, unique_name(out)
    shutil.copytree(out / "torch-ext" / "fused_mixup", variant)
    (variant / "_ops.py").write_text(OPS.format(ops=ops), encoding="utf-8")
    compile_cpu(out, ops, variant)
    said = {"name": NAME, "id": ops, "version": VERSION, "license": "Apache-2.0"}
    said |= {"python-depends": [], "backend": {"type": "cpu"}}
    said |= {"digest": {"algorithm": "sha256", "files": digests(variant)}}
    (variant / "metadata.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return variant


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make hub",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "hub")
    parser.add_argument("--build", action="store_true", help="compile the CPU library too")
    args = parser.parse_args(arguments)
    out = args.out.resolve()
    project(out)
    print(f"hub: a project for kernel-builder in {out}")
    if args.build:
        print(f"hub: built {build_cpu(out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
