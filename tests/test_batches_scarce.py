"""Batches where shared memory is scarce, as in containers: they arrive, and nothing is kept."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fused_mixup.loading import shared_batch as batches
from fused_mixup.timm import FastCollateMixup

SIZE = torch.Size((2, 3))
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _as_at_first(monkeypatch):
    for kept in (batches._shared, batches._forgotten, batches._known):
        kept.clear()
    monkeypatch.setattr(batches, "_is_scarce", False)
    yield
    batches._shared.clear()


def sent(x):
    return pickle.loads(ForkingPickler.dumps(x))


def no_room(monkeypatch):
    monkeypatch.setattr(batches, "_room", lambda: 0)


def none_to_be_had(monkeypatch):
    def refused(*args, **kwargs):
        raise RuntimeError("unable to allocate shared memory(shm) for file: No space left")

    monkeypatch.setattr(batches, "_Shared", refused)


@pytest.mark.parametrize("lack", [no_room, none_to_be_had])
def test_without_shared_memory_a_batch_is_private(lack, monkeypatch):
    before = batches.shared_batch(SIZE)
    (memory,) = batches._shared[torch.uint8]
    there = sent(before)
    lack(monkeypatch)
    x = batches.shared_batch(torch.Size((5, 7))).fill_(3)
    # What was kept is let go, and the receiver told so with whatever is sent next.
    assert not batches._shared[torch.uint8] and memory.was_let_go
    batches._known[memory.name.worker] = {memory.name.number: memory.values}
    assert not x.is_shared() and (sent(x) == 3).all()
    assert not batches._known[memory.name.worker]
    del there
    # Nor is any kept from now on, though there be room again.
    monkeypatch.undo()
    monkeypatch.setattr(batches, "_is_scarce", True)
    assert not batches.shared_batch(SIZE).is_shared() and not batches._shared[torch.uint8]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float64], ids=str)
def test_what_cannot_be_shared_is_sent_as_bytes(dtype, monkeypatch):
    no_room(monkeypatch)
    x = batches.shared_batch(SIZE, dtype).copy_(torch.arange(6).view(SIZE))
    there = sent(x)
    assert there.dtype == dtype and torch.equal(there, x) and not there.is_shared()
    there.fill_(9)
    assert x[0, 0] == 0
    # Others' tensors go as PyTorch sends them: views with their memory, and what is empty.
    for other in (x[:, 1:], x.t(), x[:0], torch.ones(2, requires_grad=True)):
        there = sent(other)
        assert torch.equal(there, other) and there.stride() == other.stride()
        assert there.requires_grad == other.requires_grad


def images(count, side=8):
    return [(np.full((3, side, side), i, np.uint8), i % 10) for i in range(count)]


class ScarceAfter:
    """Collates, beside each batch whether it was kept; no room is left after some batches."""

    def __init__(self, batches_with_room):
        self.left = batches_with_room
        self.collate = FastCollateMixup(num_classes=10, prob=0.0)

    def __call__(self, samples):
        self.left -= 1
        if self.left < 0:
            batches._room = lambda: 0
        x, target = self.collate(samples)
        return x, target, x.is_shared() or len(batches._shared[torch.uint8])


@pytest.mark.parametrize("room_for", [0, 3])
def test_a_worker_that_runs_out_of_it_goes_on(room_for):
    # Batches of another size, which need memory of their own: here, those without room.
    data = images(4 * room_for) + images(60, side=9)
    order = DataLoader(data, 4, num_workers=1, collate_fn=ScarceAfter(room_for))
    first = 0
    for i, (x, target, kept) in enumerate(order):
        for k, row in enumerate(x):
            number = 4 * i + k - (4 * room_for if i >= room_for else 0)
            assert (row == number).all() and target[k].argmax() == number % 10
        assert bool(kept) == (i < room_for)
        first += 1
    assert first == 15 + room_for
    assert not any(batches._known.values())  # the worker has told that it keeps none


SCRIPT = """
import os, sys
import numpy as np
from torch.utils.data import DataLoader
from fused_mixup.timm import FastCollateMixup

assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize <= 2**21
data = [(np.full((3, 64, 64), i % 256, np.uint8), i % 10) for i in range(32 * 12)]
collate = FastCollateMixup(num_classes=1000, prob=0.0)
for epoch in range(2):
    loader = DataLoader(data, 32, num_workers=2, collate_fn=collate, prefetch_factor=3)
    for i, (x, target) in enumerate(loader):
        for k in (0, 31):
            assert (x[k] == (32 * i + k) % 256).all() and target[k].argmax() == (32 * i + k) % 10
print("all there")
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a file system of its own for /dev/shm needs root and unshare",
)
@pytest.mark.parametrize("size", ["2m", "256k"])  # a loader's own locks take some 64k
def test_a_loader_in_a_container_of_little_shared_memory(size, tmp_path):
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of their own")
    script = tmp_path / "loader.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$1"', sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0 and "all there" in run.stdout, run.stdout + run.stderr
