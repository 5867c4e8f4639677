"""Prefetcher: memory that must not be written, what a flip would tear apart, samplers, copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from fused_mixup import BatchMix, Erasing, Prefetcher, mix_normalize

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
IMAGES = torch.randint(0, 256, (4, 3, 20, 24), dtype=torch.uint8)
LABELS = torch.arange(4)
MAPS = torch.randint(0, 5, (4, 20, 24))
SAMPLES = [(image, i) for i, image in enumerate(IMAGES)]


@pytest.mark.parametrize("mapped", ["class_map", "soft_map"])
def test_read_only_arrays_beside_images_are_not_written(mapped):
    dtype = np.int64 if mapped == "class_map" else np.float32
    array = np.random.default_rng(0).integers(0, 5, (4, 20, 24)).astype(dtype)
    before = array.copy()
    array.setflags(write=False)
    classes = {"label": 4, "mask": 5} if mapped == "class_map" else {"label": 4}
    mix = BatchMix(classes, mixup_alpha=0, cutmix_alpha=1.0, kinds={"mask": mapped})
    batch = {"image": IMAGES, "label": LABELS, "mask": array}
    list(Prefetcher([batch] * 3, "cpu", mix=mix))
    (out,) = Prefetcher([batch], "cpu")
    out["mask"].fill_(9)
    assert (array == before).all()


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, MAPS),
        (IMAGES, LABELS, MAPS),
        {"pixel_values": IMAGES, "labels": MAPS},
        {"image": IMAGES, "label": LABELS, "label_map": MAPS},
        {"image": IMAGES, "image2": IMAGES.clone(), "label": LABELS},
        {"image": IMAGES, "boxes": torch.rand(4, 2, 4)},
        (IMAGES, [torch.rand(3, 4)] * 4),
        (IMAGES, torch.rand(4, 1, 20, 24)),
    ],
)
def test_a_flip_without_mix_refuses_what_would_not_follow(batch):
    with pytest.raises(ValueError, match="flip: expected batches of images and labels"):
        list(Prefetcher([batch], "cpu", flip=1.0))


@pytest.mark.parametrize(
    "batch", [(IMAGES, LABELS), (IMAGES, torch.rand(4, 9)), [IMAGES, [LABELS, LABELS]], IMAGES]
)
def test_a_flip_without_mix_takes_labels(batch):
    (out,) = Prefetcher([batch], "cpu", flip=1.0)
    x = out if isinstance(out, torch.Tensor) else out[0]
    assert torch.equal(x, mix_normalize(IMAGES.flip(3), **IMAGENET))


def test_set_epoch_reaches_samplers_inside_and_the_collate_function():
    sampler = DistributedSampler(SAMPLES, num_replicas=2, rank=0)
    mix = BatchMix(num_classes=4, off_after_epoch=3)
    batches = BatchSampler(sampler, 1, False)
    loader = DataLoader(SAMPLES, batch_sampler=batches, collate_fn=mix.collate)
    prefetcher = Prefetcher(loader, "cpu")
    prefetcher.set_epoch(4)
    assert sampler.epoch == 4 and mix.settings[3] == 0  # the probability
    for epoch, error in (("1", TypeError), (-3, ValueError), (2**31, ValueError)):
        with pytest.raises(error, match="epoch: expected"):
            prefetcher.set_epoch(epoch)


def test_copies_are_prefetchers_of_their_own():
    prefetcher = Prefetcher(DataLoader(SAMPLES, 1), "cpu")
    running = iter(prefetcher)
    next(running)
    pickled = pickle.loads(pickle.dumps(prefetcher))
    started = [*map(iter, (copy.copy(prefetcher), copy.deepcopy(prefetcher), pickled))]
    for batches in started:
        next(batches)
    prefetcher.close()
    assert next(running, None) is None
    assert [len(list(batches)) for batches in started] == [3, 3, 3]


def test_numbers_in_any_form():
    mean, std = map(np.array, IMAGENET.values())
    (out,) = Prefetcher([IMAGES], "cpu", torch.tensor(mean).view(1, 3, 1, 1), std.reshape(3, 1, 1))
    assert torch.equal(out, mix_normalize(IMAGES, **IMAGENET))
    flips = np.array([True, False, True, False])
    flips.setflags(write=False)
    mixed = mix_normalize(IMAGES, **IMAGENET, flip=flips)
    assert torch.equal(mixed, mix_normalize(IMAGES, **IMAGENET, flip=flips.tolist()))
    assert len(mix_normalize(IMAGES[:0], **IMAGENET, flip=[])) == 0
    for value in (np.array([1.0, 2, 3]), torch.tensor(1.0), np.float32(2)):
        assert Erasing([[0, 0, 2, 3]] * 4, value).value.ndim == 3


def test_errors_that_were_not_told():
    with pytest.raises(ValueError, match="32 bits"):
        Erasing(torch.tensor([[0, 0, 2**32 + 5, 3]] * 4))
    with pytest.raises(ValueError, match="mix: expected one of"):
        mix_normalize(IMAGES, **IMAGENET, mix=[])
    with pytest.raises(ValueError, match="order: expected one of"):
        Prefetcher([], "cpu", order=[])
    with pytest.raises(RuntimeError, match=r"under torch\.vmap"):
        torch.vmap(lambda x: mix_normalize(x, **IMAGENET))(torch.stack([IMAGES, IMAGES]))
