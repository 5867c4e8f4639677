"""Compares kernels behind FUSED_MIXUP_EXPERIMENTAL with the default ones, and says which is better:

    python -m benchmarks.experimental [--device cuda|cpu] [--seconds 25] [--json FILE]

The program flips that switch (csrc/cuda/experimental.h) between calls. First it compares the
results of both paths for every case of experimental_cases.py; one that differs fails the run. Then
it times both in turn, over inputs that are not in cache, beside a copy of as many bytes. A path
should become the default where its results are right and it is clearly faster.
FUSED_MIXUP_REHEARSAL=1 rehearses it on the CPU, where both paths are one.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fused_mixup import backends

from .experimental_cases import PathCase, cases
from .results import milliseconds
from .timing import WARMUP, clock, hold_gpu

DEFAULT, OTHER, COPY = "default", "experimental", "copy"
LEAST_GAIN = 0.02  # a smaller one changes no default
ROUNDS = 15

Switch = Callable[[bool], object]


def find_switch(device: str) -> tuple[Switch, int]:
    """What turns experimental kernels on, and the GPU's architecture."""
    if device != "cuda":
        return (lambda on: None), 0
    why = backends.reason_unavailable("native", "CUDA")
    if why is not None:
        sys.exit(f"experimental: no compiled CUDA kernels here: {why}")
    major, minor = torch.cuda.get_device_capability()
    return importlib.import_module("fused_mixup._C_cuda").set_experimental, 10 * major + minor


def differ(case: PathCase, one: Sequence[Tensor], other: Sequence[Tensor]) -> str:
    """How the results differ, or ""."""
    for a, b in zip(one, other, strict=True):
        if case.tolerance is None or not a.is_floating_point():
            if not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
                return "other bits"
            continue
        rtol, atol = case.tolerance
        scale = len(a) if a.ndim > 1 else 1  # a mean's gradient is that of the sum by the rows
        for x, y in zip(a.view(-1).split(2**26), b.view(-1).split(2**26), strict=True):
            if not torch.allclose(x.float(), y.float(), rtol=rtol, atol=atol / scale):
                return f"by up to {(x.float() - y.float()).abs().max().item():.2e}"
    return ""


def compare(case: PathCase, device: str, switch: Switch) -> str:
    x = case.input(device)
    call = case.call(x)
    results = []
    for on in (False, True):
        switch(on)
        results.append([t.clone() for t in call(x.clone())])
    switch(False)
    return differ(case, *results)


def measure(case: PathCase, device: str, switch: Switch) -> dict:
    """Milliseconds of both paths and of a copy of as many bytes, in turn."""
    inputs = case.inputs(device)
    call, room = case.call(inputs[0]), torch.empty_like(inputs[0])
    mark = clock(device, "device")
    taken: dict[str, list[float]] = {DEFAULT: [], OTHER: [], COPY: []}
    turns = itertools.cycle(inputs)
    for k in range(WARMUP + ROUNDS):
        for name, seconds in taken.items():
            switch(name == OTHER)
            x = next(turns)
            if device == "cuda":
                hold_gpu()
            before = mark()
            room.copy_(x) if name == COPY else call(x)
            spent = mark() - before  # type: ignore[operator]
            # A copy moves its input twice.
            if k >= WARMUP:
                seconds.append(spent * case.moved / 2 if name == COPY else spent)
    switch(False)
    return {name: milliseconds(seconds) for name, seconds in taken.items()}


def verdict(found: dict) -> str:
    """Which path should be the default; a gain counts where the intervals lie apart."""
    if found["differs"]:
        return f"the default stays: results differ {found['differs']}"
    old, new = found[DEFAULT], found[OTHER]
    gain = 1 - new["median_ms"] / old["median_ms"]
    if gain >= LEAST_GAIN and new["high_ms"] < old["low_ms"]:
        return f"should become the default: {gain:.0%} faster"
    return f"the default stays: the other takes {-gain:+.0%}"


def shown(found: dict) -> str:
    old, new, copy = (found[name]["median_ms"] for name in (DEFAULT, OTHER, COPY))
    shares = f"{old:.3f} ms ({copy / old:.0%} of a copy) -> {new:.3f} ms ({copy / new:.0%})"
    return f"{found['case']}: {shares}: {verdict(found)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=25.0, help="for all of it")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(arguments)
    until = time.monotonic() + args.seconds
    switch, arch = find_switch(args.device)
    report: dict = {"arch": arch, "different": [], "left_out": [], "results": []}

    def save() -> None:
        if args.json:
            args.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")

    differs = {}
    chosen = [case for case in cases() if not arch or arch >= case.least]
    for case in chosen:
        differs[case.about] = found = compare(case, args.device, switch)
        if found:
            report["different"].append(case.about)
            print(f"DIFFERENT: {case.about}, {found}", flush=True)
    save()
    for case in (case for case in chosen if case.timed):
        if time.monotonic() > until:
            report["left_out"].append(case.about)
            continue
        row = {"case": case.about, "differs": differs[case.about]}
        row |= measure(case, args.device, switch)
        report["results"].append(row)
        save()
        print(shown(row), flush=True)
    wrong = len(report["different"])
    print(f"{len(chosen)} cases compared, {len(report['results'])} timed, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
