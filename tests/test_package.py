"""The contents of a wheel and of a source package."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "tools" / "build_support.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the tree with files of an earlier build, which must not be packed."""
    setuptools = pytest.importorskip("setuptools")
    version = tuple(map(int, setuptools.__version__.split(".")[:2]))
    if version < (70, 1) and importlib.util.find_spec("wheel") is None:
        pytest.skip("needs setuptools 70.1 or the wheel package")
    tree = tmp_path_factory.mktemp("sources") / "tree"
    rubbish = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=rubbish)
    stale = tree / "build" / "lib" / "fused_mixup" / "_C_cuda.abi3.so"
    stale.parent.mkdir(parents=True)
    stale.touch()
    return tree


@pytest.fixture(scope="module")
def wheel(sources):
    """A wheel built without a compiler and without a network."""
    pytest.importorskip("pip")
    work = sources.parent
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(work), str(sources)]
    env = {**os.environ, "CXX": "/nonexistent", "FUSED_MIXUP_CUDA": "auto"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = work.glob("*.whl")
    return path


def test_wheel_without_a_compiler_is_plain_python(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".so", ".pyd"))]
    assert "fused_mixup/_build_info.py" in names


def test_wheel_holds_every_python_file_and_nothing_under_the_bare_name(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "fused_mixup").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "triton_kernels").glob("*.py"):
        assert f"fused_mixup/triton_kernels/{path.name}" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fused_mixup"}


def where_is(module: str, path: Path, cwd: Path) -> Path:
    code = f"import importlib.util as u; print(u.find_spec({module!r}).origin)"
    env = {**os.environ, "PYTHONPATH": str(path), "FUSED_MIXUP_BACKEND": "auto"}
    out = subprocess.check_output([sys.executable, "-c", code], env=env, cwd=cwd, text=True)
    return Path(out.strip()).resolve()


def test_triton_kernels_of_a_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    found = where_is("fused_mixup.triton_kernels", site, tmp_path)
    assert found == (site / "fused_mixup" / "triton_kernels" / "__init__.py").resolve()


def test_triton_kernels_of_a_bare_source_tree(tmp_path):
    found = where_is("fused_mixup.triton_kernels", ROOT, tmp_path)
    assert found == ROOT / "triton_kernels" / "__init__.py"


def test_a_wheel_holds_the_licence_and_says_what_it_is(wheel):
    archive = zipfile.ZipFile(wheel)
    names = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
    where = "licenses/LICENSE" if "licenses/LICENSE" in names else "LICENSE"  # setuptools < 77
    licence = archive.read(names[where]).decode()
    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    said = archive.read(names["METADATA"]).decode()
    assert "\nLicense: Apache-2.0\n" in said and "\nLicense-File: LICENSE\n" in said
    assert "\nDescription-Content-Type: text/markdown" in said
    assert "\n# fused_mixup\n" in said and "](docs/" not in said and "](examples/" not in said
    assert "\nClassifier: License :: OSI Approved :: Apache Software License\n" in said


def test_the_licence_is_the_text_of_apache_2():
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_a_build_beside_packages_that_are_named_like_tools(sources, tmp_path):
    """setuptools runs a hook of `kernels` in each build; tools/ has a module of that name."""
    hook = "[egg_info.writers]\nk.lock=kernels.locking:write\n"
    for name, text in {
        "kernels/__init__.py": "",
        "kernels/locking.py": "def write(*_): print('the hook ran')",
        "kernels-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: kernels\nVersion: 1\n",
        "kernels-1.dist-info/entry_points.txt": hook,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    tree = tmp_path / "tree"
    shutil.copytree(sources, tree)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "setup.py", "egg_info"]
    done = subprocess.run(run, cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "the hook ran" in done.stdout, done.stdout + done.stderr


def test_a_source_package_holds_what_builds_tests_and_explains_it(sources):
    code = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (sources / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "README.md"} <= names
    assert {"setup.py", "pyproject.toml", "Makefile", "tools/long_description.py"} <= names
    folders = {"csrc": "*.*", "docs": "*.md", "tests": "*.py", "tools": "*.py"}
    for folder, pattern in folders.items():
        there = {p.relative_to(sources).as_posix() for p in (sources / folder).rglob(pattern)}
        assert there and there <= names
    assert not [name for name in names if name.endswith(".so")]
