"""accelerate: a MixedTarget is dispatched from the main process to all, joined and sliced."""

# ruff: noqa: NPY002 (timm draws from NumPy's global generator)
from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from frameworks import require, run_ranks
from torch.utils.data import DataLoader, IterableDataset

from fused_mixup import MixedTarget, MixPlan, soft_target_cross_entropy
from fused_mixup.target import accelerate as adapter
from fused_mixup.timm import FastCollateMixup

require("accelerate")
pytestmark = pytest.mark.proof
K = 10


@pytest.fixture(scope="module")
def operations():
    import accelerate.utils.operations

    return accelerate.utils.operations


def target(count, lam=0.3, smoothing=0.1):
    labels = torch.arange(count) % K
    return MixedTarget.from_labels(labels, MixPlan.uniform(count, "flip", lam), K, smoothing)


# ------------------------------------------------------------------ the walks


def test_batches_are_joined_announced_and_sliced(operations):
    batches = [{"x": torch.rand(4, 3), "y": target(4, lam)} for lam in (0.3, 0.9)]
    joined = operations.concatenate(batches)
    dense = torch.cat([b["y"].dense() for b in batches])
    assert torch.equal(joined["y"].dense(), dense)
    assert operations.find_batch_size([joined["y"], joined["x"]]) == 8
    announced = operations.get_data_structure(joined)
    assert isinstance(announced["y"], adapter.TargetParts)
    fresh = operations.initialize_tensors(announced)["y"]
    assert isinstance(fresh, MixedTarget) and fresh.shape == joined["y"].shape
    assert fresh.weight.dtype == torch.float32 and fresh.weight.is_contiguous()
    part = operations.slice_tensors(joined, slice(2, 6))["y"]
    assert torch.equal(part.dense(), dense[2:6]) and part.label_smoothing == 0.1
    assert operations.send_to_device(joined, "cpu")["y"] == joined["y"]


def test_extending_once_is_enough(operations):
    target(2)
    before = operations.recursively_apply
    for _ in range(3):
        target(2)
        adapter.extend_accelerate(MixedTarget)
    assert operations.recursively_apply is before


def test_what_cannot_be_joined_is_refused_with_the_remedy(operations):
    target(2)
    with pytest.raises(ValueError, match="label_smoothing"):
        operations.concatenate([(target(2),), (target(2, smoothing=0.2),)])
    with pytest.raises(TypeError, match="MixPlan.*dispatch_batches=False"):
        operations.concatenate([(MixPlan.uniform(2, "flip", 0.5),)] * 2)


@pytest.mark.parametrize("change", ["arguments", "missing", "behaviour"])
def test_an_accelerate_that_walks_otherwise_is_left_alone(change, operations, monkeypatch):
    target(2)
    module = types.ModuleType("accelerate.utils.operations")
    for name in ("recursively_apply", "concatenate", "find_batch_size"):
        setattr(module, name, getattr(operations, name).__wrapped__)
    for name in ("initialize_tensors", "get_data_structure", "slice_tensors"):
        setattr(module, name, getattr(operations, name))
    if change == "arguments":
        module.concatenate = lambda batches, axis=0: None
    elif change == "missing":
        del module.find_batch_size
    else:
        module.initialize_tensors = lambda structure: structure
    before = dict(vars(module))
    monkeypatch.setitem(sys.modules, "accelerate.utils.operations", module)
    monkeypatch.setattr(adapter, "_extended", None)
    with pytest.warns(UserWarning, match="dispatch_batches=False, or sparse_targets=False"):
        made = target(2)
    assert made.shape == (2,) and vars(module) == before
    target(2)  # the warning comes once


# ------------------------------------------------------------------ two processes


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter([(np.full((3, 4, 4), i, np.uint8), i % K) for i in range(self.count)])


RUNS = [
    (16, 0, {}),
    (16, 1, {}),
    (16, 0, {"split_batches": True}),
    (11, 0, {"split_batches": True}),  # the last batch is filled up from the first
]


def dispatched(rank):
    from accelerate import Accelerator, DataLoaderConfiguration

    results = []
    for count, workers, options in RUNS:
        configuration = DataLoaderConfiguration(dispatch_batches=True, **options)
        accelerator = Accelerator(cpu=True, dataloader_config=configuration)
        # The other rank has no collator; where workers mix, neither rank has made a target before.
        collate = FastCollateMixup(prob=0.0, num_classes=K, sparse_targets=True)
        loader = DataLoader(
            Stream(count), 4, collate_fn=None if rank else collate, num_workers=workers
        )
        batches = []
        for x, y in accelerator.prepare(loader):
            assert type(y).__name__ == "MixedTarget" and y.weight.dtype == torch.float32
            assert y.num_classes == K and abs(y.label_smoothing - 0.1) < 1e-9
            batches.append([x[:, 0, 0, 0].tolist(), y.dominant.tolist(), y.weight[:, 0].tolist()])
        results.append(batches)
        accelerator.free_memory()
    return results


def test_each_process_gets_its_rows():
    for (count, *_), *ranks in zip(RUNS, *run_ranks(dispatched), strict=True):
        seen = []
        for batches in zip(*ranks, strict=True):
            for images, labels, weights in batches:
                assert labels == [int(image) % K for image in images]
                assert weights == [1.0] * len(weights)
                seen += images
        assert set(seen) == set(range(count))


def trained(rank):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    np.random.seed(0)
    torch.manual_seed(0)
    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=K, sparse_targets=True)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, K))
    parts = accelerator.prepare(
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        DataLoader(Stream(24), 4, collate_fn=collate),
    )
    model, optimizer, loader = parts
    losses = []
    for x, y in loader:
        loss = soft_target_cross_entropy(model(x.float() / 255), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    weights = [p.sum().item() for p in model.parameters()]
    accelerator.end_training()
    return losses, weights


def test_three_steps_in_two_processes():
    (losses, weights), (other, same) = run_ranks(trained)
    assert len(losses) == len(other) == 3 and losses != other
    assert weights == same and all(np.isfinite(losses + other))
