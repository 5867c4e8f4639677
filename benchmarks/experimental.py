"""Compares kernels behind FUSED_MIXUP_EXPERIMENTAL with the default ones, and says which is better.

    python -m benchmarks.experimental [--device cuda] [--seconds 25] [--json FILE]

First every trial and every case of the grid is mixed on both paths, and the bits are compared: one
difference fails the run. Then each trial is timed on both paths in turn, over inputs that are not
in cache, beside a copy of the same bytes. A path should become the default where its bits are right
and it needs at most EARNED of the other's time. FUSED_MIXUP_REHEARSAL=1 rehearses it on the CPU,
where both paths are one.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import fused_mixup as fm
from fused_mixup import MixPlan, backends

from . import rehearsal, timing

EARNED = 0.98  # of the default's time
ROUNDS = 15
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8)


@dataclass(frozen=True)
class Trial:
    """``run(x)`` on a batch of ``shape``, in place. ``least`` is the architecture that it needs."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    plan: Callable[[torch.Tensor], MixPlan]
    least: int = 90

    @property
    def about(self) -> str:
        return f"{self.name}, {str(self.dtype)[6:]} {'×'.join(map(str, self.shape))}"


def permutation(x: torch.Tensor, boxes: bool = False, order: str = "permutation") -> MixPlan:
    """Weights for each sample, and boxes; every third sample keeps its values outside the box."""
    batch, edge = len(x), min(x.shape[-2:])
    generator = torch.Generator().manual_seed(batch)
    partner = torch.randperm(batch, generator=generator)
    if order == "shared":
        partner = torch.randint(batch, (batch,), generator=generator)
    lam = torch.rand(batch, generator=generator, dtype=torch.float64)
    lam[::3] = 1.0
    ends = torch.randint(0, edge + 1, (batch, 2, 2), generator=generator).sort(1).values
    box = torch.cat((ends[:, 0], ends[:, 1]), 1).int()
    return MixPlan(
        partner=None if order == "roll" else partner.int(),
        weight=torch.stack((lam, 1 - lam), 1).float(),
        blend=torch.stack((lam, 1 - lam), 1),
        box=box if boxes else box[:, :0],
        pairing="roll" if order == "roll" else "tensor",
    ).to(x.device)


def uniform(x: torch.Tensor, pairing: str) -> MixPlan:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    return MixPlan.uniform(len(x), order if pairing == "permutation" else pairing, 0.3)


IMAGES = (3, 224, 224)
TRIALS = (
    Trial("permutation", (256, *IMAGES), torch.bfloat16, partial(uniform, pairing="permutation")),
    Trial("permutation", (1024, *IMAGES), torch.bfloat16, partial(uniform, pairing="permutation")),
    Trial("roll", (256, *IMAGES), torch.bfloat16, partial(uniform, pairing="roll")),
    Trial("λ and boxes", (256, *IMAGES), torch.bfloat16, partial(permutation, boxes=True)),
    Trial("λ and boxes", (1024, *IMAGES), torch.bfloat16, partial(permutation, boxes=True)),
    Trial("permutation", (256, *IMAGES), torch.float32, partial(uniform, pairing="permutation")),
    Trial("permutation", (256, *IMAGES), torch.uint8, partial(uniform, pairing="permutation")),
    Trial("flip", (1024, *IMAGES), torch.bfloat16, partial(uniform, pairing="flip"), 100),
    Trial("flip", (256, *IMAGES), torch.float32, partial(uniform, pairing="flip"), 100),
)


def grid() -> Iterator[Trial]:
    """Cases whose bits are compared, and no time is taken: every dtype, pairing, edge of a size."""
    sizes = itertools.cycle([(7, 1, 1031, 1024), (64, 3, 224, 226), (333, 1, 160, 200)])
    orders = itertools.cycle(["permutation", "roll", "shared"])
    for dtype, boxes in itertools.product(DTYPES, (False, True)):
        for _ in range(3):
            plan = partial(permutation, boxes=boxes, order=next(orders))
            yield Trial("bits", next(sizes), dtype, plan)
        next(sizes)


def batch_of(trial: Trial, device: str) -> torch.Tensor:
    shape = tuple(min(n, rehearsal.MOST) for n in trial.shape)
    shape = shape if rehearsal.is_rehearsal() else trial.shape
    if trial.dtype == torch.uint8:
        return torch.randint(256, shape, device=device).to(torch.uint8)
    return torch.randn(shape, device=device).to(trial.dtype)


def same_bits(trial: Trial, device: str, switch: Callable[[bool], object]) -> bool:
    x = batch_of(trial, device)
    plan = trial.plan(x)
    results = []
    for on in (False, True):
        switch(on)
        results.append(fm.mix_(x.clone(), plan).view(torch.uint8))
    return torch.equal(*results)


def times(trial: Trial, device: str, switch: Callable[[bool], object]) -> dict[str, float]:
    """Medians in seconds of the default path, the experimental one, and a copy, in turn."""
    xs = timing.rotate(lambda: batch_of(trial, device))
    plan, out = trial.plan(xs[0]), torch.empty_like(xs[0])
    mark = timing.clock(device, "device")
    found: dict[str, list[float]] = {"default": [], "experimental": [], "copy": []}
    inputs = itertools.cycle(xs)
    for k in range(timing.WARMUP + ROUNDS):
        for name, taken in found.items():
            switch(name == "experimental")
            x = next(inputs)
            if device == "cuda":
                timing.hold_gpu()
            before = mark()
            out.copy_(x) if name == "copy" else fm.mix_(x, plan)
            after = mark()
            if k >= timing.WARMUP:
                taken.append(after - before)  # type: ignore[operator]
    return {name: statistics.median(taken) for name, taken in found.items()}


def find_switch(device: str) -> tuple[Callable[[bool], object], int]:
    """What turns experimental kernels on, and the GPU's architecture."""
    if device != "cuda":
        return (lambda on: None), 0
    why = backends.reason_unavailable("native", "CUDA")
    if why is not None:
        sys.exit(f"experimental: no compiled CUDA kernels here: {why}")
    major, minor = torch.cuda.get_device_capability()
    return importlib.import_module("fused_mixup._C_cuda").set_experimental, 10 * major + minor


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=25.0, help="for all of it")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(arguments)
    until = time.monotonic() + args.seconds
    switch, arch = find_switch(args.device)
    report: dict = {"arch": arch, "different": [], "trials": [], "left_out": 0}

    def save() -> None:
        if args.json:
            args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")

    for trial in itertools.chain(TRIALS, grid()):
        if not same_bits(trial, args.device, switch):
            report["different"].append(trial.about)
            print(f"DIFFERENT BITS: {trial.about}", flush=True)
    save()
    for trial in TRIALS:
        if (arch and arch < trial.least) or time.monotonic() > until:
            report["left_out"] += 1
            continue
        found = times(trial, args.device, switch)
        faster = found["experimental"] <= EARNED * found["default"]
        earned = bool(arch) and faster and not report["different"]
        found |= {"name": trial.name, "shape": trial.shape, "dtype": str(trial.dtype)}
        report["trials"].append(found | {"earned": earned})
        save()
        before, after = (found["copy"] / found[name] for name in ("default", "experimental"))
        verdict = "should become the default" if earned else "the default stays"
        print(f"{trial.about:40} {before:5.1%} → {after:5.1%} of a copy: {verdict}", flush=True)
    switch(False)
    save()
    print(f"{len(report['trials'])} trials, {len(report['different'])} with different bits")
    return 1 if report["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
