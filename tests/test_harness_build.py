"""tests/native_build.py: its cache under several processes, and sanitizers on odd systems."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import native_build
import pytest
from native_build import cache

pytestmark = pytest.mark.skipif(native_build.compiler() is None, reason="no host C++ compiler")

MAKES_SLOWLY = """
import sys, time, threading
from pathlib import Path
from native_build import cache
folder = Path(sys.argv[1])

def make(part):
    with open(folder / "log", "a") as log:
        log.write("x")
    part.write_text("half")
    time.sleep(0.3)
    part.write_text("whole")

def ask():
    assert cache(folder, "lib", "1", ".so", make).read_text() == "whole"
    print("ok", flush=True)

for t in [threading.Thread(target=ask) for _ in range(3)]:
    t.start()
"""


def python(code, *arguments, **env):
    env = {**os.environ, "PYTHONPATH": str(native_build.ROOT / "tests"), **env}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_threads_and_processes_make_a_file_once(tmp_path):
    running = [python(MAKES_SLOWLY, tmp_path) for _ in range(4)]
    # Each process has three threads, whose output lines may interleave.
    assert [p.communicate()[0].count("ok") for p in running] == [3] * 4
    assert (tmp_path / "log").read_text() == "x"


def test_a_failed_build_leaves_nothing_and_is_tried_again(tmp_path):
    def fail(part):
        part.write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache(tmp_path, "lib", "1", ".so", fail)
    assert [p.name for p in tmp_path.iterdir()] == [".lib-1.so.lock"]
    assert cache(tmp_path, "lib", "1", ".so", Path.touch).exists()


def test_a_new_one_replaces_the_stale_ones_of_its_family(tmp_path):
    def make_folder(part):
        part.mkdir()
        (part / "inside").touch()

    makes = {".so": Path.touch, "": make_folder}
    for suffix, make in makes.items():
        for family, key in (("lib", "stale"), ("lib", "used"), ("lib", "new"), ("lib_too", "old")):
            cache(tmp_path, family, key + suffix[1:], suffix, make)
    for path in tmp_path.iterdir():
        if "new" not in path.name:
            os.utime(path, (0, 0))
    for suffix in makes:
        cache(tmp_path, "lib", "used" + suffix[1:], suffix, pytest.fail)
    cache(tmp_path, "lib", "newest", ".so", Path.touch)
    left = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
    assert left == {
        "lib-newest.so", "lib-newso.so", "lib-new", "lib-usedso.so", "lib-used",
        "lib_too-oldso.so", "lib_too-old",
    }  # fmt: skip


def test_names_change_with_compiler_options_and_sources(tmp_path, monkeypatch):
    source = tmp_path / "a.cpp"
    source.write_text("int a;")
    names = [native_build.digest("-O1", [source]), native_build.digest("-O2", [source])]
    source.write_text("int b;")
    names.append(native_build.digest("-O1", [source]))
    monkeypatch.setattr(native_build, "_version", lambda: b"another compiler")
    names.append(native_build.digest("-O1", [source]))
    assert len(set(names)) == 4


def test_a_compiler_of_two_words():
    code = "import native_build; print(native_build.compiler())"
    command = ["env", *native_build.compiler()]
    assert python(code, CXX=" ".join(command)).communicate()[0].strip() == str(command)


def test_errors_of_the_compiler_are_raised(tmp_path):
    source = tmp_path / "a.cpp"
    source.write_text("int a = nothing;")
    with pytest.raises(RuntimeError, match=r"-c (.|\n)*a\.cpp:1:9: error"):
        native_build.compile_with("-c", source, "-o", tmp_path / "a.o")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The file that the compiler finds as libodd.so."""
    path = tmp_path / "libodd.so"
    command = tmp_path / "c++"
    command.write_text(f"#!/bin/sh\necho {path}\n")
    command.chmod(0o755)
    monkeypatch.setattr(native_build, "compiler", lambda: [str(command)])
    native_build.launch.cache_clear()
    yield path
    native_build.launch.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="sanitizers are preloaded as on Linux only")
def test_a_runtime_behind_a_linker_script(library, tmp_path):
    assert native_build.runtime("libodd.so") is None
    real = tmp_path / "libodd.so.8"
    real.write_bytes(b"\x7fELF and no more")
    for script in (f"INPUT ( {real} )", f"/* GNU ld script */\nINPUT({real})\n"):
        library.write_text(script)
        assert native_build.runtime("libodd.so") == real
    # Python starts without a library that the loader rejects, and reports it.
    assert "cannot be preloaded" in native_build.launch(("libodd.so",)).why_not
    library.write_text("INPUT ( /nowhere/libodd.so )")
    native_build.launch.cache_clear()
    assert native_build.launch(("libodd.so",)).why_not.endswith("comes without libodd.so")
