"""How `make gpu` runs its stages, without a GPU: they pass, fail, crash, or run out of time."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest
from gpu_stage_runs import ROOT, python, run, stage, summary, wait_for

sys.path.insert(0, str(ROOT / "tools"))
import gpu_run
from gpu_run import Stage


def test_every_way_to_end(tmp_path):
    groups = [
        [stage("good"), stage("bad", "import sys; print('why'); sys.exit(4)")],
        [stage("absent", missing="there is no such tool")],
        [stage("crash", "import os; os.abort()"), stage("slow", "import time; time.sleep(60)", 1)],
        [Stage("no program", [["/nowhere/program"]], "nowhere.log", 5)],
        [stage("cut", read=lambda done: json.loads(""))],
        [stage("cut xml", read=lambda done: ElementTree.fromstring("<a"))],
        [stage("no folder", log="nowhere/at-all")],
        [stage("last")],
    ]
    results = {r.stage: r for r in run(groups, tmp_path)}
    verdicts = {name: r.result for name, r in results.items()}
    assert verdicts == {
        "good": "passed", "bad": "FAILED", "absent": "skipped", "crash": "FAILED",
        "slow": "FAILED", "no program": "FAILED", "cut": "FAILED", "cut xml": "FAILED",
        "no folder": "FAILED", "last": "passed",
    }  # fmt: skip
    assert "exit status 4" in results["bad"].detail
    assert results["absent"].detail == "there is no such tool"
    assert results["crash"].detail.startswith("crashed (SIGABRT)")
    assert results["slow"].detail.startswith("ran out of time after")
    assert results["cut"].detail.startswith("no result to read (JSONDecodeError: ")
    assert results["cut xml"].detail.startswith("no result to read (ParseError: unclosed token")
    assert results["no folder"].detail.startswith("cannot be run (FileNotFoundError: ")
    assert "cannot run" in (tmp_path / "nowhere.log").read_text()
    assert "why" in (tmp_path / "bad.log").read_text()

    left = summary(tmp_path)
    assert left["finished"] and left["not_run"] == []
    assert left["failed"] == [n for n, v in verdicts.items() if v == "FAILED"]
    assert [s["stage"] for s in left["stages"]] == list(verdicts)

    text = gpu_run.table(list(results.values()))
    head, *rows = text.splitlines()
    assert head.split() == ["stage", "result", "time", "detail"]
    assert [row.split("  ")[0].strip() for row in rows] == list(verdicts)
    assert any(row.startswith("absent") and row.endswith("there is no such tool") for row in rows)


def test_a_summary_stands_after_each_stage(tmp_path):
    look = f"print(open({str(tmp_path / 'summary.json')!r}).read())"
    run([[stage("first")], [stage("second", look)]], tmp_path)
    seen = (tmp_path / "second.log").read_text().split("\n", 1)[1]
    partial = json.loads(seen)
    assert not partial["finished"] and partial["not_run"] == ["second"]
    assert [s["stage"] for s in partial["stages"]] == ["first"]


def test_a_run_that_is_interrupted_leaves_its_results(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tools")!r})
from gpu_run import Stage, run_all
from pathlib import Path
def stage(name, code):
    return Stage(name, [[sys.executable, "-c", code]], name + ".log", 60)
wait = "import time; open({str(tmp_path / "begun")!r}, 'w').close(); time.sleep(60)"
groups = [[stage("first", "")], [stage("second", wait)], [stage("third", "")]]
run_all(groups, Path({str(tmp_path)!r}), {{}}, time.monotonic() + 60)
"""
    process = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "begun")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    left = summary(tmp_path)
    assert [(s["stage"], s["result"]) for s in left["stages"]] == [
        ("first", "passed"),
        ("second", "FAILED"),
    ]
    assert left["stages"][1]["detail"].startswith("interrupted")
    assert left["not_run"] == ["third"] and not left["finished"]


def test_each_stage_has_its_limit_and_no_more_than_is_left(tmp_path):
    sleeping = "import time; time.sleep(30)"
    groups = [[stage("a", sleeping, 2), stage("b")], [stage("c", sleeping, 100)], [stage("d")]]
    groups += [[stage("e", fills=True)]]
    started = time.monotonic()
    results = run(groups, tmp_path, 4)
    assert time.monotonic() - started < 25
    assert [r.result for r in results] == ["FAILED", "passed", "FAILED", "FAILED", "skipped"]
    assert results[0].detail.startswith("ran out of time after 2")
    assert results[2].detail.startswith("ran out of time")
    assert [r.detail for r in results[3:]] == ["no time was left"] * 2
    assert summary(tmp_path)["failed"] == ["a", "c", "d"]


