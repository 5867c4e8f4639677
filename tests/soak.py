"""Trains for hours and watches what the process holds: ``make soak``, or with --minutes 15.

Every round mixes, draws, computes losses, makes errors and reads an epoch from a loader with
workers. After a warm-up, memory, file descriptors, mappings and files in /dev/shm must stay level.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import hostile_calls  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import fused_mixup as fm  # noqa: E402
from fused_mixup.timm import FastCollateMixup  # noqa: E402

WARM_UP = 0.3  # of the time: allocators and caches fill
ROOM = {"rss": 16 << 20, "descriptors": 0, "mappings": 24, "shared": 0}
CALLS = {f"op {k}": v for k, v in hostile_calls.raw_ops().items()} | hostile_calls.public_calls()


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    rss: int
    descriptors: int
    mappings: int
    shared: int

    @staticmethod
    def now() -> Held:
        gc.collect()
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        maps = Path("/proc/self/maps").read_text().count("\n")
        ours = f"torch_{os.getpid()}_"  # other processes have files there too
        shared = sum(name.startswith(ours) for name in os.listdir("/dev/shm"))
        return Held(rss, len(os.listdir("/proc/self/fd")), maps, shared)


def grown(levels: list[Held]) -> list[str]:
    """What has grown from the first half of the levels to the second."""
    half = len(levels) // 2
    found = []
    for name, room in ROOM.items():
        first, last = (
            max(getattr(h, name) for h in part) for part in (levels[:half], levels[half:])
        )
        if last > first + room:
            found.append(f"{name}: {first} at most in the first half, {last} in the second")
    return found


def step(model: torch.nn.Module, draw: random.Random) -> None:
    """A training step on a batch of a random size."""
    x = torch.rand(draw.choice((8, 16, 31)), 3, 64, 64)
    mix = fm.BatchMix(10, cutmix_alpha=1.0, per=draw.choice(("batch", "sample")), seed=1)
    mixed, target = mix((x, torch.randint(0, 10, (len(x),))))
    loss = fm.soft_target_cross_entropy(model(mixed), target)
    loss.backward()
    model.zero_grad()


def every_call(draw: random.Random) -> None:
    """Each op and public function once, rightly and with an argument of the wrong type."""
    for make in CALLS.values():
        call = make(draw)
        with contextlib.suppress(RuntimeError):
            call.run()
        call.arguments[draw.choice(list(call.arguments))] = object()
        with contextlib.suppress(TypeError, ValueError, RuntimeError, AttributeError):
            call.run()


def epoch(workers: int, leave_after: int | None) -> None:
    """Read an epoch, or leave it in the middle."""
    data = [(np.full((3, 32, 32), i, np.uint8), i % 10) for i in range(64)]
    collate = FastCollateMixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)
    loader = DataLoader(data, 8, num_workers=workers, collate_fn=collate)
    for i, (x, target) in enumerate(fm.Prefetcher(loader, "cpu", 0.5, 0.2)):
        assert x.shape == (8, 3, 32, 32) and len(target) == 8
        if i == leave_after:
            return


def soak(minutes: float, every: float, seed: int = 0) -> list[str]:
    """Train; print what is held; return what has grown."""
    warnings.simplefilter("ignore")
    draw = random.Random(seed)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 10))
    start, rounds, levels, printed = time.monotonic(), 0, [], 0.0
    while (spent := time.monotonic() - start) < 60 * minutes:
        for _ in range(50):
            step(model, draw)
        every_call(draw)
        epoch(draw.choice((0, 2)), draw.choice((None, 2)))
        rounds += 1
        held = Held.now()
        if spent >= 60 * minutes * WARM_UP:
            levels.append(held)
        if spent - printed >= every or rounds == 1:
            printed = spent
            print(f"{spent / 60:6.1f} min, {rounds} rounds: {held}", flush=True)
    print(f"{rounds} rounds in {minutes:g} minutes: {levels[0]} to {levels[-1]}", flush=True)
    return grown(levels)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between printed lines")
    asked = parser.parse_args()
    found = soak(asked.minutes, asked.every)
    for line in found:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
