"""What `make gpu` reads of what its stages printed or left, without a GPU."""

from __future__ import annotations

import json
import sys

import pytest
from gpu_stage_runs import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import gpu_readers as readers
from gpu_run import FAILED, PASSED, SKIPPED, Done

MEMORY = "9 calls, 0 wrong\n========= ERROR SUMMARY: 0 errors"


@pytest.mark.parametrize(
    ("tool", "text", "status", "result", "says"),
    [
        ("memcheck", MEMORY, 0, PASSED, "0 errors in 9 calls"),
        ("memcheck", "9 calls, 0 wrong\n========= ERROR SUMMARY: 2 errors", 9, FAILED, "2 errors"),
        ("memcheck", "9 calls, 1 wrong\n========= ERROR SUMMARY: 0 errors", 1, FAILED, "1 wrong"),
        ("initcheck", "========= ERROR SUMMARY: 0 errors", 1, FAILED, "0 errors; cut short"),
        ("memcheck", "Traceback", 1, FAILED, "printed no summary (exit status 1)"),
        ("memcheck", "=== Error: Device not supported", 1, SKIPPED, "compute-sanitizer does not"),
        ("synccheck", "left out: native: no\n0 calls, 0 wrong", 3, SKIPPED, "no backend"),
        (
            "racecheck",
            "9 calls, 0 wrong\n=== RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
            0, PASSED, "0 hazards, 0 warnings in 9 calls",
        ),
        (
            "racecheck",
            "9 calls, 0 wrong\n=== RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)",
            9, FAILED, "1 hazards",
        ),
        ("racecheck", MEMORY, 0, FAILED, "no summary"),
        ("memcheck", f"left out: triton: absent\n{MEMORY}", 0, PASSED, "without triton"),
    ],
)  # fmt: skip
def test_what_a_sanitizer_says(tool, text, status, result, says):
    got = readers.read_sanitizer(tool, [Done(status, text)])
    assert got.result == result and says in got.detail


def test_what_a_sanitizer_says_of_several_processes():
    absent = Done(3, "left out: triton: absent\n0 calls, 0 wrong")
    got = readers.read_sanitizer("memcheck", [Done(0, MEMORY), absent])
    assert got.result == PASSED and got.detail == "0 errors in 9 calls, 0 wrong; without triton"
    got = readers.read_sanitizer("memcheck", [Done(0, MEMORY), Done(0, MEMORY)])
    assert got.detail == "0 errors in 18 calls, 0 wrong"
    one_bad = [Done(0, MEMORY), Done(9, MEMORY.replace("0 errors", "1 errors"))]
    assert readers.read_sanitizer("memcheck", one_bad).result == FAILED
    crashed = [Done(0, MEMORY), Done(-11, "Segmentation fault")]
    assert "printed no summary" in readers.read_sanitizer("memcheck", crashed).detail


def test_what_the_smoke_test_says():
    good = Done(0, "left out: triton: no GPU\n9 calls, 0 wrong")
    got = readers.read_calls([good, Done(0, "6 calls, 0 wrong")])
    assert got.result == PASSED and got.data["calls"] == 15
    assert got.detail == "15 calls, 0 wrong; left out: triton: no GPU"
    bad = Done(1, "WRONG mix_ 3x3 with native: AssertionError: differs\n9 calls, 1 wrong")
    got = readers.read_calls([good, bad])
    assert got.result == FAILED and "1 wrong (mix_ 3x3 with native: Assertion" in got.detail
    got = readers.read_calls([good, Done(-6, "CUDA error")])
    assert got.result == FAILED and "1 of 2 processes broke off" in got.detail
    assert readers.read_calls([Done(3, "0 calls, 0 wrong")]).result == FAILED  # nothing was proven
    assert readers.read_calls([good, Done(1, "")]).result == FAILED
    # tests/smoke.py: what it says of a backend that is left out is no news.
    steps = "smoke native ops: ok (0.2 s)\nsmoke native compile: ok (2.0 s)\n"
    got = readers.read_calls([good, Done(0, steps)])
    assert got.result == PASSED and got.data["calls"] == 11
    absent = Done(1, "smoke triton ops: RuntimeError: no GPU (0.0 s)\n")
    assert readers.read_calls([good, Done(0, steps), absent]).result == PASSED
    bad = Done(1, steps.replace("ok (2", "ValueError: shape (2"))
    got = readers.read_calls([good, bad, absent])
    assert got.result == FAILED and "1 wrong (native compile: ValueError: shape" in got.detail


