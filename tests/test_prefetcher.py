"""Prefetcher: its batches against BatchMix and mix_normalize one after another, and its manners."""

from __future__ import annotations

import copy
import dataclasses
from collections import namedtuple
from functools import partial

import pytest
import torch
from prefetcher_cases import CONSTANTS, MEAN, MIX, STD, K, images, mixed_by_hand, pairs

import fused_mixup as fm
from fused_mixup import BatchMix, Erasing, MixedTarget, Prefetcher

# ------------------------------------------------------------------ values


@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batches_are_those_of_the_parts(order, dtype, layout):
    by_hand = BatchMix(**MIX)
    kw = {"dtype": dtype, "memory_format": layout}
    batches = Prefetcher(pairs(), "cpu", mix=BatchMix(**MIX), order=order, **kw)
    seen = 0
    for (x, target), (given, labels) in zip(batches, pairs(), strict=True):
        y, expected = mixed_by_hand(by_hand, given, labels, order, **kw)
        assert x.dtype == dtype and torch.equal(x, y) and target == expected
        assert x.is_contiguous(memory_format=layout)
        seen += 1
    assert seen == len(batches) == 3


def test_without_a_mix_images_are_normalised_and_the_rest_stays():
    given = pairs()
    for (x, labels), (raw, same) in zip(Prefetcher(given, "cpu"), given, strict=True):
        assert labels is same
        assert torch.equal(x, fm.mix_normalize(raw, **CONSTANTS))


def test_floats_are_of_the_scale_of_the_mean():
    given = [(x.float() / 255, y) for x, y in pairs()]
    kept = copy.deepcopy(given)
    for (x, _), (raw, _) in zip(Prefetcher(given, "cpu", mix=BatchMix(**MIX)), kept, strict=True):
        assert x.shape == raw.shape
    got = [x for x, _ in Prefetcher(given, "cpu", dtype=torch.float32)]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    for x, (raw, _) in zip(got, kept, strict=True):
        assert torch.equal(x, (raw - mean) / std)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(given, kept, strict=True))


def test_images_alone():
    mix, by_hand = BatchMix(**MIX), BatchMix(**MIX)
    for x, raw in zip(Prefetcher([images()], "cpu", mix=mix), [images()], strict=True):
        assert torch.equal(x, mixed_by_hand(by_hand, raw, torch.arange(4))[0])
    (x,) = Prefetcher([images()], "cpu")
    assert torch.equal(x, fm.mix_normalize(images(), **CONSTANTS))


Batch = namedtuple("Batch", ["image", "label"])


@dataclasses.dataclass
class Record:
    images: torch.Tensor
    labels: torch.Tensor


STRUCTURES = {
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "dict": lambda x, y: {"pixel_values": x, "labels": y, "path": ["a"] * 4},
    "named tuple": Batch,
    "dataclass": Record,
    "nested": lambda x, y: {"view": {"image": x}, "target": {"label": y}},
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "samples": lambda x, y: (list(x), y),
    "pixels": lambda x, y: (x.permute(0, 2, 3, 1).contiguous(), y),
    "records": lambda x, y: [{"image": a, "label": b} for a, b in zip(x, y.tolist(), strict=True)],
}


def leaves(batch):
    if isinstance(batch, dict):
        batch = [v for k, v in batch.items() if k != "path"]
    if dataclasses.is_dataclass(batch):
        batch = dataclasses.astuple(batch)
    if isinstance(batch, (list, tuple)):
        return [x for value in batch for x in leaves(value)]
    return [batch]


@pytest.mark.parametrize("mixes", [True, False])
@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_structures_stay_what_they_are(make, mixes):
    x, y = images(), torch.arange(4)
    batch = make(x, y)
    by_hand = BatchMix(**MIX)
    (got,) = Prefetcher([batch], "cpu", mix=BatchMix(**MIX) if mixes else None)
    assert type(got) is type(batch)
    if mixes:
        want, target = mixed_by_hand(by_hand, x, y)
    else:
        want, target = fm.mix_normalize(x, **CONSTANTS), y
    found = leaves(got)
    pictures = [v for v in found if isinstance(v, torch.Tensor) and v.dtype == torch.bfloat16]
    pictures = pictures[0] if pictures[0].ndim == 4 else torch.stack(pictures)
    assert torch.equal(pictures, want)
    rest = [v for v in found if isinstance(v, MixedTarget)]
    if mixes and make is not STRUCTURES["records"]:
        assert rest == [target]
    elif mixes:
        assert torch.equal(torch.cat([t.weight for t in rest]), target.weight)
    elif isinstance(found[-1], torch.Tensor):
        assert torch.equal(found[-1], target)


def test_other_entries_follow_the_same_plan():
    x, mask = images(), torch.randint(K, (4, 10, 12))
    boxes = [torch.tensor([[0.0, 0.0, 5.0, 5.0]])] * 4
    batch = {"image": x, "mask": mask, "boxes": boxes, "class_labels": [torch.ones(1)] * 4}
    kw = {**MIX, "mixup_alpha": 0.0}
    mix, by_hand = BatchMix(**kw), BatchMix(**kw, inplace=False)
    (got,) = Prefetcher([copy.deepcopy(batch)], "cpu", mix=mix)
    want, plans = by_hand.with_plans({**batch, "image": x.clone()})
    plan = plans["image"]
    assert torch.equal(got["image"], fm.mix_normalize(x, plan, **CONSTANTS))
    assert torch.equal(got["mask"], want["mask"])
    assert all(torch.equal(a, b) for a, b in zip(got["boxes"], want["boxes"], strict=True))


