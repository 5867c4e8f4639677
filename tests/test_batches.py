"""Shared memory of batches: used again where nobody looks at it any more, and nowhere else."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fused_mixup.loading import shared_batch as batches
from fused_mixup.timm import FastCollateMixup

SIZE = torch.Size((2, 3))


@pytest.fixture(autouse=True)
def _nothing_kept():
    for kept in (batches._shared, batches._forgotten, batches._known):
        kept.clear()
    yield
    batches._shared.clear()


def kept():
    return batches._shared[torch.uint8]


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
        return self.send(self, x), self.made, len(kept())


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
    held = list(loader)
    assert held[-1][1] - made >= 60 - batches._KEPT
    assert max(count for *_, count in held) == batches._KEPT
    assert all(bool((x == 1 + i).all()) for i, (x, *_) in enumerate(held))


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
    (memory,) = kept()
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
    (memory,) = kept()
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


def test_what_requires_grad_is_sent_as_ever():
    x = batches.shared_batch(SIZE, torch.float32).fill_(1).requires_grad_()
    assert sent(x).requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.bool], ids=str)
def test_tensors_of_other_dtypes(dtype):
    x = batches.shared_batch(SIZE, dtype)
    x.copy_(torch.arange(6).view(SIZE) % 2)
    there = sent(x)
    assert there.dtype == dtype and torch.equal(there, x)
    (memory,) = batches._shared[dtype]
    del x, there
    assert memory.is_free()


# ------------------------------------------------------------------ known memory


class CountedSends:
    """Batches; beside each how many of those before it were sent with their memory."""

    def __init__(self, **options):
        self.collate = FastCollateMixup(num_classes=30, **options)
        self.with_memory = None

    def __call__(self, batch):
        if self.with_memory is None:
            self.with_memory = 0
            real = batches._Shared.sent

            def counted(memory):
                message = real(memory)
                self.with_memory += message[1] is not None
                return message

            batches._Shared.sent = counted
        return *self.collate(batch), self.with_memory


def known_of(loader, **options):
    data = [(np.full((3, 8, 8), i, np.uint8), i % 30) for i in range(120)]
    return DataLoader(data, 2, num_workers=2, collate_fn=CountedSends(**options), **loader)


def most_known():
    return max(len(memories) for memories in batches._known.values())


START = [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()]


@pytest.mark.parametrize("start", START)
def test_memory_is_sent_once_and_then_by_its_name(start):
    loader = known_of({"persistent_workers": True, "multiprocessing_context": start}, prob=0.0)
    with_memory = 0
    for _ in range(3):
        for i, (x, target, count) in enumerate(loader):
            for k in range(2):
                assert (x[k] == 2 * i + k).all() and target[k].argmax() == (2 * i + k) % 30
            with_memory = max(count, with_memory)
    # A worker has sent 90 batches and as many targets.
    assert 0 < with_memory <= 2 * batches._KEPT
    assert len(batches._known) == 2
    assert most_known() <= 2 * batches._KEPT
    del x, target, loader
    gc.collect()
    assert not batches._known


def test_memory_of_workers_that_have_ended_is_forgotten():
    loader = known_of({}, prob=0.0)
    for _ in range(2):
        for i, (x, *_) in enumerate(loader):
            assert (x[0] == 2 * i).all()
        gc.collect()
        assert not batches._known
    assert (x[1] == 119).all()  # what is still held lives on


def test_memory_that_a_worker_lets_go_is_forgotten():
    loader = known_of({"persistent_workers": True}, prob=0.0)
    held = list(loader)  # more than the workers keep
    assert most_known() <= 2 * (batches._KEPT + 1)
    assert all((x[0] == 2 * i).all() for i, (x, *_) in enumerate(held))
    assert len({x.data_ptr() for x, *_ in held}) == len(held)


def test_memory_that_is_let_go_on_its_way_is_forgotten():
    # Many batches on their way: a worker lets memory go before its first message is read.
    loader = known_of({"persistent_workers": True, "prefetch_factor": 20}, prob=0.0)
    for _ in range(3):
        for x, *_ in loader:
            last = x
            time.sleep(0.002)
        assert most_known() <= 2 * (batches._KEPT + 1)
    assert (last[1] == 119).all()


def test_memory_that_is_let_go_while_it_is_sent_arrives(monkeypatch):
    x = batches.shared_batch(SIZE).fill_(5)
    (memory,) = kept()
    batches._known[memory.name.worker] = {memory.name.number: memory.values}
    memory.values[batches._KNOWN] = 1
    real = batches._Shared.sent

    def let_go_meanwhile(memory):
        batches._let_go(kept(), 0)
        return real(memory)

    monkeypatch.setattr(batches._Shared, "sent", let_go_meanwhile)
    there = sent(x)
    assert (there == 5).all() and not batches._known[memory.name.worker]


def test_known_memory_comes_to_no_other_process():
    x = batches.shared_batch(SIZE)
    (memory,) = kept()
    memory.values[batches._KNOWN] = 1  # by the process that started this one
    with pytest.raises(RuntimeError, match=r"batch: .* batch\.clone\(\)"):
        sent(x)


def test_memory_of_no_worker_has_to_be_told():
    for _ in range(3 * batches._KEPT):
        assert batches.shared_batch(SIZE) is not None  # never sent
    assert not batches._forgotten


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no /dev/shm")
def test_memory_with_names_in_the_file_system_is_given_back():
    def files():
        return {name for name in os.listdir("/dev/shm") if name.startswith("torch_")}

    before, strategy = files(), torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")
    try:
        for i, batch in enumerate(known_of({}, prob=0.0)):
            assert (batch[0][0] == 2 * i).all()
    finally:
        torch.multiprocessing.set_sharing_strategy(strategy)
    del batch
    gc.collect()
    assert not batches._known and files() <= before


def test_memory_of_this_process_is_not_kept_known():
    there = sent(batches.shared_batch(SIZE))
    (memory,) = kept()
    assert not batches._known and not memory.values[batches._KNOWN]
    del there


def test_a_fork_knows_no_memory_of_workers():
    loader = known_of({"persistent_workers": True}, prob=0.0)
    batch = next(iter(loader))
    assert batches._known
    batches._forgotten.append(0)
    child = os.fork()
    if child == 0:
        os._exit(len(batches._known) + len(batches._forgotten))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert batches._known and (batch[0][1] == 1).all()


def test_in_the_worker_a_batch_is_a_tensor_as_any():
    x = batches.shared_batch(SIZE).fill_(5)
    assert type(x) is torch.Tensor
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert type(other) is torch.Tensor and torch.equal(other, x)
        other.fill_(1)
        assert (x == 5).all()


def test_a_fork_keeps_the_batches_that_it_sees():
    there, (memory,) = sent(batches.shared_batch(SIZE)), kept()
    child = os.fork()
    if child == 0:
        del there
        gc.collect()
        os._exit(int(memory.values[-1]) + 2 * len(kept()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1  # not given back in the child,
    del there
    assert memory.values[-1] == 1  # nor in the parent; and the worker looks for other memory
    assert not kept()
    there, (memory,) = sent(batches.shared_batch(SIZE)), kept()
    del there
    assert memory.is_free()
