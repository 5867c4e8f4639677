"""The order of a prefetcher's streams, on a double of a device: no race, whoever consumes.

tests/test_gpu_prefetcher.py runs it on a GPU.
"""

from __future__ import annotations

import gc
import random

import pytest
import torch
from fake_streams import RaceError, Stream, Streams

import fused_mixup as fm
from fused_mixup.loading import prefetcher, streams
from fused_mixup.timm import PrefetchLoader
from fused_mixup.timm import prefetch as timm_prefetch

CPU = torch.device("cpu")


@pytest.fixture
def device(monkeypatch):
    fake = Streams()
    for module in (prefetcher, timm_prefetch):
        monkeypatch.setattr(module, "streams_of", lambda device: fake)
    monkeypatch.setattr(streams, "is_there", lambda x, device: False)
    monkeypatch.setattr(streams, "pinned", lambda x: x)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda t, stream: fake.record_stream(t, stream)
    )
    return fake


def host_batches():
    """Pairs of images and labels; batch and image sizes change."""
    g = torch.Generator().manual_seed(0)
    for i in range(5):
        x = torch.randint(256, (2 + i % 3, 3, 8 + 4 * (i % 2), 8), generator=g, dtype=torch.uint8)
        yield x, torch.randint(10, (len(x),), generator=g)


HOST = list(host_batches())  # made before anything is watched: not memory of the device


class Loader:
    collate_fn = None

    def __iter__(self):
        return iter(HOST)

    def __len__(self):
        return 5


def loaders(**kw):
    mix = fm.BatchMix(num_classes=10, mixup_alpha=0.8, cutmix_alpha=1.0, per="sample")
    yield fm.Prefetcher(Loader(), CPU, mix=mix, flip=0.5, **kw)
    yield fm.Prefetcher(Loader(), CPU, **kw)
    yield PrefetchLoader(Loader(), device=CPU, re_prob=0.5, re_mode="rand")
    yield PrefetchLoader(Loader(), device=CPU, re_prob=0.5, re_mode="pixel")


def consume(x, target):
    """A step that reads the batch."""
    labels = target.labels if isinstance(target, fm.MixedTarget) else target
    return x.float().mean() + labels.float().mean()


@pytest.mark.parametrize("which", range(4))
def test_no_race_and_the_same_batches(which, device):
    def run():
        torch.manual_seed(0)
        loader = list(loaders())[which]
        return [(x.clone(), target) for _ in range(2) for x, target in loader]

    with pytest.MonkeyPatch.context() as plain:
        for module in (prefetcher, timm_prefetch):
            plain.setattr(module, "streams_of", lambda device: None)
        random.seed(0)
        expected = run()
    random.seed(0)
    loader = list(loaders())[which]
    torch.manual_seed(0)
    got = []
    with device:
        for _ in range(2):
            for x, target in loader:
                consume(x, target)
                got.append((x.clone(), target))
    assert len(got) == len(expected) == 10
    for (x, target), (y, same) in zip(got, expected, strict=True):
        assert torch.equal(x, y)
        assert target == same if isinstance(same, fm.MixedTarget) else torch.equal(target, same)
    assert len(device.made) == 1  # one stream for both epochs
    assert not [line for line in device.log if line.startswith("recorded")]


@pytest.mark.parametrize("which", range(4))
def test_the_consumer_may_change_its_stream(which, device):
    others = [Stream(device, f"consumer {i}") for i in range(3)]
    held: list = []
    batches = iter(list(loaders())[which])
    with device:
        for i in range(5):
            device.now = others[i % 3]
            x, target = next(batches)
            consume(x, target)
            held.append((x, target))
            del x, target
            if i % 2:
                held.clear()
        held.clear()
        gc.collect()
        device.look_for_dropped()
    assert any(line.startswith("recorded on consumer") for line in device.log)


def test_each_step_waits_once_in_each_direction(device):
    loader = fm.Prefetcher(Loader(), CPU)
    it = iter(loader)
    next(it)
    first = ["side 0 waits for consumer", "consumer waits for side 0", "side 0 waits for consumer"]
    assert device.log == first  # two batches have been read
    next(it)
    assert device.log == [*first, "consumer waits for side 0", "side 0 waits for consumer"]


@pytest.mark.parametrize("which", range(4))
def test_a_batch_that_nobody_takes_is_dropped_after_its_copies(which, device):
    with device:
        loader = list(loaders())[which]
        for x, target in loader:
            consume(x, target)
            break
        gc.collect()
        device.look_for_dropped()
        assert device.log[-1] == "consumer waits for side 0"
        assert len(list(loader)) == 5


@pytest.mark.parametrize("lost", ["consumer waits", "side 0 waits", "recorded"])
def test_the_detector_finds_each_lost_step(lost, device, monkeypatch):
    real_wait = Stream.wait_stream

    def wait(self, other):
        device.log.append(f"{self.name} waits")
        if not device.log[-1].startswith(lost):
            real_wait(self, other)

    monkeypatch.setattr(Stream, "wait_stream", wait)
    if lost == "recorded":
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda t, stream: None)

    def run():
        batches = iter(fm.Prefetcher(Loader(), CPU))
        for i in range(5):
            if lost == "recorded":
                device.now = [Stream(device, "a"), Stream(device, "b")][i % 2]
            x, target = next(batches)
            consume(x, target)
            del x, target
        device.look_for_dropped()

    with device, pytest.raises(RaceError):
        run()


def test_what_an_expanded_view_repeats_is_copied_once(device):
    grey = torch.randint(256, (2, 1, 4, 4), dtype=torch.uint8)
    copies = streams.Copies(CPU, device)
    started = copies.start({"image": grey.expand(2, 3, 4, 4), "name": ["a", "b"], "n": 3})
    assert [tuple(t.shape) for t in started.copies] == [(2, 1, 4, 4)]
    batch = copies.wait(started)
    assert torch.equal(batch["image"], grey.expand(2, 3, 4, 4)) and batch["name"] == ["a", "b"]
    assert batch["image"].data_ptr() != grey.data_ptr()


def test_strides_arrive_as_they_are(device):
    nhwc = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8).to(memory_format=torch.channels_last)
    turned = torch.randint(256, (3, 5, 4), dtype=torch.uint8).permute(0, 2, 1)
    copies = streams.Copies(CPU, device)
    batch = copies.wait(copies.start((nhwc, turned)))
    assert [t.stride() for t in batch] == [nhwc.stride(), turned.stride()]
