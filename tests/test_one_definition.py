"""A name of the package has one definition in a module: different types need different names.

The CPU module is compiled and linked with link-time optimisation, where the compiler compares the
types of all files (-Wodr). Two types of one name are an error: the linker keeps one's functions
for the std::vector of both.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from native_build import compiler, why_no_compiler
from sanitized import build

pytestmark = pytest.mark.proof

LTO = "-O1 -g0 -flto -fno-fat-lto-objects".split()
PLANTED = """
#include <vector>
#include "cpu/walk.h"
namespace fused_mixup {{
struct Seen {{ {members} }};
std::vector<Seen> seen_{name}(int n) {{ std::vector<Seen> all(n); return all; }}
}}
"""


def why_not() -> str | None:
    if compiler() is None:
        return why_no_compiler()
    version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True).stdout
    return None if "Free Software Foundation" in version else "only GCC has -Wodr"


def compiled(sources: list[Path], folder: Path) -> list[Path]:
    def one(source: Path) -> Path:
        out = folder / f"{source.stem}.o"
        options = build.options([*LTO, f"-I{build.CPU.parent}"])
        command = [*compiler(), *options, "-c", str(source), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return out

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        return list(pool.map(one, sources))


def linked(objects: list[Path], folder: Path) -> subprocess.CompletedProcess[str]:
    checks = ["-flto=auto", "-Wodr", "-Werror=odr", "-Wlto-type-mismatch"]
    command = [*compiler(), *LTO, *checks, "-shared", *map(str, objects)]
    command += ["-o", str(folder / "linked.so")]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    if why_not() is not None:
        pytest.skip(why_not())
    return compiled(sorted(build.CPU.glob("*.cpp")), tmp_path_factory.mktemp("lto"))


def test_each_type_of_the_cpu_module_is_defined_once(objects, tmp_path):
    done = linked(objects, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "odr" not in done.stderr, done.stderr


@pytest.mark.parametrize("same", [True, False], ids=["alike", "different"])
def test_two_types_of_one_name_are_found(tmp_path, same):
    """The check of the test above can fail."""
    if why_not() is not None:
        pytest.skip(why_not())
    members = {"a": "double own; int partner;", "b": "double own; int partner;"}
    if not same:
        members["b"] = "float weight[2];"
    sources = []
    for name, text in members.items():
        sources.append(tmp_path / f"{name}.cpp")
        sources[-1].write_text(PLANTED.format(name=name, members=text))
    done = linked(compiled(sources, tmp_path), tmp_path)
    assert (done.returncode == 0) == same, done.stderr
    assert ("Seen" in done.stderr) == (not same)
