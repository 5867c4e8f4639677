"""Prefetcher: its batches against BatchMix and mix_normalize one after another, and its manners."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections import namedtuple
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

import fused_mixup as fm
from fused_mixup import BatchMix, Erasing, MixedTarget, Prefetcher

K = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIX = {"num_classes": K, "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "per": "sample"}
CONSTANTS = {"mean": MEAN, "std": STD}


def images(b=4, h=10, w=12, seed=0, c=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, (b, c, h, w), generator=g, dtype=torch.uint8)


def pairs(count=3, **kw):
    return [(images(seed=i, **kw), torch.arange(4) + i) for i in range(count)]


def mixed_by_hand(mix, x, labels, order="after", **kw):
    plan = mix.draw(len(x), x.shape[2:])
    y = fm.mix_normalize(x, plan, **CONSTANTS, mix=order, **kw)
    return y, MixedTarget.from_labels(labels, plan, K)


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
    random_erasing = getattr(fm, "random_erasing", None)
    if random_erasing is None:
        pytest.skip("random_erasing is not there")
    erase = partial(random_erasing, prob=1.0, mode="const", value=7.0)
    for x, _ in Prefetcher(pairs(), "cpu", erase=erase, dtype=torch.float32):
        assert bool((x == 7).flatten(1).any(1).all()) and not bool((x == 7).all())


def test_flips_are_refused_beside_what_would_not_follow():
    mask = {"image": images(), "mask": torch.zeros(4, 10, 12, dtype=torch.int64)}
    for mix in (None, BatchMix(**MIX)):
        with pytest.raises(ValueError, match="flip: expected batches of images and labels.*mask"):
            next(iter(Prefetcher([mask], "cpu", mix=mix, flip=0.5)))


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


@pytest.mark.parametrize("workers", [0, 2])
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
