"""Compares kernels that wait for a GPU with the default ones, in one process:

    python -m benchmarks.paths [--device cuda|cpu] [--seconds S] [--budget S] [--json FILE]

FUSED_MIXUP_EXPERIMENTAL=1 turns such kernels on (csrc/cuda/experimental.h); this program flips that
switch between calls. For each case it compares both results, times both in turn, and says which
should become the default. On the CPU, where nothing differs, it rehearses on tiny sizes. The exit
status is 1 where results differ.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import fused_mixup as fm
from fused_mixup import ops
from fused_mixup.codes import MEAN, NONE

from .rehearsal import MOST
from .results import milliseconds
from .timing import DeviceMark, hold_gpu, rotate

DEFAULT, OTHER, COPY = "default", "experimental", "copy"
LEAST_GAIN = 0.02  # a smaller one changes no default


@dataclass(frozen=True)
class PathCase:
    """``make(device)``: inputs to rotate over, and a call that returns tensors."""

    name: str
    make: Callable[[str], tuple[list[Tensor], Callable[[Tensor], Sequence[Tensor]]]]
    moved: float  # bytes, the least that a call moves, in sizes of an input
    tolerance: tuple[float, float] | None  # None: the same bits


def _shape(device: str, *shape: int) -> tuple[int, ...]:
    return shape if device == "cuda" else tuple(min(n, MOST) for n in shape)


def _loss(rows: int, classes: int, dtype: torch.dtype, kind: str) -> PathCase:
    """Loss and gradient of long rows: a row stays in the shared memory of a cluster."""

    def make(device: str):
        batch, wide = _shape(device, rows, classes)
        inputs = rotate(lambda: torch.randn(batch, wide, device=device).to(dtype))
        labels = torch.randint(0, wide, (batch,), device=device)
        sparse = (labels, labels.flip(0), torch.tensor([[0.3, 0.7]]).expand(batch, 2))
        if kind == "dense":
            sparse = (torch.rand(batch, wide, device=device).to(dtype), None, None)
        gamma = 2.0 if kind == "focal" else 0.0
        smoothing = 0.0 if kind == "focal" else 0.1
        reduction = NONE if kind == "none" else MEAN
        options = (None, -100, 0.0, smoothing, gamma, 0.0, reduction, kind == "ranks")

        def call(z: Tensor) -> Sequence[Tensor]:
            return ops.default_op("soft_target_cross_entropy_grad")(z, *sparse, *options)

        return inputs, call

    # Sums in another order; then a gradient may be rounded the other way.
    eps = torch.finfo(dtype).eps
    name = f"loss and gradient, {kind}, {dtype} {rows}x{classes}".replace("torch.", "")
    return PathCase(name, make, 3.0 if kind == "dense" else 2.0, (max(eps, 1e-5), 1e-7))


def _drawn(rows: int, dtype: torch.dtype, pairing: str) -> PathCase:
    """A plan drawn on the device and its mix, which may start while the plan is drawn."""
    side = 224

    def make(device: str):
        shape = _shape(device, rows, 3, side, side)
        inputs = rotate(lambda: torch.randn(shape, device=device).to(dtype))
        start = fm.plan_state(0, device=device)
        state = start.clone()

        def call(x: Tensor) -> Sequence[Tensor]:
            state.copy_(start)  # each call draws the same plan
            plan = fm.draw_plan(len(x), tuple(x.shape[2:]), state=state, pairing=pairing)
            return (fm.mix(x, plan),)

        return inputs, call

    name = f"draw_plan and mix, {pairing}, {dtype} {rows}x3x{side}x{side}".replace("torch.", "")
    return PathCase(name, make, 2.0, None)


def cases() -> Iterator[PathCase]:
    half, single = torch.bfloat16, torch.float32
    yield _loss(16384, 21841, half, "labels")
    yield _loss(8192, 131072, half, "labels")
    yield _loss(16384, 32768, half, "labels")
    yield _loss(8192, 65536, half, "labels")
    yield _loss(8192, 21841, single, "labels")
    yield _loss(4096, 32000, half, "dense")
    yield _loss(4096, 32000, half, "ranks")
    yield _loss(4096, 50257, half, "focal")
    yield _loss(4096, 50257, half, "none")
    yield _loss(1024, 400000, half, "labels")
    yield _drawn(256, half, "flip")
    yield _drawn(256, half, "shuffle")


def switch(device: str) -> Callable[[bool], object]:
    """Turns experimental kernels on or off; where there is no GPU, nothing."""
    if device != "cuda":
        return lambda on: None
    module = importlib.import_module("fused_mixup._C_cuda")
    return module.set_experimental


def differ(case: PathCase, one: Sequence[Tensor], other: Sequence[Tensor]) -> str:
    """How the results differ, or ""."""
    for a, b in zip(one, other, strict=True):
        if case.tolerance is None or not a.is_floating_point():
            same = torch.equal(a, b)
            if not same:
                return "other bits"
            continue
        rtol, atol = case.tolerance
        scale = len(a) if a.ndim > 1 else 1  # a mean's gradient is that of the sum by the rows
        for x, y in zip(a.view(-1).split(2**26), b.view(-1).split(2**26), strict=True):
            if not torch.allclose(x.float(), y.float(), rtol=rtol, atol=atol / scale):
                return f"up to {(x.float() - y.float()).abs().max().item():.2e}"
    return ""


def measure(case: PathCase, device: str, seconds: float) -> dict:
    """Compares both paths and times them in turn."""
    flip = switch(device)
    inputs, call = case.make(device)
    found: dict = {"case": case.name}
    times: dict[str, list[float]] = {DEFAULT: [], OTHER: [], COPY: []}
    room = torch.empty_like(inputs[0])
    try:
        results = {}
        for path in (DEFAULT, OTHER):
            flip(path == OTHER)
            results[path] = [t.clone() for t in call(inputs[0].clone())]
        found["differs"] = differ(case, results[DEFAULT], results[OTHER])
        del results
        until = time.monotonic() + seconds
        for x in itertools.cycle(inputs):
            for path in (DEFAULT, OTHER):
                flip(path == OTHER)
                times[path].append(_seconds(call, x, device))
            # A copy moves its input twice.
            copied = _seconds(room.copy_, x, device)
            times[COPY].append(copied * case.moved / 2)
            if time.monotonic() > until and len(times[OTHER]) >= 5:
                break
    finally:
        flip(os.environ.get("FUSED_MIXUP_EXPERIMENTAL") == "1")
    return found | {path: milliseconds(given) for path, given in times.items()}


def _seconds(call: Callable, x: Tensor, device: str) -> float:
    if device != "cuda":
        start = time.perf_counter()
        call(x)
        return time.perf_counter() - start
    hold_gpu()
    begin = DeviceMark()
    call(x)
    return DeviceMark() - begin


def verdict(found: dict) -> str:
    """Which path should be the default; a gain counts where the intervals lie apart."""
    if found["differs"]:
        return f"{DEFAULT}: results differ, {found['differs']}"
    old, new = found[DEFAULT], found[OTHER]
    gain = 1 - new["median_ms"] / old["median_ms"]
    if gain >= LEAST_GAIN and new["high_ms"] < old["low_ms"]:
        return f"{OTHER}, {gain:.0%} faster"
    return f"{DEFAULT}, the other is {-gain:+.0%}"


def table(rows: Sequence[dict]) -> list[str]:
    lines = ["| case | default ms (of a copy) | experimental ms | should be the default |"]
    lines.append("|---|--:|--:|---|")
    for row in rows:
        old, new, copy = (row[path]["median_ms"] for path in (DEFAULT, OTHER, COPY))
        numbers = f"{old:.3f} ({copy / old:.0%}) | {new:.3f} ({copy / new:.0%})"
        lines.append(f"| {row['case']} | {numbers} | {verdict(row)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    until = time.monotonic() + args.budget
    rows, left = [], []
    for case in cases():
        if time.monotonic() + args.seconds > until:
            left.append(case.name)
            continue
        rows.append(measure(case, args.device, args.seconds))
        if args.json:
            args.json.write_text(json.dumps({"results": rows}, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(rows)))
    if left:
        print(f"no time for: {'; '.join(left)}")
    wrong = sum(bool(row["differs"]) for row in rows)
    print(f"{len(rows)} cases, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
