"""Shared memory of batches: used again where nobody looks at it any more, and nowhere else."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fused_mixup import batches
from fused_mixup.timm import FastCollateMixup

SIZE = torch.Size((2, 3))


@pytest.fixture(autouse=True)
def _nothing_kept():
    batches._shared.clear()
    yield
    batches._shared.clear()


class Collate:
    """Batches of ones, twos, …; beside each how often its worker has made shared memory."""

    def __init__(self, send):
        self.collate = FastCollateMixup(num_classes=1, prob=0.0)
        self.send = send
        self.made = 0
        self.kept = torch.zeros(0, dtype=torch.uint8)

    def __call__(self, batch):
        real = torch.UntypedStorage._new_shared

        def counted(*args, **kwargs):
            self.made += 1
            return real(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.UntypedStorage, "_new_shared", counted)
            x, _ = self.collate(batch)
        return self.send(self, x), self.made, len(batches._shared)


def running(send, count=120):
    data = [(np.full((3, 8, 8), 1 + i // 2, np.uint8), 0) for i in range(count)]
    return DataLoader(data, 2, num_workers=1, persistent_workers=True, collate_fn=Collate(send))


def alone(worker, x):
    return x


def with_a_view(worker, x):
    return x, x[:1]


def after_a_view(worker, x):
    return x[:1], x


def with_a_shape_of_its_own(worker, x):
    return x, x.view(2, -1)


def with_the_one_before(worker, x):
    before, worker.kept = worker.kept, x
    return x, before


def with_a_view_of_the_one_before(worker, x):
    before, worker.kept = worker.kept, x
    return x, before[:1]


def test_a_worker_uses_the_memory_of_batches_again():
    loader = running(alone)
    made = [count for _, count, _ in loader][-1]
    assert made <= batches._KEPT  # for 60 batches, some 4 of them on their way at once
    kept = list(loader)
    assert kept[-1][1] - made >= 60 - batches._KEPT
    assert max(known for *_, known in kept) == batches._KEPT
    assert all(bool((x == 1 + i).all()) for i, (x, *_) in enumerate(kept))


BESIDE = [with_a_view, after_a_view, with_a_shape_of_its_own]
BEFORE = [with_the_one_before, with_a_view_of_the_one_before]


@pytest.mark.parametrize("send", BESIDE + BEFORE)
@pytest.mark.parametrize("keep", [0, 1])
def test_what_lies_on_the_memory_of_a_batch_keeps_its_values(send, keep):
    kept = [sent[keep] for sent, *_ in running(send, 60)]
    late = send in BEFORE and keep == 1
    for i, x in enumerate(kept):
        assert bool((x == 1 + i - late).all()), (i, x.unique())


def sent(x):
    return pickle.loads(ForkingPickler.dumps(x))


def test_memory_is_free_when_receiver_and_worker_have_let_go():
    x = batches.shared_batch(SIZE).fill_(5)
    (memory,) = batches._shared
    there = sent(x)
    assert type(there) is torch.Tensor and torch.equal(there, x)
    assert np.shares_memory(x.numpy(), memory.values)
    x.fill_(6)
    assert (there == 6).all()  # no copy
    view = there[1:].flatten().numpy()
    del there
    assert not memory.is_free()
    del view
    assert not memory.is_free()
    again = copy.copy(x)
    del x
    assert not memory.is_free()
    del again
    gc.collect()
    assert memory.is_free()
    x = batches.shared_batch(torch.Size((3, 2)))
    assert np.shares_memory(x.numpy(), memory.values)


def test_a_batch_sent_again_is_a_copy():
    x = batches.shared_batch(SIZE).fill_(5)
    (memory,) = batches._shared
    first, second = sent(x), sent(x)
    del first, x
    gc.collect()
    assert memory.is_free()
    batches.shared_batch(SIZE).fill_(7)
    assert (second == 5).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.t_(),
        lambda x: x.resize_(1, 3),
        lambda x: setattr(x, "data", torch.full((2, 3), 9, dtype=torch.uint8)),
        lambda x: setattr(x, "data", x.data.view(torch.int8)),
    ],
)
def test_a_batch_that_was_changed_arrives_as_it_is(change):
    x = batches.shared_batch(SIZE)
    x.view(-1).copy_(torch.arange(6))
    change(x)
    there = sent(x)
    assert torch.equal(there, x) and there.dtype == x.dtype and there.stride() == x.stride()


def test_in_the_worker_a_batch_is_a_tensor_as_any():
    x = batches.shared_batch(SIZE).fill_(5)
    assert type(x) is torch.Tensor
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert type(other) is torch.Tensor and torch.equal(other, x)
        other.fill_(1)
        assert (x == 5).all()


def test_a_fork_keeps_the_batches_that_it_sees():
    there, (memory,) = sent(batches.shared_batch(SIZE)), batches._shared
    child = os.fork()
    if child == 0:
        del there
        gc.collect()
        os._exit(int(memory.values[-1]) + 2 * len(batches._shared))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1  # not given back in the child,
    del there
    assert memory.values[-1] == 1  # nor in the parent; and the worker looks for other memory
    assert not batches._shared
    there, (memory,) = sent(batches.shared_batch(SIZE)), batches._shared
    del there
    assert memory.is_free()
