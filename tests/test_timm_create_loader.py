"""timm's create_loader with our PrefetchLoader, and timm's scheduled batches."""

# ruff: noqa: NPY002 (timm draws from NumPy's global generator)
from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from peers import timm

import fused_mixup as fm
from fused_mixup.timm import PrefetchLoader, patch_create_loader
from fused_mixup.timm import prefetch as ours_module

theirs_module = timm.data.loader
Theirs = theirs_module.PrefetchLoader
CPU = torch.device("cpu")
K = 10


class Pictures(torch.utils.data.Dataset):
    """A data set as create_loader wants it: its transform is set, images are PIL's."""

    transform = None

    def __len__(self):
        return 24

    def __getitem__(self, i):
        from PIL import Image

        pixels = np.random.default_rng(i).integers(0, 256, (20 + i % 5, 24, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        return self.transform(image) if self.transform else image, i % K


def create(**kw):
    random.seed(0)
    torch.manual_seed(0)
    np.random.seed(0)
    return timm.data.create_loader(
        Pictures(), 16, 4, is_training=True, device=CPU, num_workers=0,
        persistent_workers=False, pin_memory=False, re_prob=0.5, **kw
    )  # fmt: skip


def test_create_loader_makes_ours_while_it_is_patched():
    pytest.importorskip("PIL")
    theirs = list(create())
    with patch_create_loader() as patch:
        made = create()
        assert type(made) is PrefetchLoader and isinstance(made, Theirs)
        for (x, y), (ours_x, ours_y) in zip(theirs, made, strict=True):
            assert torch.equal(x, ours_x) and torch.equal(y, ours_y)
        again = patch_create_loader(channels_last=True)
        assert isinstance(create(), PrefetchLoader) and isinstance(create(), Theirs)
        assert next(iter(create()))[0].is_contiguous(memory_format=torch.channels_last)
        restored = pickle.loads(pickle.dumps(create()))
        assert restored.channels_last and isinstance(restored, PrefetchLoader)
        again.restore()
        again.restore()
        assert type(create()) is PrefetchLoader
    assert theirs_module.PrefetchLoader is Theirs and type(create()) is Theirs
    patch.restore()
    assert theirs_module.PrefetchLoader is Theirs and isinstance(made, Theirs)
    assert not ours_module._patches


@pytest.mark.parametrize("schedule", ["constant", "progressive"])
def test_scheduled_batches(schedule):
    """Sizes and resolutions that change from batch to batch, by timm's own sampler."""
    pytest.importorskip("PIL")
    kw = {
        "input_size_choices": [8, 12, 16],
        "batch_size_choices": [6, 4, 2],
        "batch_choice_schedule": schedule,
        "batch_schedule_epochs": 2 if schedule == "progressive" else None,
        "re_mode": "pixel",
    }
    theirs = create(**kw)
    with patch_create_loader():
        made = create(**kw)
    sizes = set()
    for epoch in range(2):
        out = []
        for batches in (theirs, made):
            batches.batch_sampler.set_epoch(epoch)
            random.seed(epoch)
            torch.manual_seed(epoch)
            np.random.seed(epoch)
            out.append(list(batches))
        for (x, y), (ours_x, ours_y) in zip(*out, strict=True):
            assert torch.equal(x, ours_x) and torch.equal(y, ours_y)
            sizes.add((len(x), x.shape[-1]))
    assert len(sizes) > 1 and sizes <= {(6, 8), (4, 12), (2, 16)}
    # The same loader under a Prefetcher that mixes: each plan is drawn for its own batch.
    mix = fm.BatchMix(num_classes=K, mixup_alpha=0.8, cutmix_alpha=1.0)
    batches = fm.Prefetcher(made.loader, "cpu", mix=mix, flip=0.5)
    batches.set_epoch(1)
    assert made.batch_sampler.epoch == 1
    seen = [(len(x), x.shape[-1], len(target)) for x, target in batches]
    assert len(seen) == len(batches) and {s[:2] for s in seen} <= sizes | {(6, 8), (4, 12), (2, 16)}
    assert all(b == t for b, _, t in seen)
