"""Tests shared among processes, whose outcomes are kept one by one (tools/gpu_shard.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from gpu_stage_runs import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import gpu_shard


def lines(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_each_outcome_is_written_at_once(tmp_path):
    """The last test ends its process: what came before it is there."""
    code = """
import os, pytest
@pytest.fixture
def broken(): raise OSError("set-up")
@pytest.mark.parametrize("where", ["cuda", "cpu-native"])
@pytest.mark.parametrize("i", range(6))
def test_it(i, where):
    if i == 2: pytest.skip("no GPU")
    assert i != 5
def test_device(broken): pass
def test_gpu_end():
    os._exit(3)
"""
    (tmp_path / "test_sample.py").write_text(code)
    results = tmp_path / "results"
    for i in range(2):
        command = [sys.executable, *"-m pytest -q -p gpu_shard -p no:cacheprovider".split()]
        env = {**os.environ, "GPU_SHARD": f"{i}/2", "PYTHONPATH": str(ROOT / "tools")}
        env |= {"GPU_RESULTS": str(results), "GPU_STAGE": "grid"}
        ran = subprocess.run(
            [*command, "test_sample.py"],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert ran.returncode in (1, 3), ran.stdout + ran.stderr
    found = lines(results)
    assert all(line["stage"] == "grid" for line in found)
    assert [line["status"] for line in found if "ended" in line] == [1]
    outcomes = {line["test"].split("::")[1]: line for line in found if "test" in line}
    # The tests of the CPU are not among them: their names say cpu-native.
    assert len(outcomes) == 7 and not any("cpu" in name for name in outcomes)
    assert outcomes["test_it[2-cuda]"]["why"] == "no GPU"
    assert outcomes["test_it[5-cuda]"]["outcome"] == "failed"
    assert "assert 5 != 5" in outcomes["test_it[5-cuda]"]["why"]
    assert "set-up" in outcomes["test_device"]["why"]
    assert outcomes["test_it[0-cuda]"]["outcome"] == "passed"


@pytest.mark.parametrize("processes", [8])
def test_lines_of_several_processes_stay_whole(tmp_path, processes):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "tools")!r})
from gpu_shard import record
for i in range(300): record(sys.argv[1], {{"i": i, "text": "é" * 200}})
"""
    path = tmp_path / "lines"
    running = [subprocess.Popen([sys.executable, "-c", code, path]) for _ in range(processes)]
    assert [process.wait(120) for process in running] == [0] * processes
    assert len(lines(path)) == 300 * processes


def test_shards_are_all_tests_once():
    names = [f"tests/test_mix.py::t[{b}-{i}]" for i in range(50) for b in ("triton", "native")]
    parts = [gpu_shard.share(names, i, 7) for i in range(7)]
    assert sorted(n for part in parts for n in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    slow = [sum("triton" in n for n in part) for part in parts]
    assert max(slow) - min(slow) <= 1
    for part in parts:  # Triton's come last
        assert [("triton" in n) for n in part] == sorted("triton" in n for n in part)
    large = [f"tests/test_gpu_large.py::t[cuda-{b}-{i}]" for i in range(9) for b in ("triton", "x")]
    for count in (1, 2, 12):
        parts = [gpu_shard.share([*names, *large], i, count) for i in range(count)]
        assert sorted(n for part in parts for n in part) == sorted([*names, *large])
        assert [len({*part} & {*large}) for part in parts] == [0] * (count - 1) + [len(large)]


@pytest.mark.parametrize(
    ("name", "mine"),
    [
        ("tests/test_mix.py::test_uint8[cuda-native]", True),
        ("tests/test_mix.py::test_uint8[cpu-native]", False),
        ("tests/test_gpu.py::test_values[cpu-native-mix]", False),
        ("tests/test_triton.py::test_dtypes[torch.uint8-flip]", True),
        ("tests/test_plan.py::test_frozen", False),
        ("tests/test_properties.py::test_random_cases[cuda-on-host-mixing]", False),
        ("tests/test_properties.py::test_random_cases[cuda-native-mixing]", True),
    ],
)
def test_what_touches_a_gpu(name, mine):
    assert gpu_shard.touches_gpu(name) == mine


def test_a_rehearsal_takes_a_few_of_the_cpu():
    names = [f"tests/test_{f}.py::t[{b}-{i}]" for f in "ab" for b in ("cpu-native", "cpu-reference")
             for i in range(100)]  # fmt: skip
    few = gpu_shard.rehearsed(names)
    assert {name.partition("::")[0] for name in few} == {"tests/test_a.py", "tests/test_b.py"}
    assert len(few) <= 2 * gpu_shard.REHEARSED and all("cpu-native" in name for name in few)
