"""How `make test-matrix` reports cells that pass, fail, or are unavailable; its smoke test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import smoke

from fused_mixup import ops, schemas

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "tools" / "matrix.py").exists():
    pytest.skip("needs the source tree", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))

import matrix  # noqa: E402
import matrix_env  # noqa: E402

MINE = ".".join(map(str, sys.version_info[:2]))
GOOD, BAD = matrix_env.Result(True, 1.0, ""), matrix_env.Result(False, 1.0, "noise\nerror: broken")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine where every PyTorch is available and nothing fails; tests change a part of it."""
    tried: list[tuple[str, str]] = []
    missing: dict[str, str] = {}
    broken: set[tuple[str, str]] = set()

    def make(home, torch, python):
        why = missing.get(torch)
        return matrix_env.Environment(home / f"torch-{torch}-{python.version}", torch, why)

    def build(environment, cuda, wheels):
        ok = ("build", environment.torch) not in broken
        return (GOOD, Path(environment.torch)) if ok else (BAD, None)

    def try_wheel(line, environment, wheel, devices):
        tried.append((str(wheel), environment.folder.name))
        line.add("native", BAD if (str(wheel), environment.torch) in broken else GOOD)

    monkeypatch.setattr(matrix, "make", make)
    monkeypatch.setattr(matrix, "build", build)
    monkeypatch.setattr(matrix, "try_wheel", try_wheel)
    monkeypatch.setattr(matrix, "why_no_cuda", lambda environment: "no nvcc")
    mine = matrix_env.Interpreter(Path(sys.executable), MINE)
    other = matrix_env.Interpreter(Path("/other"), "9.9")
    monkeypatch.setattr(matrix, "interpreters", lambda wanted: {MINE: mine, "9.9": other})

    def run(torches=("2.10.0", "2.11.0", "newest"), pythons=("9.9", "9.8"), wheel=None):
        return matrix.run_all(matrix.Matrix(tmp_path, False, wheel), list(torches), list(pythons))

    run.tried, run.missing, run.broken = tried, missing, broken
    return run


def test_a_given_wheel_is_tried_everywhere_and_nothing_is_built(machine, monkeypatch):
    monkeypatch.setattr(matrix, "build", lambda *_: pytest.fail("nothing must be built"))
    assert machine(wheel=Path("given.whl"))
    assert {wheel for wheel, _ in machine.tried} == {"given.whl"}
    assert [folder.removesuffix(f"-{MINE}") for _, folder in machine.tried] == [
        "torch-2.10.0",
        "torch-2.11.0",
        "torch-newest",
        "torch-2.13.0-9.9",
    ]
    machine.broken.add(("given.whl", "2.10.0"))
    assert not machine(wheel=Path("given.whl"))


def test_each_wheel_is_tried_where_it_was_built_and_at_the_other_end(machine, capsys):
    assert machine()
    mine = f"-{MINE}"
    assert machine.tried == [
        ("2.10.0", f"torch-2.10.0{mine}"),
        ("2.11.0", f"torch-2.11.0{mine}"),
        ("newest", f"torch-newest{mine}"),
        ("newest", f"torch-2.10.0{mine}"),
        ("2.10.0", f"torch-newest{mine}"),
        ("newest", "torch-2.13.0-9.9"),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7  # a line for each cell, and for the missing Python
    assert lines[-1] == "python 9.8  left out (no such interpreter on this machine)"
    assert "CUDA module left out (no nvcc)" in lines[1]


@pytest.mark.parametrize(
    "fault",
    [("build", "2.11.0"), ("2.10.0", "2.10.0"), ("newest", "2.10.0"), ("newest", "2.13.0")],
    ids=str,
)
def test_a_step_that_fails_fails_the_matrix(machine, capsys, fault):
    machine.broken.add(fault)
    assert not machine()
    seen = capsys.readouterr()
    assert seen.out.count("FAILED (error: broken)") == 1
    assert "noise" in seen.err


def test_what_cannot_be_had_is_named_and_fails_nothing(machine, capsys):
    machine.missing["newest"] = "pip: no network"
    assert machine()
    lines = capsys.readouterr().out.splitlines()
    assert "left out (pip: no network)" in lines[2]
    assert all("left out (one of the two is not there)" in line for line in lines[3:5])
    # The matrix then tries Pythons with the newest available binary.
    assert machine.tried[-1] == ("2.11.0", "torch-2.13.0-9.9")


def test_this_python_is_found_and_names_that_start_nothing_are_not(tmp_path):
    assert matrix_env.interpreters([MINE])[MINE].version == MINE
    assert matrix_env.version_of(tmp_path / "nothing") is None
    dead = tmp_path / "python9.9"
    dead.write_text("#!/bin/sh\nexit 127\n")
    dead.chmod(0o755)
    assert matrix_env.version_of(dead) is None


def test_a_step_that_hangs_ends_with_an_error():
    done = matrix_env.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5)
    assert not done.ok
    assert "not done after" in done.last_line()


def test_the_smoke_test_calls_every_op_that_a_backend_has():
    assert set(smoke.op_inputs()) == set(ops.SCHEMAS)
    left_out = {op for op in ops.SCHEMAS if smoke.reason_unavailable("triton", "CUDA", op)}
    without = {*schemas.CPU_ONLY, *schemas.WITHOUT_KERNEL}
    assert left_out == without or left_out == set(ops.SCHEMAS)


def test_what_went_wrong_is_said_in_a_line():
    output = "smoke native ops: RuntimeError: broken (1 s)\nsmoke native step: ok (1 s)\n"
    assert matrix_env.Result(False, 1.0, output).last_line().endswith("RuntimeError: broken (1 s)")


def test_the_smoke_test_sees_a_wrong_result(monkeypatch):
    wrong = smoke.reference.mix_targets
    monkeypatch.setattr(smoke.reference, "mix_targets", lambda *a: wrong(*a) + 0.1)
    with pytest.raises(AssertionError, match="mix_targets"):
        smoke.check_ops("cpu", "reference")
