"""`make gpu` without a GPU: stages that pass, fail, crash, run out of time; what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import gpu  # noqa: E402
import gpu_run  # noqa: E402
import gpu_shard  # noqa: E402
import gpu_stages  # noqa: E402
from gpu_run import Done, Stage  # noqa: E402


def python(code):
    return [sys.executable, "-c", code]


def stage(name, code="print('hello')", limit=30.0, **kw):
    return Stage(name, [python(code)], f"{kw.pop('log', name)}.log", limit, **kw)


def run(groups, out, seconds=60.0):
    return gpu_run.run_all(groups, out, {"gpu": {"name": "none"}}, time.monotonic() + seconds)


def summary(out):
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


# ------------------------------------------------------------------ running stages


def test_every_way_to_end(tmp_path):
    groups = [
        [stage("good"), stage("bad", "import sys; print('why'); sys.exit(4)")],
        [stage("absent", missing="there is no such tool")],
        [stage("crash", "import os; os.abort()"), stage("slow", "import time; time.sleep(60)", 1)],
        [Stage("no program", [["/nowhere/program"]], "nowhere.log", 5)],
        [stage("cut", read=lambda done: json.loads(""))],
        [stage("last")],
    ]
    begin = time.monotonic()
    results = {r.stage: r for r in run(groups, tmp_path)}
    assert time.monotonic() - begin < 30
    verdicts = {name: r.result for name, r in results.items()}
    assert verdicts == {
        "good": "passed", "bad": "FAILED", "absent": "skipped", "crash": "FAILED",
        "slow": "FAILED", "no program": "FAILED", "cut": "FAILED", "last": "passed",
    }  # fmt: skip
    assert "exit status 4" in results["bad"].detail
    assert results["absent"].detail == "there is no such tool"
    assert results["crash"].detail.startswith("crashed (SIGABRT)")
    assert results["slow"].detail.startswith("ran out of time after")
    assert results["cut"].detail.startswith("no result to read")
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
wait = "import time; print('begun', flush=True); time.sleep(60)"
groups = [[stage("first", "")], [stage("second", wait)], [stage("third", "")]]
run_all(groups, Path({str(tmp_path)!r}), {{}}, time.monotonic() + 60)
"""
    process = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "second …" in line:
            break
    time.sleep(1.0)  # until the stage's own process has begun
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    left = summary(tmp_path)
    assert [(s["stage"], s["result"]) for s in left["stages"]] == [
        ("first", "passed"),
        ("second", "FAILED"),
    ]
    assert left["stages"][1]["detail"].startswith("interrupted")
    assert left["not_run"] == ["third"] and not left["finished"]


def test_stages_share_the_time_that_is_left(tmp_path):
    groups = [[stage("a", limit=60), stage("b", limit=30)], [stage("c", limit=40)]]
    assert gpu_run.shares(groups, 1000) == 1
    assert gpu_run.shares(groups, 50) == pytest.approx(0.5)
    sleeping = "import time; time.sleep(60)"
    begin = time.monotonic()
    results = run([[stage("long", sleeping, 300)], [stage("next", limit=300)]], tmp_path, 8)
    assert time.monotonic() - begin < 20
    assert [r.result for r in results] == ["FAILED", "passed"]


def test_a_stopped_stage_leaves_no_process_and_keeps_its_output(tmp_path):
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(4); open({str(mark)!r}, 'w').close()"
    code = (
        f"import subprocess, sys; print('begun'); subprocess.run([sys.executable, '-c', {child!r}])"
    )
    (result,) = run([[stage("parent", code, 2)]], tmp_path)
    assert result.detail.startswith("ran out of time")
    assert "begun" in (tmp_path / "parent.log").read_text()
    time.sleep(4)
    assert not mark.exists()


def test_commands_of_a_stage_run_side_by_side(tmp_path):
    wait = python("import time; time.sleep(1.5); print('x')")
    begin = time.monotonic()
    both = Stage("both", [wait, wait], "both.log", 20, read=lambda done: (True, str(len(done))))
    (result,) = run([[both]], tmp_path)
    assert result.detail == "2" and time.monotonic() - begin < 2.9
    assert "both 2 of 2: exit status 0" in (tmp_path / "both.log").read_text()


