"""Results files: from lines to rows, partial runs, and a run that is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_reports import CASES, HEAD, lines, report

from benchmarks import results, run
from benchmarks.registry import OURS

ROOT = Path(__file__).resolve().parents[1]


def test_rows_hold_what_was_counted():
    found = report()
    assert found["finished"] and found["not_measured"] == [] and found["failed"] == {}
    assert found["copy_gb_per_s"] == pytest.approx(2.0)
    mixing = found["results"][0]
    ours = mixing["providers"][OURS]
    assert ours["median_ms"] == pytest.approx(0.5) and ours["runs"] == 20
    assert ours["min_ms"] < ours["low_ms"] < ours["median_ms"] < ours["high_ms"]
    assert ours["gb_per_s"] == pytest.approx(4.0)  # 2 MB in 0.5 ms
    assert ours["share_of_floor"] == pytest.approx(2.0)
    assert mixing["skipped"] == {"Kornia": "not installed"}
    assert found["results"][2]["providers"]["eager"]["parts_ms"]["loss"] == pytest.approx(2.0)


def test_turns_are_put_together():
    twice = [{**one, "turn": turn} for turn in (0, 1) for one in lines()]
    found = results.report(HEAD, twice, CASES, True)
    assert found["results"][0]["providers"][OURS]["runs"] == 40


def test_the_interval_of_the_median_shrinks():
    few, many = ([0.001 + i % 10 * 1e-5 for i in range(n)] for n in (10, 1000))
    widths = [m["high_ms"] - m["low_ms"] for m in map(results.milliseconds, (few, many))]
    assert widths[1] < widths[0] / 2
    alone = results.milliseconds([0.001])
    assert alone["low_ms"] == alone["high_ms"] == alone["median_ms"] == 1.0


def test_part_of_a_run_is_usable(tmp_path):
    path = tmp_path / "lines.jsonl"
    text = "".join(json.dumps(one) + "\n" for one in lines()[:4])
    path.write_text(text + '{"case": "cut o')
    found = results.report(HEAD, results.read_lines(path), CASES, finished=False)
    assert [row["op"] for row in found["results"]] == ["mix_"]
    assert not found["finished"]
    assert found["not_measured"] == [case.name for case in CASES[2:]]
    out = tmp_path / "deep" / "run.json"
    results.write(out, found)
    assert results.read(out) == found
    assert not list(out.parent.glob("*.part"))


def test_a_failed_case_is_named():
    case = CASES[1]
    bad = {"case": case.name, "provider": OURS, "turn": 0, "failed": "differs"}
    found = results.report(HEAD, [bad, *lines()], CASES, True)
    assert found["failed"] == {case.name: "differs"}
    assert case.name in found["not_measured"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "expected a results file of schema 2, got None"),
        ('{"schema": 1}', "expected a results file of schema 2, got 1"),
        (None, "cannot be read"),
    ],
)
def test_bad_files(tmp_path, content, says):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(results.ResultsError, match=says):
        results.read(path)


def test_an_interrupted_run_leaves_its_figures(tmp_path):
    """Run the real command on real cases and interrupt it as soon as its file exists."""
    out = tmp_path / "run.json"
    command = [sys.executable, "-m", "benchmarks.run", "--device", "cpu", "--seconds", "0.02"]
    # A small batch is measured first; the interrupt comes before large ones and calls.
    command += ["--only", "8×", "--json", str(out)]
    # Other processes run on these cores, too: waiting threads must not spin.
    env = {**os.environ, "OMP_PROC_BIND": "false", "OMP_WAIT_POLICY": "passive"}
    run = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 600
    while not out.exists() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    said, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors
    found = results.read(out)
    assert not found["finished"] and found["not_measured"] and not found["failed"]
    first = found["results"][0]
    assert first["providers"][OURS]["median_ms"] > 0 and found["copy_gb_per_s"] > 0
    assert "a run that was interrupted" in said and "interrupted before" in errors


def test_instruction_sets_are_those_of_the_machine(monkeypatch):
    monkeypatch.delenv("FUSED_MIXUP_CPU", raising=False)
    monkeypatch.setattr(run, "best_isa", lambda: "avx2")
    assert run.isas("") == ["avx2"] and run.isas("avx2,baseline,avx2") == ["avx2", "baseline"]
    for asked in ("avx512", "AVX2", "avx2,"):
        with pytest.raises(ValueError, match="--isa: expected some of"):
            run.isas(asked)
    assert run.environment("baseline")["FUSED_MIXUP_CPU"] == "baseline"
    monkeypatch.setattr(run, "best_isa", lambda: "")
    assert run.isas("") == [""] and "FUSED_MIXUP_CPU" not in run.environment("")
