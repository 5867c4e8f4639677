"""Prefetcher in use: its switch, epochs, loaders with workers, early ends, and what it refuses."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from prefetcher_cases import CONSTANTS, MEAN, MIX, STD, K, images, mixed_by_hand, pairs
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

import fused_mixup as fm
from fused_mixup import BatchMix, MixedTarget, Prefetcher

# ------------------------------------------------------------------ the switch, epochs, eval


def test_the_switch_and_eval_mode():
    mix = BatchMix(**MIX, label_smoothing=0.1)
    batches = Prefetcher(pairs(), "cpu", mix=mix)
    assert batches.mixup_enabled
    state = mix.state.clone()
    for off in ("switch", "eval"):
        batches.mixup_enabled = off != "switch"
        mix.train(off != "eval")
        for (x, target), (raw, labels) in zip(batches, pairs(), strict=True):
            assert torch.equal(x, fm.mix_normalize(raw, **CONSTANTS))
            assert torch.equal(target.labels, labels) and target.label_smoothing == 0
            assert bool((target.weight == torch.tensor([1.0, 0.0])).all())
    assert torch.equal(mix.state, state)  # nothing was drawn
    batches.mixup_enabled = True
    mix.train()
    assert any(
        not torch.equal(x, fm.mix_normalize(r, **CONSTANTS))
        for (x, _), (r, _) in zip(batches, pairs(), strict=True)
    )


class Collate:
    mixup_enabled = True

    def __call__(self, samples):
        return torch.utils.data.default_collate(samples)


def test_the_switch_reaches_the_collate_function():
    collate = Collate()
    batches = Prefetcher(
        DataLoader(list(zip(images(), range(4), strict=True)), 2, collate_fn=collate), "cpu"
    )
    assert batches.mixup_enabled is True
    batches.mixup_enabled = False
    assert batches.mixup_enabled is collate.mixup_enabled is False
    assert Prefetcher([], "cpu").mixup_enabled is False


class Sampler(SequentialSampler):
    epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_set_epoch_reaches_all_that_has_it():
    data = list(zip(images(), range(4), strict=True))
    mix = BatchMix(**MIX, off_after_epoch=3)
    loader = DataLoader(data, 2, sampler=Sampler(data))
    batches = Prefetcher(loader, "cpu", mix=mix)
    batches.set_epoch(2)
    assert loader.sampler.epoch == 2 and float(mix.settings[3]) == 1
    batches.set_epoch(3)
    assert float(mix.settings[3]) == 0
    of_batches = BatchSampler(Sampler(data), 2, False)
    of_batches.set_epoch = of_batches.sampler.set_epoch
    Prefetcher(DataLoader(data, batch_sampler=of_batches), "cpu").set_epoch(5)
    assert of_batches.sampler.epoch == 5
    assert batches.sampler is loader.sampler and batches.dataset is data
    assert batches.batch_sampler is loader.batch_sampler and len(batches) == 2


def test_a_checkpoint_counts_the_batches_that_were_seen():
    mix = BatchMix(**MIX)
    seen = [(x, copy.deepcopy(mix.state_dict())) for x, _ in Prefetcher(pairs(), "cpu", mix=mix)]
    again = BatchMix(**MIX)
    again.load_state_dict(seen[0][1])
    rest = [x for x, _ in Prefetcher(pairs()[1:], "cpu", mix=again)]
    assert all(torch.equal(x, y) for x, (y, _) in zip(rest, seen[1:], strict=True))


# ------------------------------------------------------------------ loaders


class Data(torch.utils.data.Dataset):
    def __init__(self, fails_at=None):
        self.fails_at = fails_at

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == self.fails_at:
            raise LookupError(f"sample {i}")
        return images(b=1, seed=i)[0], i % K


@pytest.mark.parametrize("workers", [0, 2])
def test_workers(workers):
    kept = DataLoader(Data(), 4, num_workers=workers, persistent_workers=workers > 0)
    batches = Prefetcher(kept, "cpu", mix=BatchMix(**MIX))
    by_hand = BatchMix(**MIX)
    for _ in range(2):
        count = 0
        for (x, target), (raw, labels) in zip(batches, DataLoader(Data(), 4), strict=True):
            y, expected = mixed_by_hand(by_hand, raw, labels)
            assert torch.equal(x, y) and target == expected
            count += 1
        assert count == 3


def test_targets_made_in_workers_pass_through():
    in_workers = BatchMix(**MIX)
    loader = DataLoader(Data(), 4, num_workers=2, collate_fn=in_workers.collate)
    in_workers.set_epoch(0)
    got = list(Prefetcher(loader, "cpu"))
    in_workers.set_epoch(0)
    for (x, target), (raw, same) in zip(got, loader, strict=True):
        assert isinstance(target, MixedTarget) and target == same
        assert torch.equal(x, fm.mix_normalize(raw, **CONSTANTS))


# After an exception in a worker PyTorch's loader waits five seconds for each worker to end.
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.proof)])
def test_exceptions_of_the_loader_pass_through(workers):
    loader = DataLoader(Data(fails_at=9), 4, num_workers=workers)
    batches = iter(Prefetcher(loader, "cpu"))
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(LookupError, match="sample 9"):
        next(batches)


class Closing:
    """A loader whose iterator tells whether it was let go."""

    def __init__(self):
        self.open = 0

    def __iter__(self):
        self.open += 1
        try:
            yield from pairs(5)
        finally:
            self.open -= 1


def test_an_iteration_that_ends_early_leaves_nothing_behind():
    loader, threads = Closing(), threading.active_count()
    batches = Prefetcher(loader, "cpu")
    for _ in batches:
        break
    assert loader.open == 0
    it = iter(batches)
    next(it)
    assert loader.open == 1
    batches.close()
    assert loader.open == 0 and threading.active_count() == threads
    with pytest.raises(StopIteration):
        next(it)
    assert len(list(batches)) == 5  # a new iteration begins anew


@pytest.mark.proof  # the compiler alone takes seconds
def test_batches_of_changing_sizes_compile_once_more_at_most():
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    step = torch.compile(lambda x: (x * 2).mean((2, 3)), backend=backend, dynamic=None)
    sizes = [(4, 8), (6, 12), (3, 16), (5, 20), (8, 8), (2, 24)]
    loader = [(images(b, s, s), torch.zeros(b, dtype=torch.int64)) for b, s in sizes]
    for x, _ in Prefetcher(loader, "cpu", mix=BatchMix(**MIX), dtype=torch.float32):
        assert torch.equal(step(x), (x * 2).mean((2, 3)))
    assert len(compiled) <= 2


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("batch", "error", "says"),
    [
        ("text", TypeError, "loader: expected batches of images and labels"),
        (3, TypeError, "loader: expected batches of images and labels"),
        ((), TypeError, "loader: expected batches of images and labels"),
        ({"a": 1}, ValueError, "images: expected one of the keys"),
        ((images().double(), torch.arange(4)), TypeError, "images: expected uint8"),
        ((images(c=4), torch.arange(4)), ValueError, "mean: expected one number, or 4"),
        ((torch.zeros(4, 8), torch.arange(4)), ValueError, r"images: expected \[B, C, H, W\]"),
        ({"video": torch.zeros(2, 3, 3, 8, 8)}, ValueError, "kind 'image' to normalise"),
        ((images(), torch.arange(5)), ValueError, "expected a batch of"),
        ((images(), torch.full((4,), K)), IndexError, "labels"),
    ],
)
def test_bad_batches_draw_and_write_nothing(batch, error, says):
    mix = BatchMix(**MIX)
    state, kept = mix.state.clone(), copy.deepcopy(batch)
    with pytest.raises(error, match=says):
        next(iter(Prefetcher([batch], "cpu", mix=mix)))
    assert torch.equal(mix.state, state)
    if isinstance(batch, tuple) and batch:
        assert torch.equal(batch[0], kept[0])
    if error is not IndexError and "batch of" not in says:
        with pytest.raises(error, match=says):
            next(iter(Prefetcher([batch], "cpu")))


def test_boxes_of_three_dims_are_refused_before_a_step():
    mix = BatchMix(**MIX, spatial_dims=3)
    state = mix.state.clone()
    with pytest.raises(ValueError, match="boxes of up to 2 dims"):
        next(iter(Prefetcher(pairs(), "cpu", mix=mix)))
    assert torch.equal(mix.state, state)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"loader": 3}, TypeError, "loader: expected something to iterate over"),
        ({"mix": lambda x: x}, TypeError, "mix: expected a BatchMix or None"),
        ({"mean": (0.5, 0.5)}, ValueError, "mean: expected"),
        ({"std": (0.0, 1.0, 1.0)}, ValueError, "std: expected numbers other than 0"),
        ({"dtype": torch.uint8}, TypeError, "dtype: expected float16"),
        ({"memory_format": torch.preserve_format}, ValueError, "memory_format: expected"),
        ({"order": "first"}, ValueError, "order: expected one of"),
        ({"flip": 1.5}, ValueError, "flip: expected a probability"),
        ({"erase": 0.25}, TypeError, "erase: expected a function"),
        ({"mix": BatchMix(), "images": "x"}, ValueError, "images: expected None beside mix"),
        ({"images": "img_2"}, ValueError, "images: expected 'img_2' in the batch"),
        ({"erase": lambda *_, **__: 3}, TypeError, "erase: expected it to return an Erasing"),
    ],
)
def test_bad_arguments(arguments, error, says):
    with pytest.raises(error, match=says):
        next(iter(Prefetcher(**{"loader": pairs(), "device": "cpu", **arguments})))


def test_images_are_named():
    batch = {"a": images(), "b": images(seed=1)}
    (got,) = Prefetcher([batch], "cpu", images="b")
    assert torch.equal(got["b"], fm.mix_normalize(batch["b"], **CONSTANTS))
    assert got["a"] is batch["a"]


def test_constants_may_be_tensors_and_arrays():
    kw = {"mean": torch.tensor(MEAN, dtype=torch.float64), "std": np.array(STD)}
    for (x, _), (raw, _) in zip(Prefetcher(pairs(), "cpu", **kw), pairs(), strict=True):
        assert torch.equal(x, fm.mix_normalize(raw, **CONSTANTS))
    (x,) = Prefetcher([images()], "cpu", torch.tensor(0.5), 0.25)
    assert torch.equal(x, fm.mix_normalize(images(), mean=0.5, std=0.25))
