"""The recipes of docs/switching.md for MONAI and AlbumentationsX, against the real packages."""

# ruff: noqa: NPY002 (MONAI and timm draw from the legacy generator)
from __future__ import annotations

import importlib.util
import random
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import same_bits

from fused_mixup.timm import FastCollateMixup, Mixup

PAGE = Path(__file__).resolve().parent.parent / "docs" / "switching.md"


def recipe(heading):
    """The names that the first block of Python below a heading defines."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    names = {"torch": torch, "np": np}
    exec(compile(block[1], str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def monai():
    if importlib.util.find_spec("monai") is None:
        pytest.skip("monai is not installed; pip install 'fused-mixup[upstreams]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import monai.transforms
    return monai.transforms


def sizes(r):
    if r.random() < 0.3:
        return r.randint(1, 6), r.randint(1, 3), r.randint(1, 9), r.randint(1, 9), r.randint(1, 9)
    return r.randint(1, 9), r.randint(1, 3), r.randint(1, 40), r.randint(1, 40)


def test_mixup_equals_monais(monai):
    ours, r = recipe("MONAI")["mixup"], random.Random(1)
    for seed in range(500):
        shape, alpha = sizes(r), r.choice([0.2, 1.0, 4.0])
        batch = {"image": torch.randn(shape), "label": torch.rand(shape), "other": 3}
        theirs = monai.MixUpd(keys=["image", "label"], batch_size=shape[0], alpha=alpha)
        theirs.set_random_state(seed)
        rng = np.random.RandomState(seed)
        for _ in range(2):
            want, got = theirs(batch), ours(batch, rng, alpha=alpha)
            assert got["other"] == 3
            for key in ("image", "label"):
                assert same_bits(got[key], torch.as_tensor(want[key])), (seed, shape)


def test_cutmix_equals_monais(monai):
    ours, r = recipe("MONAI")["cutmix"], random.Random(2)
    for seed in range(500):
        shape, alpha = sizes(r), r.choice([0.2, 1.0, 4.0])
        batch = {"image": torch.randn(shape), "map": torch.rand(shape)}
        theirs = monai.CutMixd(keys=["image"], batch_size=shape[0], label_keys=["map"], alpha=alpha)
        theirs.set_random_state(seed)
        rng = np.random.RandomState(seed)
        for _ in range(2):
            want, got = theirs(batch), ours(batch, rng, ("image", "map"), alpha=alpha)
            for key in batch:
                assert same_bits(got[key], torch.as_tensor(want[key])), (seed, shape)


def test_class_labels_have_the_weight_of_the_pixels_that_stay():
    cutmix, r = recipe("MONAI")["cutmix"], random.Random(3)
    for seed in range(50):
        shape = sizes(r)
        image = torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1)).expand(shape).float()
        batch = {"image": image.contiguous(), "label": torch.eye(shape[0])}
        got = cutmix(batch, np.random.RandomState(seed), label_keys=("label",))
        shares = [(got["image"] == i).float().flatten(1).mean(1) for i in range(shape[0])]
        torch.testing.assert_close(got["label"], torch.stack(shares, 1))


def test_augmented_arrays_are_collated():
    if importlib.util.find_spec("albumentations") is None:
        pytest.skip("albumentationsx is not installed; pip install albumentationsx[headless]")
    import albumentations as A

    flip = A.Compose([A.RandomCrop(32, 32), A.HorizontalFlip(p=1.0)])
    hwc = [np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8) for i in range(4)]
    arrays = [flip(image=image)["image"] for image in hwc]
    batch = [(a.transpose(2, 0, 1), i) for i, a in enumerate(arrays)]
    np.random.seed(0)
    collate = FastCollateMixup(mixup_alpha=0.8, num_classes=10)
    x, target = collate(batch)
    np.random.seed(0)
    stacked = torch.stack([torch.from_numpy(a.copy()).permute(2, 0, 1) for a in arrays])
    want, rows = Mixup(mixup_alpha=0.8, num_classes=10)(stacked, torch.arange(4))
    assert same_bits(x, want) and same_bits(target, rows)
    assert len(recipe("AlbumentationsX")["x"]) == 4
