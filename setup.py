"""Builds fused_mixup: plain Python, plus up to two compiled modules.

    fused_mixup._C        csrc/cpu    wherever there is a C++ compiler
    fused_mixup._C_cuda   csrc/cuda   where there is nvcc, and a PyTorch built for its CUDA

The build needs no GPU. Both modules use PyTorch's stable ABI (2.10) and Python's limited
API (3.10), so that one wheel serves every later PyTorch and Python. A free-threaded Python (3.13t,
3.14t) has no limited API: there they are built for that version alone.

A wheel with the CUDA module serves PyTorches of one CUDA major version. `pip install .` builds in
isolation, with the newest PyTorch that pip finds; for the one that is installed, build with
`pip install --no-build-isolation .`. Settings (environment):

    FUSED_MIXUP_CUDA      auto (default), 0 (leave the CUDA module out), 1 (fail if it cannot be)
    TORCH_CUDA_ARCH_LIST  such as "8.0;9.0+PTX"; default: the visible GPUs', or 8.0;9.0;10.0+PTX
    CUDA_HOME, CXX        toolkit and C++ compiler, where the build does not find them
    MAX_JOBS, DEBUG       compile jobs at once (as memory allows); DEBUG=1 for -O0 -g
    FUSED_MIXUP_LINEINFO  0: no lines of the sources, and so no paths, in the GPU code

`python tools/build_support.py` shows what would be built, without building.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import setuptools
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)
sys.path.append(str(ROOT / "tools"))  # last: other packages have modules of the same names

import build_support as support  # noqa: E402
from long_description import long_description  # noqa: E402

MODULES = ("_C", "_C_cuda")


def stamp(settings: support.BuildSettings, package: Path) -> None:
    """Writes _build_info.py, and removes modules of earlier builds that this one leaves out."""
    for name in set(MODULES) - set(settings.modules):
        for old in package.glob(f"{name}.*so"):
            print(f"removing {old.name}, left from an earlier build")
            old.unlink()
    (package / "_build_info.py").write_text(support.build_info(settings), encoding="utf-8")


def python_command(settings: support.BuildSettings) -> type:
    class BuildPython(build_py):
        def run(self) -> None:
            package = ROOT / "fused_mixup"
            if not self.editable_mode:
                # build/ outlives a build: a module that is left out now must not be packed.
                package = Path(self.build_lib, "fused_mixup")
                shutil.rmtree(package, ignore_errors=True)
                package.mkdir(parents=True)
            super().run()
            stamp(settings, package)

    return BuildPython


def extensions(settings: support.BuildSettings) -> tuple[list, dict[str, type]]:
    """Extension objects and the command that compiles them."""
    os.environ["MAX_JOBS"] = str(settings.jobs)
    if not _find_ninja():
        print("  note: no ninja, so files are compiled one after another; pip install ninja")
        os.environ.setdefault("CC", str(settings.command))  # setuptools compiles C++ with it
    if settings.toolkit is not None:
        # PyTorch reads both variables; its own guess of the toolkit is not checked.
        os.environ["CUDA_HOME"] = str(settings.toolkit.home)
    if settings.arch_list is not None:
        os.environ["TORCH_CUDA_ARCH_LIST"] = settings.arch_list
    from torch.utils.cpp_extension import (
        BuildExtension,
        CppExtension,
        CUDAExtension,
        include_paths,
    )

    class BuildModules(BuildExtension):
        def build_extension(self, ext) -> None:
            # This folder stays, so that only changed files are compiled again.
            kind = "debug" if settings.debug else "release"
            name = ext.name.rpartition(".")[2]
            self.build_temp = str(ROOT / "build" / f"{name}-torch{settings.torch.version}-{kind}")
            super().build_extension(ext)

        def run(self) -> None:
            super().run()
            if self.inplace:
                stamp(settings, ROOT / "fused_mixup")

    optimise = ["-O0", "-g", "-UNDEBUG"] if settings.debug else ["-O3", "-g0"]
    nvcc_optimise = ["-O0", "-g"] if settings.debug else ["-O3"]
    paths = support.without_paths(Path(include_paths()[0]))
    nvcc = [*nvcc_optimise, *support.NVCC_FLAGS, *(f"--compiler-options={p}" for p in paths)]
    if os.environ.get("FUSED_MIXUP_LINEINFO") == "0":
        nvcc.remove("-lineinfo")
    found = []
    for name, sources in settings.modules.items():
        cuda = name == "_C_cuda"
        make = CUDAExtension if cuda else CppExtension
        cxx = [*optimise, *support.CXX_FLAGS, *paths]
        found.append(
            make(
                f"fused_mixup.{name}",
                sources,
                include_dirs=[str(ROOT / "csrc")],
                define_macros=[*settings.macros, ("USE_CUDA", None)] if cuda else settings.macros,
                extra_compile_args={"cxx": cxx, "nvcc": nvcc},
                py_limited_api=settings.limited_api,
            )
        )
    return found, {"build_ext": BuildModules}


def _find_ninja() -> bool:
    """Without ninja PyTorch compiles one file after another; pip may not put it on the PATH."""
    if shutil.which("ninja") is None:
        try:
            import ninja
        except ImportError:
            return False
        os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ.get("PATH", "")])
    return True


def _check_wheel_command() -> None:
    """Fails with the remedy where setuptools could only say: invalid command 'bdist_wheel'."""
    version = tuple(map(int, setuptools.__version__.split(".")[:2]))
    if version < (70, 1) and importlib.util.find_spec("wheel") is None:
        sys.exit(
            f"\nerror: setuptools {setuptools.__version__} makes wheels with the wheel package, "
            "which is missing; pip install wheel, or pip install --upgrade setuptools\n"
        )


def main() -> None:
    options: dict = {
        "license": "Apache-2.0",
        "long_description": long_description(ROOT),
        "long_description_content_type": "text/markdown",
    }
    # sdist and metadata, which pip asks for first, need no PyTorch.
    if {"dist_info", "bdist_wheel", "editable_wheel"}.intersection(sys.argv):
        _check_wheel_command()
    builds = ("build", "bdist", "editable", "develop", "install")
    if any(word.startswith(builds) for word in sys.argv[1:]):
        if not os.access(ROOT, os.W_OK):
            sys.exit(f"\nerror: {ROOT} is read-only, and a build writes into it; build in a copy\n")
        try:
            settings = support.find_settings()
        except support.BuildError as error:
            sys.exit(f"\nerror: {error}\n")
        print(support.summary(settings), flush=True)
        options["cmdclass"] = {"build_py": python_command(settings)}
        if settings.modules:
            options["ext_modules"], compile_command = extensions(settings)
            options["cmdclass"] |= compile_command
            if settings.limited_api:
                options["options"] = {"bdist_wheel": {"py_limited_api": "cp310"}}
    # pyproject.toml has all else. Without these two arguments setuptools would pack the kernels
    # as a top-level package.
    setup(
        packages=[
            *find_packages(str(ROOT), include=["fused_mixup", "fused_mixup.*"]),
            "fused_mixup.triton_kernels",
        ],
        package_dir={"fused_mixup": "fused_mixup", "fused_mixup.triton_kernels": "triton_kernels"},
        **options,
    )


main()