def test_logs_are_cut_and_name_no_folder_of_this_machine(tmp_path):
    code = f"print({str(ROOT)!r} + '/tests'); print('y' * 10**6); print('the end')"
    run([[stage("loud", code)]], tmp_path)
    log = (tmp_path / "loud.log").read_text()
    assert len(log) < 1.2 * gpu_run.LOG_BYTES and "… cut …" in log and "the end" in log
    assert str(ROOT) not in log and "./tests" in log
    run([[stage("loud", "print('again')")]], tmp_path)  # a later run starts anew
    assert "the end" not in (tmp_path / "loud.log").read_text()


# ------------------------------------------------------------------ reading what they print


@pytest.mark.parametrize(
    ("tool", "text", "status", "passed", "says"),
    [
        ("memcheck", "9 calls, 0 wrong\n========= ERROR SUMMARY: 0 errors", 0, True, "in 9 calls"),
        ("memcheck", "9 calls, 0 wrong\n========= ERROR SUMMARY: 2 errors", 9, False, "2 errors"),
        ("memcheck", "9 calls, 1 wrong\n========= ERROR SUMMARY: 0 errors", 1, False, "1 wrong"),
        ("initcheck", "========= ERROR SUMMARY: 0 errors", 1, False, "0 errors; cut short"),
        ("memcheck", "Traceback", 1, False, "printed no summary (exit status 1)"),
        ("memcheck", "=== Error: Device not supported", 1, True, "skipped: compute-sanitizer"),
        ("synccheck", "left out: native: no\n0 calls, 0 wrong", 3, True, "skipped: no backend"),
        (
            "racecheck",
            "9 calls, 0 wrong\n=== RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
            0, True, "0 hazards, 0 warnings in 9 calls",
        ),
        (
            "racecheck",
            "9 calls, 0 wrong\n=== RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)",
            9, False, "1 hazards",
        ),
        ("racecheck", "9 calls, 0 wrong\n=== ERROR SUMMARY: 0 errors", 0, False, "no summary"),
        (
            "memcheck",
            "left out: triton: absent\n9 calls, 0 wrong\n=== ERROR SUMMARY: 0 errors",
            0, True, "without triton",
        ),
    ],
)  # fmt: skip
def test_what_a_sanitizer_says(tool, text, status, passed, says):
    got, detail = gpu_stages.read_sanitizer(tool, Done(status, text))
    assert got == passed and says in detail


