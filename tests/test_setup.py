"""setup.py where something is missing: one clear line, or a build that does without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import native_build
import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "tools" / "build_support.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)
setuptools = pytest.importorskip("setuptools")


def run_setup(*arguments, before="", **env):
    """Run setup.py, in a Python that runs ``before`` first."""
    code = f"import runpy, sys\n{before}\nsys.argv[0] = 'setup.py'\n"
    return subprocess.run(
        [
            sys.executable,
            "-c",
            code + "runpy.run_path('setup.py', run_name='__main__')",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


# Imports and look-ups of this package find nothing.
HIDE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == {name!r} else found(name, *args)
"""


def test_setup_fails_hard_where_cuda_is_asked_for_and_cannot_be_built():
    result = run_setup("build_py", FUSED_MIXUP_CUDA="1", CXX="/nonexistent")
    assert result.returncode != 0
    assert "FUSED_MIXUP_CUDA=1" in result.stderr


def test_no_pytorch_is_one_line():
    result = run_setup("bdist_wheel", before=HIDE.format(name="torch"))
    assert result.returncode != 0
    said = result.stderr.strip().splitlines()[-1]
    assert said.startswith("error: fused_mixup is built against PyTorch, and this Python has none;")
    assert "Traceback" not in result.stderr


def test_sources_that_are_read_only_are_named():
    before = "import os; os.access = lambda path, mode: False"
    result = run_setup("bdist_wheel", before=before)
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert f"error: {ROOT} is read-only, and a build writes into it; build in a" in result.stderr


@pytest.mark.parametrize(("version", "refused"), [("65.5.0", True), ("70.1.0", False)])
def test_an_old_setuptools_without_wheel_is_named(version, refused):
    before = HIDE.format(name="wheel") + f"import setuptools; setuptools.__version__ = {version!r}"
    before += "\nsetuptools.setup = lambda **options: None"
    result = run_setup("dist_info", before=before)
    assert (result.returncode != 0) == refused, result.stderr
    assert ("pip install wheel, or pip install --upgrade" in result.stderr) == refused


NO_NINJA = """
import builtins, os, shutil, setuptools

which, imported = shutil.which, builtins.__import__
shutil.which = lambda name, *args, **how: None if name == "ninja" else which(name, *args, **how)


def refusing(name, *args, **how):
    if name == "ninja":
        raise ImportError(name)
    return imported(name, *args, **how)


builtins.__import__ = refusing
os.environ.pop("CC", None)
setuptools.setup = lambda **options: print("CC is", os.environ["CC"])
"""


def test_without_ninja_the_compiler_is_the_same():
    """Old setuptools compile C++ with CC, which is another compiler than CXX, or none."""
    compiler = native_build.compiler()
    if compiler is None:
        pytest.skip(native_build.why_no_compiler())
    program = shutil.which(compiler[0])
    result = run_setup("build_ext", before=NO_NINJA, CXX=program, FUSED_MIXUP_CUDA="0")
    assert "note: no ninja, so files are compiled one after another" in result.stdout, result.stderr
    assert f"CC is {program}" in result.stdout
