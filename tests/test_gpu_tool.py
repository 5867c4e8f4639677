"""`make gpu` without a GPU: what it reads of its stages, and the command itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gpu_stage_runs import ROOT, run, stage, summary

sys.path.insert(0, str(ROOT / "tools"))
import gpu
import gpu_run
import gpu_shard
import gpu_stages
from gpu_run import Done

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
    whole = reports[0].read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        reports[0].write_bytes(whole[:size])
        cut, detail = gpu_stages.read_tests(done, reports)
        assert not cut and "1 of 2 processes left no result" in detail


def test_shards_are_all_tests_once():
    names = [f"tests/test_mix.py::t[{b}-{i}]" for i in range(50) for b in ("triton", "native")]
    parts = [gpu_shard.share(names, i, 7) for i in range(7)]
    assert sorted(n for part in parts for n in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    slow = [sum("triton" in n for n in part) for part in parts]
    assert max(slow) - min(slow) <= 1
    large = [f"tests/test_gpu_large.py::t[cuda-{b}-{i}]" for i in range(9) for b in ("triton", "x")]
    for count in (1, 2, 12):
        parts = [gpu_shard.share([*names, *large], i, count) for i in range(count)]
        assert sorted(n for part in parts for n in part) == sorted([*names, *large])
        assert [len(part & {*large}) for part in parts] == [0] * (count - 1) + [len(large)]
    for name, mine in (
        ("tests/test_mix.py::test_uint8[cuda-native]", True),
        ("tests/test_mix.py::test_uint8[cpu-native]", False),
        ("tests/test_gpu.py::test_values[cpu-native-mix]", False),
        ("tests/test_triton.py::test_dtypes[torch.uint8-flip]", True),
        ("tests/test_plan.py::test_frozen", False),
        ("tests/test_properties.py::test_random_cases[cuda-on-host-mixing]", False),
        ("tests/test_properties.py::test_random_cases[cuda-native-mixing]", True),
    ):
        assert gpu_shard.touches_gpu(name) == mine, name


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
    assert gpu_stages.figures(path) == ""
    ended = [Done(1, "first\nsome error\n")]
    assert gpu_stages.read_benchmarks(ended, path) == (False, "exit status 1: some error")
    path.write_text(json.dumps(REPORT))
    passed, detail = gpu_stages.read_benchmarks([Done(0, "")], path)
    assert passed and detail == "1 cases, copy 4200 GB/s, mix_ flip: 96% of the floor"
    text = gpu_stages.figures(path)
    assert text.startswith(
        "mix_ flip: 150.0 µs, floor 0.96, timm's lines 4.5×, torch.compile 2.0× (missed: ≥ 95% of"
    )
    assert "≥ 4.2× timm's lines" in text
    path.write_text(json.dumps({**REPORT, "not_measured": ["loss"]}))
    passed, detail = gpu_stages.read_benchmarks([Done(3, "")], path)
    assert not passed and "not measured: loss" in detail
    path.write_text(json.dumps({**REPORT, "failed": {"mix_": "differs"}}))
    passed, detail = gpu_stages.read_benchmarks([Done(1, "")], path)
    assert not passed and "failed: mix_" in detail
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
    # A set-up that took a minute counts, and one that took all the time leaves none.
    deadlines = []

    def run_all(*args):
        deadlines.append(args[-1] - time.monotonic())
        return gpu_run.run_all(*args)

    monkeypatch.setattr(gpu, "run_all", run_all)
    for since, most in ((60, gpu.MINUTES * 60 - 60), (-1e6, gpu.MINUTES * 60)):
        assert gpu.main(["--only", "tests", "--since", str(time.time() - since)]) == 0
        assert most - 60 < deadlines.pop() <= most
    groups[0] = [stage("tests", "import time; time.sleep(30)")]
    assert gpu.main(["--only", "tests", "--since", str(time.time() - 1e6)]) == 1
    assert deadlines.pop() < 0
    (late,) = summary(tmp_path / "out")["stages"]
    assert late["result"] == "FAILED" and late["detail"].startswith("ran out of time")
    groups[0] = [stage("tests")]
    monkeypatch.delenv("OUT")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert gpu.main(["--only", "tests"]) == 0
    assert summary(tmp_path / "benchmarks/results/nvidia-test")["finished"]
