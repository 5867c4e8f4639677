"""Memory of batches: used again where nobody looks at it any more, and nowhere else."""

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

import fused_mixup as fm
from fused_mixup import MixPlan, batches
from fused_mixup.timm import FastCollateMixup

SIZE = torch.Size((2, 3))


@pytest.fixture(autouse=True)
def _nothing_kept():
    batches._free.clear()
    batches._shared.clear()
    yield
    batches._free.clear()
    batches._shared.clear()


# ------------------------------------------------------------------ in one process


@pytest.fixture
def made(monkeypatch):
    """The sizes of the fresh memory that was asked for."""
    sizes, real = [], batches._fresh

    def fresh(size):
        sizes.append(size)
        return real(size)

    monkeypatch.setattr(batches, "_fresh", fresh)
    return sizes


def test_memory_is_used_again_when_the_last_view_is_gone(made):
    x = batches.recycled(SIZE)
    view = x[1:].flatten().numpy()
    assert x.shape == SIZE and x.dtype == torch.uint8 and not x._is_view()
    del x
    gc.collect()
    y = batches.recycled(SIZE)
    assert len(made) == 2  # the view is still there
    del view, y
    gc.collect()
    held = [batches.recycled(torch.Size((3, 2))) for _ in range(2)]
    assert len(made) == 2 and not np.shares_memory(*(x.numpy() for x in held))


def test_little_memory_waits_to_be_used_again(made):
    held = [batches.recycled(torch.Size((4,))) for _ in range(10)]
    del held
    gc.collect()
    held = [batches.recycled(torch.Size((4,))) for _ in range(10)]
    assert len(made) == 20 - batches._SPARE
    del held
    gc.collect()
    x = batches.recycled(torch.Size((5,)))  # of another size: not used, and the next to be let go
    assert len(made) == 21 - batches._SPARE and len(batches._free) == batches._SPARE
    del x
    gc.collect()
    assert sorted(map(len, batches._free)) == [4, 5]


FLIP = MixPlan.uniform(8, "flip", 0.3)


def results(x, count=3):
    """Where the results of mixing lie, each gone before the next is made."""
    return {fm.mix(x, FLIP).data_ptr() for _ in range(count)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_mixing_uses_memory_of_a_result_that_is_gone(dtype, memory_format):
    x = (torch.rand(8, 3, 250, 250) * 255).to(dtype).contiguous(memory_format=memory_format)
    want = torch.empty_like(x)
    fm.mix(x, FLIP, out=want)
    kept = fm.mix(x, FLIP)
    (address,) = results(x)
    got = fm.mix(x, FLIP)
    assert got.data_ptr() == address != kept.data_ptr() and address % 64 == 0
    for result in (kept, got):
        assert result.stride() == x.stride() and not result._is_view()
        assert result.is_contiguous(memory_format=memory_format) and result.dtype == dtype
        assert torch.equal(result, want)
    assert torch.equal(pickle.loads(pickle.dumps(got)), want)
    assert torch.equal(copy.deepcopy(got), want) and got.clone().share_memory_().is_shared()


class Marked(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "prepare",
    [
        lambda x: x[:, :, :50, :50].contiguous(),  # small
        lambda x: x.transpose(2, 3),  # in another order
        lambda x: x.clone().requires_grad_(),
        lambda x: x.as_subclass(Marked),
    ],
    ids=["small", "transposed", "requires grad", "subclass"],
)
def test_other_results_lie_in_memory_of_pytorch(prepare, made):
    x = prepare(torch.rand(8, 3, 250, 250))
    want = x * 0.3 + x.flip(0) * 0.7
    assert torch.allclose(fm.mix(x, FLIP), want) and not made and not batches._free


def test_large_results_are_not_kept(made, monkeypatch):
    monkeypatch.setattr(batches, "_MOST", 2**21)
    results(torch.rand(8, 3, 250, 250))
    assert not made and not batches._free


def test_without_numpy_memory_is_pytorchs(monkeypatch):
    monkeypatch.setattr(batches, "np", None)
    x = torch.rand(8, 3, 250, 250)
    assert torch.equal(fm.mix(x, FLIP), fm.mix(x, FLIP)) and not batches._free


def test_modes_see_no_memory_of_ours(made):
    x = torch.rand(8, 3, 250, 250)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        fm.mix(x, FLIP)
    assert not made


# ------------------------------------------------------------------ from a worker


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