def test_images_of_two_sizes_and_a_map_that_is_no_image():
    x, small = images(), images(h=5, w=6, seed=1)
    depth = torch.rand(4, 1, 10, 12)
    batch = {"image": x, "images": small, "depth": depth, "label": torch.arange(4)}
    kw = {**MIX, "kinds": {"depth": "soft_map"}}
    by_hand = BatchMix(**kw, inplace=False)
    (got,) = Prefetcher([{**batch, "depth": depth.clone()}], "cpu", mix=BatchMix(**kw))
    want, plans = by_hand.with_plans({**batch, "image": x.float(), "images": small.float()})
    for name in ("image", "images"):
        assert torch.equal(got[name], fm.mix_normalize(batch[name], plans[name], **CONSTANTS))
    assert torch.equal(got["depth"], want["depth"])


def test_a_tensor_that_is_an_image_and_another_entry_is_read_before_it_is_written():
    x = torch.rand(4, 3, 10, 12)
    kw = {**MIX, "kinds": {"aux": "soft_map"}}
    plain = BatchMix(**kw, inplace=False)
    want, plans = plain.with_plans({"aux": x.clone(), "image": x.clone(), "label": torch.arange(4)})
    batch = {"aux": x, "image": x, "label": torch.arange(4)}
    expected = fm.mix_normalize(x.clone(), plans["image"], **CONSTANTS)
    (got,) = Prefetcher([batch], "cpu", mix=BatchMix(**kw))
    assert torch.equal(got["image"], expected) and torch.equal(got["aux"], want["aux"])


@pytest.mark.parametrize("view", ["hwc", "turned", "grey", "read-only"])
def test_layouts_of_decoders_go_in_as_they_are(view):
    x = images()
    if view == "hwc":
        given = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    elif view == "turned":
        given = x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    elif view == "grey":
        given = x = x[:, :1].expand(4, 3, 10, 12)
    else:
        given = x.numpy().copy()
        given.flags.writeable = False
    by_hand = BatchMix(**MIX)
    ((got, _),) = Prefetcher([(given, torch.arange(4))], "cpu", mix=BatchMix(**MIX))
    assert torch.equal(got, mixed_by_hand(by_hand, x, torch.arange(4))[0])


# ------------------------------------------------------------------ flips and erasing


def eraser(batch_size, spatial, *, state, channels):
    """A function as random_erasing: it draws from the state and moves it on."""
    step = int(state[3])
    state[3] += 1
    assert spatial == (10, 12) and channels == 3
    return Erasing([[[step % 5, 0, 4 + step % 5, 6]]] * batch_size, 1.5)


def test_flips_and_erased_boxes_are_those_of_mix_normalize():
    loader = [(images(b=8, seed=i), torch.arange(8)) for i in range(3)]
    batches = Prefetcher(loader, "cpu", flip=0.5, erase=eraser)
    seen = set()
    for i, ((x, _), (raw, _)) in enumerate(zip(batches, loader, strict=True)):
        erase = Erasing([[[i, 0, 4 + i, 6]]] * 8, 1.5)
        plain, mirrored = (
            fm.mix_normalize(raw, **CONSTANTS, flip=torch.full((8,), flip), erase=erase)
            for flip in (False, True)
        )
        flipped = [torch.equal(a, b) for a, b in zip(x, mirrored, strict=True)]
        for row, is_flipped, same in zip(x, flipped, plain, strict=True):
            assert is_flipped or torch.equal(row, same)
        seen.add(tuple(flipped))
    assert len(seen) == 3  # drawn anew for each batch


def test_draws_depend_on_seed_rank_and_epoch(monkeypatch):
    def run(seed=0, rank="0", epochs=(0, 1)):
        monkeypatch.setenv("RANK", rank)
        batches = Prefetcher(pairs(), "cpu", flip=0.5, seed=seed, erase=eraser_of_bits)
        out = []
        for epoch in epochs:
            batches.set_epoch(epoch)
            out.append(torch.cat([x for x, _ in batches]))
        return out

    def eraser_of_bits(batch_size, spatial, *, state, channels):
        stream, step = int(state[2]), int(state[3])
        state[3] += 1
        return Erasing([[[0, 0, 2, 2]]] * batch_size, float(stream + step % 2**31 + step / 2**32))

    first = run()
    assert not torch.equal(*first)
    assert all(map(torch.equal, run(), first))
    assert torch.equal(run(epochs=(1,))[0], first[1])
    for other in (run(seed=1), run(rank="3")):
        assert not torch.equal(other[0], first[0])


def test_random_erasing_fits():
    erase = partial(fm.random_erasing, prob=1.0, mode="const", value=7.0)
    for x, _ in Prefetcher(pairs(), "cpu", erase=erase, dtype=torch.float32):
        assert bool((x == 7).flatten(1).any(1).all()) and not bool((x == 7).all())


def test_flips_are_refused_beside_what_would_not_follow():
    mask = {"image": images(), "mask": torch.zeros(4, 10, 12, dtype=torch.int64)}
    for mix in (None, BatchMix(**MIX)):
        with pytest.raises(ValueError, match="flip: expected batches of images and labels.*mask"):
            next(iter(Prefetcher([mask], "cpu", mix=mix, flip=0.5)))
