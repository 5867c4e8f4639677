"""BatchMix in several processes: each rank draws its own stream, whenever the group is made."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing
import torch.distributed as dist

import fused_mixup as fm
from fused_mixup import BatchMix

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not dist.is_available(), reason="PyTorch without torch.distributed"),
]

OPTIONS = {"per": "sample", "seed": 3}


def documented(rank, count=2):
    """λ of the first draws of a rank."""
    state = fm.plan_state(3, rank)
    return [weights(fm.draw_plan(4, state=state, per="sample")) for _ in range(count)]


def weights(plan):
    return plan.weight[:, 0].tolist()


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The reports of two processes of a group, forked from a process that runs nothing else."""
    place = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("rank_work.py"))]
    sources = str(Path(fm.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(place)], check=True, timeout=600, env=environment)
    return [json.loads((place / str(rank)).read_text()) for rank in range(2)]


def test_one_made_before_the_group_draws_as_its_rank(said):
    for rank in range(2):
        assert said[rank]["rank"] == rank and said[rank]["given"] == 7
        assert said[rank]["early"] == documented(rank)
    assert documented(0) != documented(1)


def test_one_inside_a_model_under_ddp_draws_as_its_rank(said):
    for rank in range(2):
        assert said[rank]["wrapped"] == documented(rank)
        assert said[rank]["saved"] == 0


def test_spawned_workers_draw_as_the_rank_that_sent_them(said):
    for rank in range(2):
        state = fm.plan_state(3, rank, 0)
        assert said[rank]["worker"] == weights(fm.draw_plan(4, state=state, per="sample"))


# ------------------------------------------------------------------ in one process


def test_the_rank_of_the_launcher_counts_before_there_is_a_group(monkeypatch):
    monkeypatch.setenv("RANK", "4")
    mix = BatchMix(2, **OPTIONS)
    assert mix.rank == 4 and weights(mix.draw(4)) == documented(4)[0]
    monkeypatch.setenv("RANK", "5")
    assert mix.rank == 5 and weights(mix.draw(4)) == documented(5)[1]
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 6)
    assert mix.rank == 6 and weights(mix.draw(4)) == documented(6, 3)[2]
    assert BatchMix(2, rank=1, **OPTIONS).rank == 1
    monkeypatch.undo()
    monkeypatch.setenv("RANK", "none")
    assert mix.rank == 0


def test_a_copy_that_is_no_worker_asks_its_own_process(monkeypatch):
    monkeypatch.setenv("RANK", "4")
    sent = pickle.dumps(BatchMix(2, **OPTIONS))
    monkeypatch.setenv("RANK", "1")
    mix = pickle.loads(sent)
    assert mix.rank == 1 and weights(mix.draw(4)) == documented(1)[0]


def test_a_compiled_step_compiles_once_more_for_a_group(monkeypatch):
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    mix = BatchMix(2, **OPTIONS)
    step = torch.compile(lambda: mix.draw(4).weight[:, 0], backend=counter, fullgraph=True)
    drawn = [step().tolist() for _ in range(2)]
    assert drawn == documented(0) and counter.frame_count == 1
    dist.init_process_group("fake", rank=5, world_size=8, store=FakeStore())
    try:
        drawn = [step().tolist() for _ in range(3)]
    finally:
        dist.destroy_process_group()
    assert drawn == documented(5, 5)[2:] and counter.frame_count == 2
    monkeypatch.setattr(fm.tracing, "_world", None)  # then asking breaks the graph
    torch._dynamo.reset()
    mix = BatchMix(2, **OPTIONS)
    step = torch.compile(lambda: mix.draw(4).weight[:, 0], backend="eager")
    assert [step().tolist() for _ in range(2)] == documented(0)