def test_a_stage_that_fills_the_time_may_be_stopped(tmp_path, monkeypatch):
    read = lambda done: gpu_run.Verdict("passed", "three cases")  # noqa: E731
    fills = stage("it", "import time; time.sleep(60)", 2, fills=True, read=read)
    (result,) = run([[fills]], tmp_path, gpu_run.LEAST_TO_FILL - 1)
    assert (result.result, result.detail) == ("skipped", "no time was left")
    monkeypatch.setattr(gpu_run, "LEAST_TO_FILL", 1)
    (result,) = run([[fills]], tmp_path)
    assert (result.result, result.detail) == ("passed", "three cases")


def test_what_a_stage_found_stands_in_the_summary(tmp_path):
    verdict = gpu_run.Verdict("passed", "two", {"calls": 2})
    run([[stage("it", read=lambda done: verdict)]], tmp_path)
    (it,) = summary(tmp_path)["stages"]
    assert (it["stage"], it["result"], it["detail"], it["calls"]) == ("it", "passed", "two", 2)


def test_a_stage_runs_where_it_is_told_to(tmp_path):
    (tmp_path / "here").mkdir()
    code = "import os; print('at', os.getcwd())"
    run([[stage("it", code, cwd=tmp_path / "here")]], tmp_path)
    assert "at .\n" in (tmp_path / "it.log").read_text()  # logs name no folder


@pytest.mark.parametrize("how", ["SIG_DFL", "SIG_IGN"])  # what a child does about SIGTERM
def test_a_stopped_stage_leaves_no_process_and_keeps_its_output(tmp_path, monkeypatch, how):
    begun, alive, lock = (tmp_path / name for name in ("begun", "alive", "lock"))
    child = f"""
import fcntl, signal, time
signal.signal(signal.SIGTERM, signal.{how})
held = open({str(lock)!r}, "w")
fcntl.flock(held, fcntl.LOCK_EX)
open({str(begun)!r}, "w").close()
time.sleep(30)
open({str(alive)!r}, "w").close()
"""
    code = (
        f"import subprocess, sys; print('begun'); subprocess.run([sys.executable, '-c', {child!r}])"
    )

    class OutOfTime(subprocess.Popen):
        """Its time is over as soon as the child has begun."""

        over = False

        def wait(self, timeout=None):
            if self.over:
                return super().wait(timeout)
            self.over = True
            wait_for(begun)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(subprocess, "Popen", OutOfTime)
    (result,) = run([[stage("parent", code)]], tmp_path)
    assert result.detail.startswith("ran out of time")
    assert "begun" in (tmp_path / "parent.log").read_text()
    with lock.open("w") as file:  # the child holds it for as long as it lives
        fcntl.flock(file, fcntl.LOCK_EX)
    assert not alive.exists()


def test_a_process_that_starts_during_an_interrupt_is_stopped(tmp_path, monkeypatch):
    children = gpu_run.Children()

    def interrupted(*args, _start=subprocess.Popen, **kw):
        process = _start(*args, **kw)
        children.stop_all()  # before run() knows the process
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    command, log = python("import time; time.sleep(30)"), tmp_path / "log"
    done = children.run(command, {}, time.monotonic() + 20, log)
    assert done.status == -signal.SIGTERM
    monkeypatch.undo()
    done = children.run(python(f"open({str(tmp_path / 'late')!r}, 'w')"), {}, 1e9, log)
    assert done.status is None and not (tmp_path / "late").exists()


def test_commands_of_a_stage_run_side_by_side(tmp_path):
    def meets(own, other):  # ends well only where the other one has begun
        return python(f"""
import os, sys, time
open({str(tmp_path / own)!r}, "w").close()
for _ in range(600):
    if os.path.exists({str(tmp_path / other)!r}): sys.exit(0)
    time.sleep(0.05)
sys.exit("alone")
""")

    commands = [meets("a", "b"), meets("b", "a")]
    (result,) = run([[Stage("both", commands, "both.log", 60)]], tmp_path)
    assert result.result == "passed"
    assert "both 2 of 2: exit status 0" in (tmp_path / "both.log").read_text()


def test_logs_are_cut_and_name_no_folder_of_this_machine(tmp_path):
    code = f"print({str(ROOT)!r} + '/tests'); print('y' * 10**6); print('the end')"
    run([[stage("loud", code)]], tmp_path)
    log = (tmp_path / "loud.log").read_text()
    assert len(log) < 1.2 * gpu_run.LOG_BYTES and "… cut …" in log and "the end" in log
    assert str(ROOT) not in log and "./tests" in log