def test_counts_of_tests_come_from_all_processes(tmp_path):
    code = """
import pytest
@pytest.mark.parametrize("where", ["cuda", "cpu-native"])
@pytest.mark.parametrize("i", range(6))
def test_it(i, where):
    if i == 4: pytest.skip("no GPU")
    assert i != 5
"""
    (tmp_path / "test_sample.py").write_text(code)
    reports = [tmp_path / f"{i}.xml" for i in range(2)]
    done = []
    for i, report in enumerate(reports):
        command = [sys.executable, *"-m pytest -q -p gpu_shard -p no:cacheprovider".split()]
        env = {**os.environ, "GPU_SHARD": f"{i}/2", "PYTHONPATH": str(ROOT / "tools")}
        ran = subprocess.run(
            [*command, f"--junitxml={report}", "test_sample.py"],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        done.append(Done(ran.returncode, ran.stdout))
    passed, detail = gpu_stages.read_tests(done, reports)
    assert not passed
    # The tests of the CPU are not among them: their names say cpu-native.
    assert "1 failed" in detail and "4 passed, 1 skipped; most often: no GPU (1)" in detail
    assert "test_it[5-cuda]" in detail
    gone = gpu_stages.read_tests([*done, Done(-11, "")], [*reports, tmp_path / "none.xml"])
    assert not gone[0] and "1 of 3 processes left no result" in gone[1]


def test_shards_are_all_tests_once():
    names = [f"tests/test_mix.py::t[{b}-{i}]" for i in range(50) for b in ("triton", "native")]
    parts = [gpu_shard.share(names, i, 7) for i in range(7)]
    assert sorted(n for part in parts for n in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    slow = [sum("triton" in n for n in part) for part in parts]
    assert max(slow) - min(slow) <= 1
    for name, mine in (
        ("tests/test_mix.py::test_uint8[cuda-native]", True),
        ("tests/test_mix.py::test_uint8[cpu-native]", False),
        ("tests/test_gpu.py::test_values[cpu-native-mix]", False),
        ("tests/test_triton.py::test_dtypes[torch.uint8-flip]", True),
        ("tests/test_plan.py::test_frozen", False),
    ):
        assert gpu_shard.touches_gpu(name) == mine, name


REPORT = {
    "copy_gb_per_s": 4200.0,
    "results": [
        {
            "case": "mix_ flip",
            "times": {"ours": {"median_ms": 0.15}},
            "ratio": {"timm's lines": 4.5},
            "share_of_floor": 0.96,
            "goals": {"floor": 0.95, "timm's lines": 4.2},
        }
    ],
}


def test_figures_of_the_benchmarks(tmp_path):
    path = tmp_path / "benchmarks.json"
    assert gpu_stages.figures(path) == ""
    ended = [Done(1, "first\nsome error\n")]
    assert gpu_stages.read_benchmarks(ended, path) == (False, "exit status 1: some error")
    path.write_text(json.dumps(REPORT))
    passed, detail = gpu_stages.read_benchmarks([Done(0, "")], path)
    assert passed and detail == "1 cases, copy 4200 GB/s, mix_ flip: 96% of the floor"
    text = gpu_stages.figures(path)
    assert text == "mix_ flip: 150.0 µs, floor 0.96 (goal 0.95), timm's lines 4.5× (goal 4.2)"
    path.write_text(json.dumps({**REPORT, "not_measured": ["loss"]}))
    passed, detail = gpu_stages.read_benchmarks([Done(3, "")], path)
    assert not passed and "not measured: loss" in detail
    path.write_text(path.read_text()[:50])
    assert gpu_stages.figures(path) == ""


# ------------------------------------------------------------------ the command


def test_folder_names_of_gpus():
    assert gpu_run.slug("NVIDIA H200") == "nvidia-h200"
    assert (
        gpu_run.slug("NVIDIA A100-SXM4-80GB (MIG 1g.10gb)") == "nvidia-a100-sxm4-80gb-mig-1g-10gb"
    )
    assert gpu_run.slug("…") == "gpu"


def test_stages_of_a_gpu(tmp_path):
    groups = gpu_stages.stages({"name": "x"}, tmp_path, tmp_path)
    found = [s for group in groups for s in group]
    assert sorted(s.name for s in found) == sorted(gpu_stages.NAMES)
    assert sum(max(s.limit for s in group) for group in groups) < gpu.MINUTES * 60
    files = {s.log for s in found} | {f for s in found for f in s.leaves} | {"summary.json"}
    assert len(files) <= 8
    (tests,) = [s for s in found if s.name == "tests"]
    named = {Path(word).stem for word in tests.commands[0] if word.endswith(".py")}
    assert {"test_mix", "test_loss", "test_triton", "test_gpu", "test_gpu_large"} <= named
    assert not any(name.startswith(gpu_stages.HOST_ONLY) for name in named)
    for name in gpu_stages.HOST_ONLY:
        assert list((ROOT / "tests").glob(f"{name}*.py")), f"{name} has another name now"
    for s in found:
        if s.name in gpu_stages.TOOLS and s.missing is None:
            assert s.commands[0][1:3] == ["--tool", s.name]
    (environment, *_), *_ = groups
    (result,) = run([[environment]], tmp_path)
    assert result.result == "passed" and "CUDA tensors: " in result.detail


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    env = {**os.environ, "OUT": str(tmp_path / "out")}
    command = [sys.executable, str(ROOT / "tools" / "gpu.py")]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2 and ran.stdout == ""
    assert "nothing was run: PyTorch" in ran.stderr
    assert "no GPU" in ran.stderr or "without CUDA" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_unknown_stages_and_the_list(capsys):
    assert gpu.main(["--only", "tests,speed"]) == 2
    assert "no stage speed" in capsys.readouterr().err
    assert gpu.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(gpu_stages.NAMES)


def test_the_whole_command(tmp_path, monkeypatch, capsys):
    """With a GPU that is pretended and stages that need none."""
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(gpu_stages, "find_gpu", lambda: ({"name": "NVIDIA Test"}, ""))
    code = {"tests": "", "memcheck": "import sys; sys.exit(9)"}
    groups = [[stage(name, text)] for name, text in code.items()]
    monkeypatch.setattr(gpu_stages, "stages", lambda *_: groups)
    assert gpu.main([]) == 1
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith("tests") and "passed" in last[0]
    assert last[1].startswith("memcheck") and "FAILED" in last[1]
    assert summary(tmp_path / "out")["gpu"] == {"name": "NVIDIA Test"}
    assert gpu.main(["--only", "tests"]) == 0
    assert gpu.main(["--only", "tests", "--since", str(time.time() - 1e6)]) in (0, 1)
    monkeypatch.delenv("OUT")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert gpu.main(["--only", "tests"]) == 0
    assert summary(tmp_path / "benchmarks/results/nvidia-test")["finished"]
