"""`make gpu` without a GPU: how its stages end, and which files a run leaves."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT))
import gpu  # noqa: E402
import gpu_run  # noqa: E402
from gpu_run import Run, Stage  # noqa: E402

from benchmarks import experimental  # noqa: E402


def stage(name, code="print('hello')", limit=30.0, **more):
    return Stage(name, [[sys.executable, "-c", code]], limit, **more)


def run(stages, out, seconds=600.0, earlier=()):
    results = Run(out, {}, dict(earlier)).run_all(stages, time.monotonic() + seconds)
    return {name: (found.result, found.detail) for name, found in results.items()}


def summary(out):
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def wait_for(path):
    """Wait until ``path`` exists. The limit far exceeds what a busy machine needs."""
    give_up = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < give_up, f"{path.name} did not appear"
        time.sleep(0.02)


# ------------------------------------------------------------------ stages


def test_every_way_to_end(tmp_path):
    sleeping = "import time; print('begun'); time.sleep(60)"
    stages = [
        stage("good", f"print({str(ROOT / 'tests')!r}); print('===== 3 passed =====')"),
        stage("bad", "import sys; print('why'); sys.exit(4)"),
        stage("absent", missing="there is no such tool"),
        stage("crash", "import os; os.abort()"),
        stage("slow", sleeping, 1),
        Stage("no program", [["/nowhere/program"]], 5),
        stage("unsupported", "print('Device not supported'); exit(1)", unsupported="Device .*"),
        stage("all skipped", "print('== 3 skipped in 1 s ==')", unsupported=r"^== \d+ skipped.*"),
        stage("no leaf", leaf="figures.json"),
        stage("leaf", f"open({str(tmp_path / 'a.json')!r}, 'w')", leaf="a.json"),
        stage("last", "print('to the end')"),
    ]
    results = run(stages, tmp_path)
    assert list(results) == [s.name for s in stages]
    assert results["good"] == ("passed", "3 passed")
    assert results["bad"] == ("FAILED", "exit status 4; why")
    assert results["absent"] == ("skipped", "there is no such tool")
    assert results["crash"][1].startswith("exit status -6")
    assert results["slow"][0] == "FAILED" and results["slow"][1].startswith("ran out of time after")
    assert results["no program"][0] == "FAILED" and "cannot be run" in results["no program"][1]
    assert results["unsupported"] == ("skipped", "Device not supported")
    assert results["all skipped"] == ("skipped", "3 skipped in 1 s")
    assert results["no leaf"] == ("FAILED", "figures.json was not written; hello")
    assert results["leaf"] == ("passed", "") and results["last"] == ("passed", "to the end")
    left = summary(tmp_path)
    assert left["finished"] and left["failed"] == [
        n for n, r in results.items() if r[0] == "FAILED"
    ]
    log = (tmp_path / "stages.log").read_text()
    assert "===== slow: stopped: " in log and "begun" in log
    assert str(ROOT) not in log and "./tests" in log  # it names no folder of this machine


def test_stages_end_with_the_time(tmp_path, monkeypatch):
    sleeping = "import time; time.sleep(60)"
    started = time.monotonic()
    stages = [
        stage("a", sleeping, 1),
        stage("b", sleeping, 100),
        stage("c"),
        stage("d", fills=True),
    ]
    results = run(stages, tmp_path, 3)
    assert time.monotonic() - started < 25
    assert results["a"][1].startswith("ran out of time after 1")
    assert results["b"][1].startswith("ran out of time")
    assert results["c"] == ("FAILED", "no time was left")
    assert results["d"] == ("skipped", "no time was left")
    monkeypatch.setattr(gpu_run, "LEAST_TO_FILL", 1)
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('two cases')"
    stopped = stage("it", code, 3, fills=True)
    assert run([stopped], tmp_path) == {"it": ("passed", "two cases")}


def test_commands_of_a_stage_run_side_by_side(tmp_path):
    def meets(own, other):  # each command succeeds only if the other one has begun
        return [sys.executable, "-c", f"""
