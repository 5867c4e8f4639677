"""Batches of a loader's workers: in shared memory, private, or as bytes without shared memory."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fused_mixup.loading import shared_batch as module
from fused_mixup.loading.shared_batch import shared_batch
from fused_mixup.timm import FastCollateMixup

SIZE = torch.Size((2, 3))
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _sends_as_before(monkeypatch):
    monkeypatch.setattr(module, "_earlier", None)
    reducers = ForkingPickler._extra_reducers
    before = dict(reducers)
    yield
    reducers.clear()
    reducers.update(before)


def sent(x):
    return pickle.loads(ForkingPickler.dumps(x))


def no_memory(*args, **kwargs):
    raise RuntimeError("unable to allocate shared memory(shm) for file: No space left")


def test_a_batch_lies_in_shared_memory_and_is_sent_without_a_copy():
    x = shared_batch(SIZE).fill_(5)
    assert x.is_shared() and x.is_contiguous() and x.dtype == torch.uint8 and x.shape == SIZE
    there = sent(x)
    x.fill_(6)
    assert (there == 6).all()
    assert shared_batch(torch.Size((0, 3))).shape == (0, 3)


@pytest.fixture(params=["no room", "refused"])
def scarce(request, monkeypatch):
    if request.param == "no room":
        monkeypatch.setattr(module, "_has_room", lambda size: False)
    monkeypatch.setattr(module, "shared_storage", no_memory)
    assert not shared_batch(SIZE).is_shared()
    monkeypatch.setattr(torch.Tensor, "share_memory_", no_memory)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.complex64], ids=str)
def test_what_cannot_be_shared_is_sent_as_bytes(dtype, scarce):
    x = torch.arange(24).view(2, 3, 2, 2).to(dtype)
    views = [x, x[:, 1:], x.transpose(0, 1), x[1:].contiguous(memory_format=torch.channels_last)]
    views += [x.conj(), x.conj().imag] if dtype.is_complex else []
    for t in (*views, x[0, 0, 0, 0]):
        there = sent(t)
        assert there.dtype == dtype or t is views[-1]
        assert torch.equal(there, t) and not there.is_shared() and not there.is_neg()
        there.fill_(9)
    assert x[0, 0, 0, 0] == 0 and sent(views[3]).stride() == views[3].stride()


def test_a_reducer_of_somebody_else_stays():
    def theirs(t):
        return torch.full, (t.shape, 7.0)

    ForkingPickler.register(torch.Tensor, theirs)
    shared_batch(SIZE)  # sends what is no matter of ours as they did
    assert (sent(torch.zeros(2)) == 7).all()
    ForkingPickler.register(torch.Tensor, theirs)
    shared_batch(SIZE)  # and does not push aside whoever comes later
    assert ForkingPickler._extra_reducers[torch.Tensor] is theirs


def test_other_tensors_are_sent_as_pytorch_sends_them():
    shared_batch(SIZE)
    x = torch.arange(6.0).view(SIZE)
    for other in (x[:, 1:], x.t(), x[:0], torch.ones(2, requires_grad=True)):
        there = sent(other)
        assert torch.equal(there, other) and there.stride() == other.stride()
        assert there.requires_grad == other.requires_grad


def images(count):
    return [(np.full((3, 8, 8), i, np.uint8), i % 10) for i in range(count)]


class RoomFor:
    """Collates; after some batches shared memory is exhausted."""

    def __init__(self, batches):
        self.left = batches
        self.collate = FastCollateMixup(num_classes=10, prob=0.0)

    def __call__(self, samples):
        self.left -= 1
        if self.left < 0:
            module._has_room = lambda size: False
            module.shared_storage = no_memory
            torch.Tensor.share_memory_ = no_memory
        x, target = self.collate(samples)
        return x, target, x.is_shared()


@pytest.mark.parametrize("room_for", [0, 3])
def test_a_worker_that_runs_out_of_it_goes_on(room_for):
    loader = DataLoader(images(60), 4, num_workers=1, collate_fn=RoomFor(room_for))
    shared = []
    for i, (x, target, is_shared) in enumerate(loader):
        shared.append(bool(is_shared))
        for k in range(4):
            assert (x[k] == 4 * i + k).all() and target[k].argmax() == (4 * i + k) % 10
    assert shared == [True] * room_for + [False] * (15 - room_for)


def test_batches_that_are_kept_keep_their_values():
    collate = FastCollateMixup(num_classes=10, prob=0.0)
    kept = [x for x, _ in DataLoader(images(80), 2, num_workers=2, collate_fn=collate)]
    assert all((x[k] == 2 * i + k).all() for i, x in enumerate(kept) for k in range(2))


def test_the_errors_of_default_collate_stay_in_a_worker(monkeypatch):
    monkeypatch.setattr(module, "get_worker_info", lambda: SimpleNamespace(num_workers=1))
    assert module.collate([(torch.zeros(2), 1)] * 3)[0].shape == (3, 2)
    for bad, said in (
        ([torch.zeros(2), torch.zeros(3)], "equal size"),
        ([torch.eye(2).to_sparse()] * 2, "sparse"),
    ):
        with pytest.raises(RuntimeError, match=said):
            module.collate(bad)


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
left = [name for name in os.listdir("/dev/shm") if name.startswith("torch_")]
assert not left, f"{len(left)} files stay in /dev/shm"
print("all there")
"""

# A collate function that sends what PyTorch cannot share: its loader waits for ever.
OURS = """
import os
import torch
from torch.utils.data import DataLoader
import fused_mixup as fm

data = [(torch.full((3, 64, 64), float(i)), i % 10) for i in range(32 * 6)]
plan = fm.MixPlan.uniform(32, "flip", 1.0)


def mixed_samples(samples):
    return fm.mix_samples([x for x, _ in samples], plan), torch.tensor([y for _, y in samples])


for collate in mixed_samples, fm.BatchMix(10, prob=0.0).collate:
    for i, (x, _) in enumerate(DataLoader(data, 32, num_workers=2, collate_fn=collate)):
        for k in (0, 31):
            assert (x[k] == 32 * i + k).all()
    assert i == 5
left = [name for name in os.listdir("/dev/shm") if name.startswith("torch_")]
assert not left, f"{len(left)} files stay in /dev/shm"
print("all there")
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a file system of its own for /dev/shm needs root and unshare",
)
@pytest.mark.parametrize(
    ("size", "code"),
    [("2m", SCRIPT), ("256k", SCRIPT), ("2m", OURS)],  # a loader's own locks take some 64k
    ids=["timm", "timm, 256k", "mix_samples and BatchMix"],
)
def test_a_loader_in_a_container_of_little_shared_memory(size, code, tmp_path):
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of their own")
    script = tmp_path / "loader.py"
    script.write_text(code)
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$1"', sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0 and "all there" in run.stdout, run.stdout + run.stderr
