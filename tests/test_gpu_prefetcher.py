"""Prefetcher and timm's PrefetchLoader on a GPU: values, streams, memory, synchronisation."""

from __future__ import annotations

import pytest
import torch
from gpu_places import GPU, run_on_gpu
from test_gpu_streams import BUSY, no_synchronisation

from fused_mixup import BatchMix, MixedTarget, Prefetcher
from fused_mixup.timm import PrefetchLoader

MIX = {"num_classes": 10, "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "per": "sample"}


def batches(count=6, pinned=True, size=64):
    """Batches of several sizes: each batch is full of one number, so that a mixed-up one shows."""
    out = []
    for i in range(count):
        x = torch.full((4 + i % 2, 3, size, size + 8 * (i % 3)), 20 * i + 5, dtype=torch.uint8)
        y = torch.full((len(x),), i)
        out.append((x.pin_memory(), y.pin_memory()) if pinned else (x, y))
    return out


def value(i):
    return (20 * i + 5 - 127.5) / 63.75


KINDS = {
    "prefetcher": lambda loader: Prefetcher(loader, "cuda", 0.5, 0.25, dtype=torch.float32),
    "mixed": lambda loader: Prefetcher(
        loader, "cuda", 0.5, 0.25, BatchMix(**MIX), dtype=torch.float32
    ),
    "timm": lambda loader: PrefetchLoader(loader, 0.5, 0.25, device=torch.device("cuda")),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@run_on_gpu()
@every_kind
@pytest.mark.parametrize("pinned", [True, False])
def test_no_batch_is_read_before_it_is_there_or_after_its_memory_is_reused(
    kernel_backend, kind, pinned
):
    """The device is slow, and the host runs far ahead of it."""
    wrong = []
    for loader in [KINDS[kind](batches(pinned=pinned))] * 3:
        for i, (x, target) in enumerate(loader):
            torch.cuda._sleep(BUSY // 4)
            labels = target.labels if isinstance(target, MixedTarget) else target
            wrong.append((x - value(i)).abs().amax() > 1e-5)
            wrong.append((labels != i).any())
            del x, target, labels
    assert not torch.stack(wrong).any().item()


@run_on_gpu()
@every_kind
def test_the_consumers_stream_may_change(kernel_backend, kind):
    wrong, streams = [], [torch.cuda.Stream() for _ in range(3)]
    loader = iter(KINDS[kind](batches(12)))
    for i in range(12):
        with torch.cuda.stream(streams[i % 3]):
            x, _ = next(loader)
            torch.cuda._sleep(BUSY // 4)
            wrong.append((x - value(i)).abs().amax() > 1e-5)
            del x
    torch.cuda.synchronize()
    assert not torch.stack(wrong).any().item()


@run_on_gpu()
@every_kind
def test_the_copies_run_beside_the_consumer(kernel_backend, kind):
    """While the consumer's stream is busy with a batch, the next one arrives."""
    loader = KINDS[kind](batches(4, size=512))
    list(loader)  # compiles and loads
    it = iter(loader)
    next(it)
    torch.cuda.synchronize()
    copies = loader._copies
    torch.cuda._sleep(20 * BUSY)
    busy = torch.cuda.Event()
    busy.record()
    # The batch after the next is copied once what was queued before this step is done; the next
    # one has been copied while this stream sleeps.
    copies._side.synchronize()
    assert not busy.query()
    assert len(list(it)) == 3


@run_on_gpu()
@every_kind
def test_a_step_does_not_synchronise(kernel_backend, kind):
    given = batches()
    loader = KINDS[kind](given)
    list(loader)
    with no_synchronisation():
        for _ in loader:
            pass


@run_on_gpu()
@every_kind
def test_memory_does_not_grow_with_the_batches(kernel_backend, kind):
    loader = KINDS[kind](batches(6, size=256))
    for _ in loader:
        torch.cuda._sleep(BUSY // 8)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    first = torch.cuda.max_memory_reserved()
    for _ in range(4):
        for _ in loader:
            torch.cuda._sleep(BUSY // 8)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_reserved() <= first * 1.25 + 2**22


@run_on_gpu()
def test_equal_to_the_cpu(kernel_backend):
    loader = [(torch.randint(256, (6, 3, 40, 48), dtype=torch.uint8), torch.arange(6))] * 3
    here, there = (
        Prefetcher(loader, device, mix=BatchMix(**MIX), dtype=torch.float32)
        for device in ("cpu", "cuda")
    )
    for (x, target), (y, other) in zip(here, there, strict=True):
        assert y.is_cuda and y.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x, y.cpu()) and target == other


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="PyTorch sees no GPU")
def test_workers_and_an_early_end():
    data = [(torch.full((3, 32, 32), 7, dtype=torch.uint8), i) for i in range(8)]
    loader = torch.utils.data.DataLoader(data, 4, num_workers=2, pin_memory=True)
    loaded = Prefetcher(loader, mix=BatchMix(**MIX))
    assert loaded.device == torch.device("cuda", torch.cuda.current_device())
    for x, target in loaded:
        assert x.is_cuda and target.labels.is_cuda and x.dtype == torch.bfloat16
        break
    assert len(list(loaded)) == 2
    loaded.close()
    assert int(loaded.mix.state[3]) == 3  # one step for each batch that was handed over