import os, sys, time
open({str(tmp_path / own)!r}, "w").close()
for _ in range(600):
    if os.path.exists({str(tmp_path / other)!r}): print({own!r}); sys.exit(0)
    time.sleep(0.05)
sys.exit("alone")
"""]  # fmt: skip

    both = Stage("both", [meets("a", "b"), meets("b", "a")], 60)
    assert run([both], tmp_path) == {"both": ("passed", "a; b")}


@pytest.mark.parametrize("how", ["SIG_DFL", "SIG_IGN"])  # the child's reaction to SIGINT
def test_a_stopped_stage_leaves_no_process(tmp_path, how):
    begun, alive, lock = (tmp_path / name for name in ("begun", "alive", "lock"))
    child = f"""
import fcntl, signal, time
signal.signal(signal.SIGINT, signal.{how})
held = open({str(lock)!r}, "w")
fcntl.flock(held, fcntl.LOCK_EX)
open({str(begun)!r}, "w").close()
time.sleep(40)
open({str(alive)!r}, "w").close()
"""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    limit = 8  # seconds that the child has to begin
    assert run([stage("parent", code, limit)], tmp_path)["parent"][0] == "FAILED"
    assert begun.exists()
    with lock.open("w") as file:  # the child holds the lock as long as it lives
        fcntl.flock(file, fcntl.LOCK_EX)
    assert not alive.exists()


def test_a_run_that_is_interrupted_leaves_its_results(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tools")!r})
from gpu_run import Run, Stage
from pathlib import Path
def stage(name, code):
    return Stage(name, [[sys.executable, "-c", code]], 60)
wait = "import time; open({str(tmp_path / "begun")!r}, 'w').close(); time.sleep(60)"
stages = [stage("first", ""), stage("second", wait), stage("third", "")]
Run(Path({str(tmp_path)!r}), {{}}, {{}}).run_all(stages, time.monotonic() + 60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "begun")
    partial = summary(tmp_path)  # each stage rewrites the summary
    assert [*partial["stages"]] == ["first"] and partial["not_run"] == ["second", "third"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    left = summary(tmp_path)
    assert {n: s["result"] for n, s in left["stages"].items()} == {
        "first": "passed", "second": "FAILED",
    }  # fmt: skip
    assert left["stages"]["second"]["detail"].startswith("interrupted")
    assert left["not_run"] == ["third"] and not left["finished"]


# ------------------------------------------------------------------ the script


def test_stages_of_a_gpu(tmp_path):
    found = {s.name: s for s in gpu.stages(tmp_path, ROOT, rehearsal=False)}
    assert [*found] == [*gpu.LIMITS]
    # All stages but the open-ended ones fit into the time, the first three into three minutes.
    sure = [s.limit for s in found.values() if not s.fills and s.name not in gpu.ON_REQUEST]
    assert sum(sure) < gpu.MINUTES * 60 - 15 and sum(sure[:3]) <= 180
    assert [name for name, s in found.items() if s.fills] == ["benchmarks"]
    for name in gpu.GRAPHS:
        assert (ROOT / "tests" / name).exists(), f"{name} has another name now"
    files = [s.leaf for s in found.values() if s.leaf]
    assert len({*files, gpu_run.LOG, gpu_run.SUMMARY}) <= 8


def test_what_needs_a_gpu_is_marked():
    """`make gpu` leaves out a test without the mark."""
    needs = re.compile(r"@pytest\.mark\.skipif\(not (?:GPU|torch\.cuda\.is_available\(\)),")
    found = 0
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for before, this in pairwise(lines):
            if needs.match(this):
                found += 1
                assert before == "@pytest.mark.gpu", f"{path.name}: {this}"
    assert found >= 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    env = {**os.environ, "OUT": str(tmp_path / "out")}
    command = [sys.executable, str(ROOT / "tools" / "gpu.py")]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2 and ran.stdout == ""
    assert "nothing was run: " in ran.stderr and "CUDA" in ran.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--only", "grid,speed"], ["--limit", "speed=3"]])
def test_an_unknown_stage_is_named(words, capsys):
    with pytest.raises(SystemExit):
        gpu.main(words)
    assert "no stage speed; there are environment, smoke" in capsys.readouterr().err
    assert gpu.names_of("bench,smoke") == ["headlines", "benchmarks", "smoke"]


def test_a_second_run_keeps_what_the_first_has_left(tmp_path):
    (tmp_path / "stages.log").write_text("first")
    for leaf in ("headlines.json", "benchmarks.json"):
        (tmp_path / leaf).write_text("{}")
    known = {name: {"result": "passed"} for name in ("smoke", "grid")}
    (tmp_path / "summary.json").write_text(json.dumps({"stages": known}))
    again = [s for s in gpu.stages(tmp_path, ROOT, True) if s.name in ("grid", "headlines")]
    earlier = gpu.keep_earlier(tmp_path, again, second=True)
    assert earlier == {"smoke": known["smoke"]}
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"benchmarks.json", "stages.log", "summary.json"}
    run([stage("grid")], tmp_path, earlier=earlier)
    assert [*summary(tmp_path)["stages"]] == ["smoke", "grid"]
    assert gpu.keep_earlier(tmp_path, again, second=False) == {}
    assert {p.name for p in tmp_path.iterdir()} == {"benchmarks.json"}


def test_a_wheel_of_other_sources_is_noticed(tmp_path):
    for source, inside in (("fused_mixup", ""), ("triton_kernels", "triton_kernels")):
        for path in (ROOT / source).rglob("*.py"):
            copy = tmp_path / inside / path.relative_to(ROOT / source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "_build_info.py").write_text("# made there")
    assert gpu.other_sources(tmp_path) == []
    (tmp_path / "ops.py").write_text("# older")
    (tmp_path / "triton_kernels" / "mix.py").unlink()
    assert gpu.other_sources(tmp_path) == ["fused_mixup/ops.py", "triton_kernels/mix.py"]


def test_a_copy_holds_nothing_that_shadows_the_package(tmp_path):
    root = gpu.copy_without_sources(tmp_path / "copy")
    assert not (root / "fused_mixup").exists() and not (root / "triton_kernels").exists()
    assert (root / "tests" / "gpu_small.py").exists()
    assert not (root / "benchmarks" / "results").exists()
    for s in gpu.stages(tmp_path, root, rehearsal=True):
        assert s.cwd == root and s.env["PYTHONPATH"].startswith(str(root))
        assert not any(str(ROOT / "tests") in word for command in s.commands for word in command)


# ------------------------------------------------------------------ both paths of a kernel


@pytest.fixture
def switched(monkeypatch):
    """A GPU of sm_90 whose two paths are the CPU's: `add` is what the experimental one adds."""
    state = {"on": False, "add": 0}
    mix_ = experimental.fm.mix_
    monkeypatch.setenv("FUSED_MIXUP_REHEARSAL", "1")
    monkeypatch.setattr(
        experimental, "find_switch", lambda device: (lambda on: state.update(on=on), 90)
    )
    monkeypatch.setattr(
        experimental.fm, "mix_", lambda x, plan: mix_(x, plan).add_(state["add"] * state["on"])
    )
    return state


@pytest.mark.parametrize(("faster", "add"), [(True, 0), (False, 0), (True, 1)])
def test_a_path_earns_the_default_by_bits_and_time(
    switched, monkeypatch, capsys, faster, add, tmp_path
):
    switched["add"] = add
    seconds = {"default": 1.0, "experimental": 0.9 if faster else 0.99, "copy": 0.8}
    monkeypatch.setattr(experimental, "times", lambda *_: dict(seconds))
    leaf = tmp_path / "experimental.json"
    status = experimental.main(["--device", "cpu", "--json", str(leaf)])
    said, report = capsys.readouterr().out, json.loads(leaf.read_text())
    assert status == (1 if add else 0) and ("DIFFERENT BITS" in said) == bool(add)
    earned = faster and not add
    assert {t["earned"] for t in report["trials"]} == {earned}
    assert ("should become the default" in said) == earned
    assert report["left_out"] == sum(t.least > 90 for t in experimental.TRIALS)
    assert not switched["on"]
