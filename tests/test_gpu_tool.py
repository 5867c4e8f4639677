"""The command `make gpu` without a GPU: which stages it has, what it keeps, how it ends."""

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
import gpu_stages
from gpu_stages import Job


def test_folder_names_of_gpus():
    assert gpu_run.slug("NVIDIA H200") == "nvidia-h200"
    assert (
        gpu_run.slug("NVIDIA A100-SXM4-80GB (MIG 1g.10gb)") == "nvidia-a100-sxm4-80gb-mig-1g-10gb"
    )
    assert gpu_run.slug("…") == "gpu"


def test_stages_of_a_gpu(tmp_path):
    groups = gpu_stages.stages(Job(tmp_path, tmp_path), {"smoke": 7, "environment": 300})
    found = {s.name: s for group in groups for s in group}
    assert tuple(name for name in found if name in gpu_stages.NAMES) == gpu_stages.NAMES
    assert sorted(found) == sorted(gpu_stages.ALL)
    # All but what fills the time fit into it.
    sure = [g for g in groups if g[0].name in gpu_stages.NAMES and not g[0].fills]
    assert sum(max(gpu_stages.LIMITS[s.name] for s in g) for g in sure) < gpu.MINUTES * 60 - 15
    assert found["smoke"].limit == 7 and found["grid"].limit == 120
    assert [name for name, s in found.items() if s.fills] == ["benchmarks"]
    files = {s.log for s in found.values()} | {f for s in found.values() for f in s.leaves}
    assert len(files | {"summary.json", gpu_stages.TESTS}) <= 8
    named = {
        name: {Path(word).stem for word in found[name].commands[0] if word.endswith(".py")}
        for name in ("grid", "graphs")
    }
    assert {"test_mix", "test_loss", "test_triton", "test_gpu"} <= named["grid"]
    assert {*gpu_stages.GRAPHS} == named["graphs"] and not named["graphs"] & named["grid"]
    assert not any(name.startswith(gpu_stages.HOST_ONLY) for name in named["grid"])
    for name in gpu_stages.HOST_ONLY:
        assert list((ROOT / "tests").glob(f"{name}*.py")), f"{name} has another name now"
    for name in (*gpu_stages.SANITIZERS, *gpu_stages.MORE_SANITIZERS):
        assert found[name].missing or found[name].commands[0][1:3] == ["--tool", name]
    (result,) = run([[found["environment"]]], tmp_path)
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


def test_stages_are_named(capsys):
    assert gpu.main(["--only", "grid,speed"]) == 2
    assert "no stage speed; there are" in capsys.readouterr().err
    assert gpu.main(["--limit", "speed=3"]) == 2
    assert "no stage speed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu.main(["--limit", "grid=long"])
    assert "expected STAGE=SECONDS,…" in capsys.readouterr().err
    assert gpu.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in listed.splitlines()] == list(gpu_stages.ALL)
    assert gpu.names_of("bench,smoke") == (["headlines", "benchmarks", "smoke"], [])
    assert gpu.names_of("sanitizers")[0] == ["memcheck", "racecheck", "initcheck", "synccheck"]


def test_a_second_run_keeps_what_the_first_has_left(tmp_path):
    groups = gpu_stages.stages(Job(tmp_path, tmp_path), {})
    lines = [{"stage": "smoke", "test": "a"}, {"stage": "grid", "test": "b"}]
    (tmp_path / gpu_stages.TESTS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / gpu_stages.LOG).write_text("first")
    for leaf in gpu_stages.LEAVES.values():
        (tmp_path / leaf).write_text("{}")
    stages = [{"stage": "smoke", "result": "passed"}, {"stage": "grid", "result": "FAILED"}]
    (tmp_path / "summary.json").write_text(json.dumps({"stages": stages}))
    again = [[s for s in group if s.name in ("grid", "headlines")] for group in groups]
    assert gpu.clear(tmp_path, again, second=True) == {"earlier": stages[:1]}
    assert json.loads((tmp_path / gpu_stages.TESTS).read_text()) == lines[0]
    left = {p.name for p in tmp_path.iterdir()}
    assert "headlines.json" not in left and {"benchmarks.json", gpu_stages.LOG} <= left
    assert gpu.clear(tmp_path, groups, second=False) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_of_other_sources_is_noticed(tmp_path):
    for source, inside in (("fused_mixup", ""), ("triton_kernels", "triton_kernels")):
        for path in (ROOT / source).rglob("*.py"):
            copy = tmp_path / inside / path.relative_to(ROOT / source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "_build_info.py").write_text("# made there")
    assert gpu.other_sources(tmp_path) == []
    (tmp_path / "added.py").touch()
    (tmp_path / "plan.py").write_text("# older")
    (tmp_path / "triton_kernels" / "mix.py").unlink()
    assert gpu.other_sources(tmp_path) == ["added.py", "plan.py", "triton_kernels/mix.py"]


def test_a_copy_holds_nothing_that_shadows_the_package(tmp_path):
    root = gpu.without_sources(tmp_path / "copy")
    assert not (root / "fused_mixup").exists() and not (root / "triton_kernels").exists()
    assert (root / "tests" / "gpu_small.py").exists()
    assert not (root / "benchmarks" / "results").exists()
    job = Job(tmp_path, tmp_path, root)
    for group in gpu_stages.stages(job, {}):
        for s in group:
            words = [word for command in s.commands for word in command]
            assert s.cwd == root and not any(str(ROOT / "tests") in word for word in words)
            assert s.env["PYTHONPATH"].startswith(str(root))


def test_the_whole_command(tmp_path, monkeypatch, capsys):
    """With a GPU that is pretended and stages that need none."""
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr(gpu_stages, "find_gpu", lambda: ({"name": "NVIDIA Test"}, ""))
    code = {"grid": "", "memcheck": "import sys; sys.exit(9)"}
    groups = [[stage(name, text)] for name, text in code.items()]
    monkeypatch.setattr(gpu_stages, "stages", lambda *_: groups)
    assert gpu.main([]) == 1
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].startswith("grid") and "passed" in last[0]
    assert last[1].startswith("memcheck") and "FAILED" in last[1]
    assert summary(tmp_path / "out")["gpu"] == {"name": "NVIDIA Test"}
    assert gpu.main(["--only", "grid"]) == 0
    # A set-up that took a minute counts, and one that took all the time leaves none.
    deadlines = []

    def run_all(*args):
        deadlines.append(args[-1] - time.monotonic())
        return gpu_run.run_all(*args)

    monkeypatch.setattr(gpu, "run_all", run_all)
    for since, most in ((60, gpu.MINUTES * 60 - 60), (-1e6, gpu.MINUTES * 60)):
        assert gpu.main(["--only", "grid", "--since", str(time.time() - since)]) == 0
        assert most - 60 < deadlines.pop() <= most - gpu_run.GRACE
    groups[0] = [stage("grid", "import time; time.sleep(30)")]
    assert gpu.main(["--only", "grid", "--since", str(time.time() - 1e6)]) == 1
    assert deadlines.pop() < 0
    (late,) = summary(tmp_path / "out")["stages"]
    assert late["result"] == "FAILED" and late["detail"] == "no time was left"
    groups[0] = [stage("grid")]
    monkeypatch.delenv("OUT")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert gpu.main(["--only", "grid"]) == 0
    assert summary(tmp_path / "benchmarks/results/nvidia-test")["finished"]
