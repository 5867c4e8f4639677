"""GlobalMix in several processes of this machine (global_work.py), against one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from global_cases import K

import fused_mixup as fm
from fused_mixup import BatchMix
from fused_mixup.codes import MAX_BATCH

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not dist.is_available(), reason="PyTorch without torch.distributed"),
]
if dist.is_available():
    from fused_mixup.distributed import GlobalMix, global_plan

TESTS = Path(__file__).parent


@pytest.fixture
def run(tmp_path):
    """A function that runs a task of global_work.py on so many ranks, and returns what they say."""

    def run_task(task, ranks, *more, lost=()):
        command = [sys.executable, "-W", "error", str(TESTS / "global_work.py"), task, str(ranks)]
        sources = f"{Path(fm.__file__).parents[1]}:{TESTS}"
        environment = {**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, str(tmp_path), *map(str, more)],
            env=environment,
            timeout=600,
            capture_output=True,
            text=True,
        )
        assert not done.stderr.strip(), done.stderr
        said = []
        for rank in range(ranks):
            if rank not in lost:
                words = json.loads((tmp_path / str(rank)).read_text())
                assert "error" not in words, words["error"]
                said.append(words["result"])
        return said

    return run_task


# ------------------------------------------------------------------ equal to one process


def test_random_plans_equal_one_process(run):
    said = run("random_plans", 4, 60)
    assert said == [said[0]] * 4 and sum(said[0].values()) == 60 and min(said[0].values()) > 5


@pytest.mark.proof
def test_500_random_plans_equal_one_process(run):
    said = run("random_plans", 4, 500)
    assert said == [said[0]] * 4 and sum(said[0].values()) == 500


def test_every_kind_of_entry_equals_one_process(run):
    assert run("kinds", 3) == [78] * 3


def test_local_mixing_resumption_evaluation_and_copies(run):
    said = run("uses", 3)
    weights = [words["local"] for words in said]
    assert all(a != b for i, a in enumerate(weights) for b in weights[:i])  # streams of their own
    for words in said:
        assert words["local bytes"] == 0 and words["plans"] == ["image"]
        assert words["pickle"][0] == "TypeError" and "process group" in words["pickle"][1]
    assert said[2]["group"][1].startswith("group: expected one that this rank belongs to")


# ------------------------------------------------------------------ bytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's counters")
def test_what_is_sent_is_what_is_needed(run):
    """As the kernel counts the bytes of all sockets: frames of gloo and labels come on top."""
    steps = [step for words in run("wire", 4) for step in words]
    for step in steps:
        plan, labels = step["plan"], 8 * step["samples"]
        frames = 1024 if not step["labels_first"] else 1024 + 3 * (144 + 8 * 8)
        assert plan["sent"] <= step["counted"] <= plan["sent"] + labels + 48 + 3 * (64 + 24 + 64)
        assert plan["sent"] <= step["kernel"] <= plan["sent"] + labels + frames
        assert plan["sent"] <= step["samples"] * step["sample"] < step["all_gather"]
    assert any(0 < step["plan"]["sent"] < step["samples"] * step["sample"] for step in steps)


def test_a_plan_says_what_will_be_sent():
    mix = BatchMix(K, mixup_alpha=0.0, cutmix_alpha=1.0, per="sample", seed=3)
    sizes, shape = (5, 0, 3, 8), (3, 32, 40)
    whole = fm.draw_plan(
        16, shape[1:], state=fm.plan_state(3), mixup_alpha=0.0, cutmix_alpha=1.0, per="sample"
    )
    rank_of = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    for rank in range(4):
        plan = global_plan(mix, sizes, rank, shape[1:])
        takers = [i for i in range(16) if rank_of[i] != rank and rank_of[15 - i] == rank]
        area = sum(int((b[2] - b[0]) * (b[3] - b[1])) for b in whole.box[takers])
        cut = [i for i in takers if (whole.box[i, 2:] > whole.box[i, :2]).all()]
        expected = len(cut), len({int(rank_of[i]) for i in cut}), 3 * area * 2
        assert plan.traffic(shape, torch.float16)[:3] == expected
        assert plan.traffic(shape).all_gather == 3 * sizes[rank] * 3 * 32 * 40 * 4
        # An entry at half the size shows the same boxes.
        half = plan.traffic((1, 16, 20), torch.uint8).sent
        assert abs(half - area / 4) <= 20 * len(cut)
    assert int(mix.state[3]) == 0


@pytest.mark.parametrize("pairing", ["flip", "roll", "shuffle", "derangement", "cross_class"])
@pytest.mark.parametrize("per", ["batch", "sample", "pair"])
def test_rows_are_those_of_the_whole_plan(pairing, per):
    if (pairing, per) == ("roll", "pair"):
        pytest.skip("pairing around a circle makes no pairs")
    labels = torch.randint(0, 3, (16,))
    options = {"per": per, "pairing": pairing, "prob": 0.8}
    mix = BatchMix(K, cutmix_alpha=1.0, seed=3, **options)
    drawn = {"state": fm.plan_state(3), "settings": mix.settings, "labels": labels}
    whole = fm.draw_plan(16, (9, 7), **drawn, per=per, pairing=pairing)
    sizes, taken = (5, 0, 3, 8), torch.zeros(16, dtype=torch.int64)
    for rank, n in enumerate(sizes):
        plan = global_plan(mix, sizes, rank, (9, 7), labels=labels)
        own = slice(plan.start, plan.start + n)
        assert plan.partner.tolist() == whole.partner[own].tolist()
        for name in ("weight", "blend", "box"):
            assert torch.equal(getattr(plan.rows, name), getattr(whole, name)[own])
        assert whole.partner[plan.taker].tolist() == list(range(16))[own]
        assert torch.equal(plan.taken.weight, whole.weight[plan.taker])
        taken[plan.taker] += 1
    assert taken.eq(1).all()


def test_blocks_of_neighbours_have_streams_of_their_own():
    mix = BatchMix(K, per="sample", pairing="shuffle", seed=3)
    weights = []
    for rank in range(5):
        plan = global_plan(mix, (4,) * 5, rank, neighbours=2)
        stream = rank // 2 if rank < 4 else rank  # the last one is alone
        block = BatchMix(K, per="sample", pairing="shuffle", seed=3, rank=stream)
        whole = block.draw(8 if rank < 4 else 4)
        start = 4 * (rank % 2) if rank < 4 else 0
        assert torch.equal(plan.rows.weight, whole.weight[start : start + 4])
        weights.append(whole.weight.tolist())
    assert weights[0] == weights[1] != weights[2] and weights[4] not in weights[:4]


# ------------------------------------------------------------------ what goes wrong


def test_settings_that_differ_are_found_and_named(run):
    for words in run("settings", 3):
        assert words.pop("none") == ["nothing", ""]
        assert len(words) == 11
        for name, (kind, message) in words.items():
            expected = f"{name}: expected the same on every rank, got another on rank 1"
            assert kind == "ValueError" and message.startswith(expected)


def test_a_batch_that_one_rank_refuses_raises_on_all_and_the_stream_goes_on(run):
    for rank, words in enumerate(run("refusals", 3)):
        for name, error in (("labels", "IndexError"), ("gradient", "ValueError")):
            kind, message = words[name]
            assert kind == (error if rank == 1 else "RuntimeError")
            assert rank == 1 or "got none of rank 1" in message
        assert "[3, 4, 4]" in words["entries"][1] and "[3, 4, 5]" in words["entries"][1]
        assert "on rank 1: images[0] image torch.float64" in words["dtype"][1]
        assert words["step"][1].startswith("step: expected the same on every rank")
        for name in ("settings", "seed"):
            assert words[name][1].startswith("seed or settings: expected the same on every rank")
        assert words["checkpoint"][0] == "RuntimeError"


def test_entries_that_differ_are_found_before_anything_is_sent(run):
    for rank, words in enumerate(run("misfits", 3)):
        for name in ("maps", "heads", "num_boxes", "keypoints"):
            kind, message = words[name]
            assert kind == "ValueError" and message.startswith("batch: expected the same entries")
        assert "[4, 5]" in words["maps"][1] and "[2, 3]" in words["keypoints"][1]
        assert words["heads"][1].endswith("on rank 1: images[0], labels[1]['a'], labels[1]['b']")
        for name, error in (("objects", "MemoryError"), ("gradient", "ValueError")):
            assert words[name][0] == (error if rank == 1 else "RuntimeError")
        if rank == 1:
            assert words["within"] == ["MemoryError", "full"]
            assert words["after"][0] == "RuntimeError" and "start anew" in words["after"][1]
        else:
            assert words["within"] == ["nothing", ""]


def test_a_rank_that_dies_makes_the_others_raise_at_once(run):
    for words in run("dies", 3, lost=(1,)):
        kind, message = words["raised"]
        assert kind == "RuntimeError" and "one has failed" in message and words["seconds"] < 5


@pytest.mark.proof
def test_a_silent_rank_makes_the_others_raise_within_the_timeout(run):
    for words in run("stays_silent", 3, lost=(1,)):
        kind, message = words["raised"]
        assert kind == "RuntimeError" and "one has failed" in message and words["seconds"] < 12


def test_arguments_that_are_refused():
    mix = BatchMix(K, cutmix_alpha=1.0)
    with pytest.raises(RuntimeError, match="GlobalMix: expected a process group, got none"):
        GlobalMix(mix)
    with pytest.raises(TypeError, match="batch_mix: expected a BatchMix, got a Linear"):
        GlobalMix(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="mix: expected a BatchMix"):
        global_plan(None, (2, 2), 0)
    for sizes, rank in (((2, 2), 2), ((2, -1), 0)):
        with pytest.raises(ValueError, match="rank: expected one of 2 sizes of 0 and more"):
            global_plan(mix, sizes, rank, (8, 8))
    with pytest.raises(ValueError, match="neighbours: expected 1 rank or more, got 0"):
        global_plan(mix, (2, 2), 0, (8, 8), neighbours=0)
    with pytest.raises(ValueError, match="images: expected sizes for the boxes of CutMix"):
        global_plan(mix, (2, 2), 0)
    with pytest.raises(TypeError, match="spatial: expected a sequence of ints"):
        global_plan(mix, (2, 2), 0, 8)
    with pytest.raises(ValueError, match="step: expected 0 or more, got -1"):
        global_plan(mix, (2, 2), 0, (8, 8), step=-1)
    classes = BatchMix(K, pairing="cross_class")
    for labels in (None, torch.zeros(3, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)):
        with pytest.raises(ValueError, match="labels: expected"):
            global_plan(classes, (2, 2), 0, labels=labels, neighbours=2)
    large = BatchMix(K, pairing="shuffle")
    with pytest.raises(ValueError, match="'flip' or 'roll' for 65,538 samples in a block"):
        global_plan(large, (MAX_BATCH, 2), 0)
    plan = global_plan(mix, (2, 2), 0, (8, 8))
    with pytest.raises(ValueError, match="shape: expected 2 dims or more, as boxes have"):
        plan.traffic((8,))
    with pytest.raises(TypeError, match="dtype: expected a torch.dtype, got"):
        plan.traffic((3, 8, 8), "float32")


def test_memory_of_a_plan_grows_with_the_samples_of_its_rank():
    """1,024 ranks of 256 samples: the tensors of a plan have one row for each of the 256."""
    mix = BatchMix(K, cutmix_alpha=1.0, per="sample", seed=3)
    plan = global_plan(mix, (256,) * 1024, 700, (224, 224))
    tensors = [v for v in vars(plan).values() if isinstance(v, torch.Tensor)]
    for of in (plan.rows, plan.taken):
        tensors += [of.weight, of.blend, of.box]
    assert len(tensors) > 8 and max(len(t) for t in tensors) == 256
    assert sum(t.untyped_storage().nbytes() for t in tensors) < 256 * 400
