"""Our torchvision MixUp and CutMix in programs: pickling, compile, loaders, the example."""

from __future__ import annotations

import copy
import functools
import pickle
import random

import pytest
import torch
from peers import tv_tensors, v2

import fused_mixup as fm
from fused_mixup import torchvision as ours

KINDS = ("MixUp", "CutMix")


@pytest.mark.parametrize("kind", KINDS)
def test_prints_pickles_and_copies(kind):
    options = {"alpha": 0.3, "num_classes": 4}
    theirs, own = getattr(v2, kind)(**options), getattr(ours, kind)(**options)
    assert repr(own) == repr(theirs) == f"{kind}(alpha=0.3, num_classes=4)"
    assert repr(getattr(ours, kind)(inplace=True)) == f"{kind}(alpha=1.0, inplace=True)"
    assert not own.state_dict() and isinstance(own, torch.nn.Module)
    x, y = torch.rand(4, 3, 6, 6), torch.arange(4)
    torch.manual_seed(0)
    want = theirs(x, y)
    for other in (pickle.loads(pickle.dumps(own)), copy.deepcopy(own), own.half(), own.eval()):
        torch.manual_seed(0)
        got = other(x, y)
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_step_never_recompiles(kind, wrapped, inplace):
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    mixer = getattr(ours, kind)(num_classes=4, inplace=inplace)

    def step(x, y):
        x = tv_tensors.Image(x * 2) if wrapped else x * 2
        images, target = mixer(x, y)
        return images.as_subclass(torch.Tensor).mean((1, 2, 3)) + target.sum(1)

    torch._dynamo.reset()
    compiled, counts = torch.compile(step, backend=counting), []
    for i in range(5):
        x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
        torch.manual_seed(i)
        want = step(x.clone(), y)
        torch.manual_seed(i)
        assert torch.equal(compiled(x.clone(), y), want)
        counts.append(len(graphs))
    assert counts[0] > 0 and counts[-1] == counts[0]


def seeded_batches(workers, mixer):
    data = [(torch.full((3, 6, 6), float(i)), i % 4) for i in range(20)]
    collate = functools.partial(mixed_collate, mixer)
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(
        data, 6, shuffle=True, num_workers=workers, collate_fn=collate, generator=generator
    )
    torch.manual_seed(7)
    random.seed(7)
    return list(loader)


def mixed_collate(mixer, batch):
    return mixer(*torch.utils.data.default_collate(batch))


@pytest.mark.parametrize("workers", [0, 2])
def test_random_choice_in_a_data_loader_gives_torchvisions_batches(workers):
    batches = [
        seeded_batches(workers, v2.RandomChoice([m.CutMix(num_classes=4), m.MixUp(num_classes=4)]))
        for m in (v2, ours)
    ]
    assert len(batches[0]) == 4 and len(batches[0][-1][0]) == 2  # the last batch is smaller
    for want, got in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_sparse_targets_come_through_worker_processes():
    mixer = ours.CutMix(num_classes=4, sparse_targets=True)
    here, there = seeded_batches(0, mixer), seeded_batches(1, mixer)
    assert [t.labels.shape for _, t in there] == [t.labels.shape for _, t in here]
    assert all(isinstance(t, fm.MixedTarget) for _, t in there)


def test_the_example_trains_alike_with_torchvision_and_with_ours(capsys):
    pytest.importorskip("sklearn", reason="the example needs scikit-learn; make demo installs it")
    from examples import train_torchvision

    small = ["--epochs", "2", "--size", "24"]
    own, theirs = (train_torchvision.main(small + more, 200) for more in ([], ["--peer"]))
    assert own == theirs and len(own) == 2
    assert "mixing" in capsys.readouterr().out