# ------------------------------------------------------------------ tests


def written(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_counts_of_tests_come_from_all_processes(tmp_path):
    def line(test, outcome, **more):
        return {"stage": "grid", "test": f"tests/test_x.py::{test}", "outcome": outcome, **more}

    ended = [{"stage": "grid", "ended": f"{i}/2", "status": 0} for i in range(2)]
    done = [Done(0, ""), Done(0, "")]
    passed = [line("a", "passed"), line("b", "passed"), {**line("c", "failed"), "stage": "smoke"}]
    path = written(tmp_path / "lines", *passed, *ended)
    got = readers.read_tests(done, path, "grid")
    assert (got.result, got.detail) == (PASSED, "2 passed, 0 skipped")
    skips = [line("d", "skipped", why="no GPU")] * 2 + [line("e", "skipped", why="small")]
    got = readers.read_tests(done, written(path, *passed, *skips, *ended), "grid")
    assert (got.result, got.detail) == (PASSED, "2 passed, 3 skipped; most often: no GPU (2)")
    got = readers.read_tests(done, written(path, *skips, *ended), "grid")
    assert got.result == SKIPPED
    failed = [line("f[1]", "failed", why="E assert 0")]
    got = readers.read_tests(done, written(path, *passed, *failed, *ended), "grid")
    assert got.result == FAILED and "1 failed (test_x.py::f[1]), 2 passed" in got.detail
    assert got.data["failed"] == ["test_x.py::f[1]"]
    # A process that was stopped, and a line that was cut: what was done counts.
    written(path, *passed, ended[0])
    path.write_text(path.read_text() + '{"stage": "grid", "test": "te')
    got = readers.read_tests(done, path, "grid")
    assert got.result == FAILED
    assert got.detail == "1 of 2 processes did not come to their end, 2 passed, 0 skipped"
    assert readers.read_tests(done, tmp_path / "none", "grid").result == FAILED
    got = readers.read_tests([Done(5, ""), Done(0, "")], written(path, *passed, *ended), "grid")
    assert got.result == PASSED  # a share without a test
    assert readers.read_tests([Done(1, ""), Done(0, "")], path, "grid").result == FAILED


# ------------------------------------------------------------------ hardware counters

CASES = [{"case": "mix_ flip", "bytes": 1000}, {"case": "loss", "bytes": 0}]
COLUMNS = ("ID", "Kernel Name", "dram__bytes_read.sum", "dram__bytes_write.sum")
COLUMNS += ("gpu__time_duration.sum", readers.OCCUPANCY)
COLUMNS += tuple(
    f"smsp__average_warps_issue_stalled_{why}_per_issue_active.ratio"
    for why in ("barrier", "long_scoreboard", "wait", "membar", "drain", "branch_resolving")
)
MARK = ("0", "at::cuda::(anonymous namespace)::spin_kernel(long)", *["0"] * (len(COLUMNS) - 2))
FLIP = ("1", "fused_mixup::pair_kernel(x)", "505", "1,505", "150000", "71.5")
FLIP += ("0", "9.5", "2", "1", "0.5", "3")


def table(*rows):
    head = "==PROF== Connected\n"
    units = ("", "", "byte", "byte", "ns", "%", *["inst"] * 6)
    lines = [COLUMNS, units, *rows]
    return head + "\n".join(",".join(f'"{word}"' for word in row) for row in lines) + "\n"


def test_counters_belong_to_the_case_whose_mark_they_follow(tmp_path):
    csv, path = tmp_path / "ncu.csv", tmp_path / "counters.json"
    csv.write_text(table(MARK, FLIP, MARK, FLIP, FLIP))
    printed = "".join(f"CASE {json.dumps(case)}\n" for case in CASES)
    got = readers.read_counters([Done(0, printed)], csv, path)
    assert got.result == PASSED
    assert got.detail == "2 of 2 cases; mix_ flip: 2.01 of the counted bytes"
    flip, loss = json.loads(path.read_text())
    assert [len(case["kernels"]) for case in (flip, loss)] == [1, 2]
    (kernel,) = flip["kernels"]
    assert (kernel["dram_read"], kernel["dram_written"]) == (505, 1505)
    assert kernel["occupancy_percent"] == 71.5 and kernel["nanoseconds"] == 150000
    assert list(kernel["stalls"]) == ["long_scoreboard", "branch_resolving", "wait", "membar"]
    csv.write_text(table(MARK, FLIP, MARK))  # stopped before the second case's kernel
    got = readers.read_counters([Done(None, printed)], csv, path)
    assert got.result == FAILED and len(json.loads(path.read_text())) == 2
    csv.unlink()
    assert readers.read_counters([Done(1, "")], csv, path).result == FAILED


@pytest.mark.parametrize("reason", readers.NO_COUNTERS)
def test_counters_that_cannot_be_read_are_no_failure(tmp_path, reason):
    done = [Done(1, f"==ERROR== {reason}: see https://developer.nvidia.com")]
    got = readers.read_counters(done, tmp_path / "none", tmp_path / "out")
    assert got.result == SKIPPED and reason in got.detail


# ------------------------------------------------------------------ benchmarks

REPORT = {
    "copy_gb_per_s": 4200.0,
    "settings": {"device": "cuda"},
    "failed": {},
    "not_measured": [],
    "results": [
        {
            "case": "mix_ flip",
            "goals": ["cuda flip"],
            "providers": {
                "ours": {"median_ms": 0.15, "share_of_floor": 0.96, "extra_mib": 0.0},
                "timm's lines": {"median_ms": 0.675},
                "torch.compile": {"median_ms": 0.3},
            },
        }
    ],
}


def test_figures_of_the_benchmarks(tmp_path):
    path = tmp_path / "benchmarks.json"
    assert readers.figures(path) == ""
    got = readers.read_benchmarks([Done(1, "first\nsome error\n")], path)
    assert (got.result, got.detail) == (FAILED, "exit status 1: some error")
    path.write_text(json.dumps(REPORT))
    got = readers.read_benchmarks([Done(0, "")], path)
    assert got.result == PASSED
    assert got.detail == "1 cases, copy 4200 GB/s, mix_ flip: 96% of the floor"
    text = readers.figures(path)
    assert text.startswith(
        "mix_ flip: 150.0 µs, floor 0.96, timm's lines 4.5×, torch.compile 2.0× (missed: ≥ 95% of"
    )
    assert "≥ 4.2× timm's lines" in text
    path.write_text(json.dumps({**REPORT, "not_measured": ["loss"]}))
    got = readers.read_benchmarks([Done(3, "")], path)
    assert got.result == FAILED and "not measured: loss" in got.detail
    # Until the limit: what no time was left for is no failure, what failed is one.
    got = readers.read_benchmarks([Done(3, "")], path, until_the_limit=True)
    assert got.result == PASSED and "no time for 1 more" in got.detail
    assert got.data["not_measured"] == ["loss"]
    assert readers.read_benchmarks([Done(None, "")], path, until_the_limit=True).result == PASSED
    assert readers.read_benchmarks([Done(None, "")], path).result == FAILED
    got = readers.read_benchmarks([Done(None, "")], tmp_path / "none", until_the_limit=True)
    assert (got.result, got.detail) == (SKIPPED, "no time for one case")
    path.write_text(json.dumps({**REPORT, "failed": {"mix_": "differs"}}))
    for until in (False, True):
        got = readers.read_benchmarks([Done(1, "")], path, until)
        assert got.result == FAILED and "failed: mix_" in got.detail
    path.write_text(path.read_text()[:50])
    assert readers.figures(path) == ""
