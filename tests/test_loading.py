"""Compiled modules that may not be loaded, and source trees that hide an installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fused_mixup

HERE = Path(fused_mixup.__file__).resolve().parent
BUILD_INFO = """
TORCH, COMPILER, CUDA_TOOLKIT, ARCH_LIST = "2.14.1+cu130", "c++", "{cuda}", "9.0"
DEBUG, MODULES, LEFT_OUT, FINGERPRINT = False, ["_C_cuda"], {{}}, ""
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources without what was compiled, as in a fresh checkout."""
    left_out = shutil.ignore_patterns("*.so", "*.pyd", "_build_info.py", "__pycache__")
    shutil.copytree(HERE, tmp_path / "tree" / "fused_mixup", ignore=left_out)
    triton = next(p for p in (HERE, HERE.parent) if (p / "triton_kernels").is_dir())
    shutil.copytree(
        triton / "triton_kernels", tmp_path / "tree" / "triton_kernels", ignore=left_out
    )
    (tmp_path / "tree" / "csrc").mkdir()
    return tmp_path / "tree"


# The tests' own environment may have an editable install.
NO_EDITABLE = """import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in str(f).lower()]
"""


def run(tree, code, path=(), cwd=None):
    return subprocess.run(
        [sys.executable, "-c", NO_EDITABLE + code],
        cwd=cwd or tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=120,
    )


# ------------------------------------------------------------------ compiled modules


LOAD = """
import torch
torch.version.cuda = "{here}"
from fused_mixup import backends, env
print("chosen", backends.chosen("CUDA"))
print(env.report())
"""


@pytest.mark.parametrize(
    ("built", "here", "loads"),
    [("13.0", "12.8", False), ("12.8", "13.0", False), ("12.4", "12.8", True), ("", "12.8", True)],
)
def test_a_module_for_another_cuda_is_not_loaded(built, here, loads, tree):
    package = tree / "fused_mixup"
    (package / "_C_cuda.py").write_text("print('loaded')")  # it would register kernels
    if built:
        (package / "_build_info.py").write_text(BUILD_INFO.format(cuda=built))
    done = run(tree, LOAD.format(here=here))
    assert done.returncode == 0, done.stderr
    assert ("loaded" in done.stdout.splitlines()) == loads
    assert ("chosen native" in done.stdout) == loads
    why = f"_C_cuda is built for CUDA {built} (with PyTorch 2.14.1+cu130), and this PyTorch"
    assert (why in done.stdout) != loads
    remedy = (
        f"for CUDA {here}; build it beside this one, with an nvcc of CUDA {here[:2]}: pip install"
    )
    assert (remedy in done.stdout) != loads


@pytest.mark.parametrize(
    "fault",
    ["raise OSError('libcudart.so.13: cannot open')", "import nothing_of_this_name", "1 / 0"],
)
def test_a_module_that_fails_says_why(fault, tree):
    (tree / "fused_mixup" / "_C.py").write_text(fault)
    done = run(tree, "from fused_mixup import env; print(env.report())")
    assert done.returncode == 0, done.stderr
    error = {"r": "OSError: libcudart", "i": "ModuleNotFoundError: No", "1": "ZeroDivisionError"}
    why = f"fused_mixup._C does not load: {error[fault[0]]}"
    assert done.stdout.count(why) == 2, done.stdout  # what is built; why native is not chosen
    assert "build it again for this PyTorch" in done.stdout


# ------------------------------------------------------------------ sources that hide a package


IMPORT = "import fused_mixup; print(fused_mixup.backends.chosen('CPU'))"


@pytest.fixture
def installed(tmp_path):
    """A folder of site-packages with an installed package; its modules are not loaded here."""
    package = tmp_path / "site" / "fused_mixup"
    package.mkdir(parents=True)
    for name in ("__init__.py", "_C.abi3.so", "_C_cuda.abi3.so"):
        (package / name).touch()
    return tmp_path / "site"


def test_a_source_tree_that_hides_an_installed_package_says_so(tree, installed):
    done = run(tree, IMPORT, [installed])
    assert done.stdout.strip() == "reference" and done.stderr.count("UserWarning") == 1
    for part in (
        "<string>:3: UserWarning",  # the line that imports it
        f"imported from {tree / 'fused_mixup'}, without the compiled _C and _C_cuda",
        f"hides the one installed in {installed / 'fused_mixup'}",
        "Run Python from another directory",
        "pip install --no-build-isolation -e .",
    ):
        assert part in done.stderr


def test_one_compiled_module_of_two_is_hidden(tree, installed):
    (tree / "fused_mixup" / "_C.py").touch()
    done = run(tree, IMPORT, [installed])
    assert "without the compiled _C_cuda, and hides" in done.stderr


EDITABLE = """
import importlib.util, os, sys


class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        file = os.path.join(sys.argv[1], *name.split(".")) + ".py"
        return importlib.util.spec_from_file_location(name, file) if "_C" in name else None


sys.meta_path.append(Editable)
"""


def test_a_module_of_another_checkout_is_not_loaded(tree, tmp_path):
    other = tmp_path / "other" / "fused_mixup"
    other.mkdir(parents=True)
    (other / "_C.py").write_text("print('loaded')")
    code = EDITABLE.replace("sys.argv[1]", repr(str(other.parent))) + IMPORT
    done = run(tree, code)
    assert done.stdout.strip() == "reference", done.stderr
    assert f"hides the one installed in {other}" in done.stderr


def test_nothing_is_said_where_nothing_is_hidden(tree, installed, tmp_path):
    for path in [], [tmp_path / "nowhere", tree, tree / "fused_mixup"]:
        done = run(tree, IMPORT, path)
        assert done.stdout.strip() == "reference" and not done.stderr
    (installed / "fused_mixup" / "_C.abi3.so").unlink()  # installed without compiled modules
    (installed / "fused_mixup" / "_C_cuda.abi3.so").unlink()
    assert not run(tree, IMPORT, [installed]).stderr
    for name in ("_C", "_C_cuda"):  # what is hidden is there as well
        (tree / "fused_mixup" / f"{name}.py").touch()
        (installed / "fused_mixup" / f"{name}.abi3.so").touch()
    assert not run(tree, IMPORT, [installed]).stderr
