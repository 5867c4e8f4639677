"""What CI runs, how it reports failures, and which tests only `make proofs` runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest
from native_build import ROOT

PARTS = ["lint", "docs", "test-matrix", "proofs", "test"]
MAKE = """#!/bin/sh
echo "made $1"
case " $FAILING " in *" $1 "*) exit 2 ;; esac
case " $SLOW " in *" $1 "*) sleep 60 ;; esac
"""


@pytest.mark.parametrize("broken", ["", "lint", "proofs test", "lint docs test-matrix proofs test"])
def test_all_parts_run_and_any_that_fails_fails_ci(tmp_path, broken):
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FAILING": broken}
    ran = subprocess.run([ROOT / ".ci" / "run"], env=env, capture_output=True, text=True)
    assert re.findall(r"^made (\S+)$", ran.stdout, re.M) == PARTS
    assert ran.returncode == (1 if broken else 0)
    assert ran.stdout.endswith("made test\n")  # pytest's summary then ends the output
    for part in PARTS[:-1]:
        how = "FAILED" if part in broken.split() else "passed"
        assert re.search(rf"^{part} +{how} after \d+ s$", ran.stdout, re.M)
    assert ran.stderr == (f"FAILED: {broken}; see above\n" if broken else "")


@pytest.mark.parametrize(("slow", "code"), [("test-matrix", 0), ("proofs", 0), ("test", 1)])
def test_a_part_that_takes_too_long_is_stopped_and_named(tmp_path, slow, code):
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLOW": slow}
    env |= {"PART_LIMIT": "2", "FAILING": ""}
    ran = subprocess.run([ROOT / ".ci" / "run"], env=env, capture_output=True, text=True)
    assert re.findall(r"^made (\S+)$", ran.stdout, re.M) == PARTS
    assert ran.returncode == code
    if slow != "test":
        assert re.search(rf"^{slow} +STOPPED, not all of it ran, after \d+ s$", ran.stdout, re.M)


def test_each_part_is_a_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {*PARTS} <= targets
    head = makefile.partition("\n\n")[0]
    hidden = {"lint-ruff", "lint-format", "lint-mypy", "lint-clang-format"}
    for target in targets - hidden:
        assert re.search(rf"\bmake {target}\b", head), f"the head does not list make {target}"


def test_tests_leave_the_proofs_out():
    text = (ROOT / "pyproject.toml").read_text()
    assert "-m 'not proof'" in re.search(r"^addopts = (.*)$", text, re.M)[1]
    marked = {
        p.stem for p in Path(ROOT, "tests").glob("test_*.py") if "mark.proof" in p.read_text()
    }
    for kind in ("cpu_sanitizers", "cuda_host_proof", "cuda_build", "triton_compile"):
        assert f"test_{kind}" in marked
    assert {"test_draw_statistics", "test_properties", "test_gpu_rehearsal"} <= marked


def test_the_slowest_files_are_named(monkeypatch):
    monkeypatch.setattr(conftest, "_seconds", {})
    for file, seconds in (("a", 3.0), ("b", 30.0), ("a", 9.5), ("c", 0.25)):
        report = SimpleNamespace(nodeid=f"tests/test_{file}.py::test", duration=seconds)
        conftest.pytest_runtest_logreport(report)
    said = []
    reporter = SimpleNamespace(section=said.append, write_line=said.append)
    conftest.pytest_terminal_summary(reporter)
    assert said == [
        "slowest files",
        "   42.8 s  all 3 files, one after another",
        "   30.0 s  tests/test_b.py",
        "   12.5 s  tests/test_a.py",
        "    0.2 s  tests/test_c.py",
    ]
    conftest._seconds.clear()
    said.clear()
    conftest.pytest_terminal_summary(reporter)
    assert said == []
