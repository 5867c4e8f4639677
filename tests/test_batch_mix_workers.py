"""BatchMix as a data loader's collate function: streams of workers, epochs, settings."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import fused_mixup as fm
from fused_mixup import BatchMix
from fused_mixup.batch_mix import worker_streams as batch_workers
from fused_mixup.codes import STEP_WORD

K = 4
BATCHES = 6


class Collate:
    """Mix a batch; return λ of every sample, and the worker's labels."""

    def __init__(self, **options):
        self.mix = BatchMix(K, per="sample", **options)

    def __call__(self, samples):
        x, target = self.mix(default_collate(samples))
        return x, target.weight[:, 0], target.labels


class Data:
    def __len__(self):
        return 8 * BATCHES

    def __getitem__(self, i):
        return torch.full((1, 4, 4), float(i)), i % K


def loader(collate, **options):
    options = {"num_workers": 2, **options}
    return DataLoader(Data(), batch_size=8, collate_fn=collate, **options)


def weights(batches):
    return [w for _, w, _ in batches]


def distinct(batches):
    return len({tuple(w.tolist()) for w in batches})


def same(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def documented(seed, rank, worker, epoch, count):
    """λ of the batch that a worker makes after ``count`` others in an epoch."""
    state = fm.plan_state(seed, rank, worker)
    state[STEP_WORD] = (epoch << 32) + count
    return fm.draw_plan(8, state=state, per="sample").weight[:, 0]


def test_workers_and_epochs_draw_apart_however_long_workers_live():
    passing, staying = Collate(seed=3, rank=1), Collate(seed=3, rank=1)
    start = passing.mix.state.clone()
    short, long = loader(passing), loader(staying, persistent_workers=True)
    drawn = []
    for epoch in range(2):
        passing.mix.set_epoch(epoch)
        staying.mix.set_epoch(epoch)
        first = weights(short)
        assert same(first, weights(long))
        drawn += first
    assert distinct(drawn) == 2 * BATCHES
    # Batches go to the workers in turn.
    expected = [documented(3, 1, i % 2, e, i // 2) for e in range(2) for i in range(BATCHES)]
    assert same(drawn, expected)
    assert torch.equal(passing.mix.state, start)  # the state of the training process


def test_a_spawned_worker_sees_the_epoch_and_leaves_the_state():
    collate = Collate(seed=4)
    start = collate.mix.state.clone()
    options = {"multiprocessing_context": "spawn", "persistent_workers": True}
    run = loader(collate, num_workers=1, **options)
    for epoch in (7, 9):
        collate.mix.set_epoch(epoch)
        assert same(weights(run), [documented(4, 0, 0, epoch, i) for i in range(BATCHES)])
    assert torch.equal(collate.mix.state, start)


def test_an_epoch_is_drawn_again_after_resuming():
    collate = Collate(seed=5)
    run = loader(collate)
    for epoch in range(2):
        collate.mix.set_epoch(epoch)
        last = weights(run)
    again = Collate(seed=1)
    again.mix.load_state_dict(collate.mix.state_dict())
    again.mix.set_epoch(1)
    assert same(weights(loader(again)), last)


def test_without_set_epoch_nothing_is_repeated_and_pytorchs_seed_counts():
    def passes(persistent):
        torch.manual_seed(11)
        run = loader(Collate(), persistent_workers=persistent)
        return weights(run) + weights(run)

    for persistent in (False, True):
        drawn = passes(persistent)
        assert distinct(drawn) == 2 * BATCHES
        assert same(drawn, passes(persistent))


@pytest.mark.parametrize("made", [lambda c: c, copy.deepcopy], ids=["itself", "a copy"])
def test_a_schedule_reaches_workers_that_persist(made):
    collate = made(Collate(off_after_epoch=1))
    run = loader(collate, persistent_workers=True)
    for epoch, mixed in ((0, True), (1, False), (2, False)):
        collate.mix.set_epoch(epoch)
        for x, weight, _ in run:
            assert bool((weight < 1).any()) is mixed
            assert bool((x[:, 0, 0, 0] % 1 != 0).any()) is mixed


def test_no_worker_draws_as_the_training_process_does():
    collate = Collate(seed=2)
    drawn = weights(loader(collate)) + weights(loader(collate, num_workers=0))
    assert distinct(drawn) == 2 * BATCHES
    assert collate.mix.state[STEP_WORD] == BATCHES


def test_a_batch_mix_on_a_device_is_refused_in_workers(monkeypatch):
    info = torch.utils.data._utils.worker.WorkerInfo(id=0, num_workers=1, seed=1, dataset=None)
    monkeypatch.setattr(batch_workers, "get_worker_info", lambda: info)
    mix = BatchMix(K).to("meta")
    with pytest.raises(ValueError, match="expected it on the CPU in a data loader's worker"):
        mix.draw(4)


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_collate_can_be_sent_to_workers_of_every_kind(context):
    mix = BatchMix(K, per="sample", seed=6)
    mix.set_epoch(2)
    run = loader(mix.collate, num_workers=1, multiprocessing_context=context)
    drawn = [target.weight[:, 0] for _, target in run]
    assert same(drawn, [documented(6, 0, 0, 2, i) for i in range(BATCHES)])
    x, target = mix.collate([(torch.ones(1, 4, 4), 1), (torch.zeros(1, 4, 4), 2)])
    assert target.labels.tolist() == [1, 2]
    assert torch.allclose(
        x[:, 0, 0, 0],
        target.weight[:, 0] * torch.tensor([1, 0]) + target.weight[:, 1] * torch.tensor([0, 1]),
    )
