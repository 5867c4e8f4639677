"""Every op once or twice with each backend, on small inputs: what a sanitizer is run on.

    python tests/gpu_small.py [--device cuda] [--backends native,triton] [--share 0/4]
                              [--results FILE --stage NAME]

Inputs are made on the host and results compared there, so that nearly all that a sanitizer watches
are kernels of this package. Exits with 1 where a result is wrong, with 3 where no backend can run.
--share takes the first of four parts; --results adds a JSON line for each call to a file at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import torch
from gpu_cases import CASES, QUICK, Case, mix_args

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from gpu_shard import record

import fused_mixup as fm
from fused_mixup import backends

# Rows of bytes, rows that start anywhere, and maps of half logits, by vectors across positions.
BY_VECTOR = [
    case
    for case in CASES
    if any(name in str(case) for name in ("5x3x20x33 offset", "bool", " float16 3x21x4x16"))
]


def beyond_shared_memory() -> list[Case]:
    """More rows than a block of shared memory holds: the native walk, Triton's scratch."""
    batch = (15000, (3,), torch.float32, "contiguous")
    return [
        Case("mix_", f"15000x3 {pairing}", partial(mix_args, "mix_", (*batch, pairing, "lam")))
        for pairing in ("permutation", "roll")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backends", default="native,triton")
    parser.add_argument("--share", default="0/1", metavar="I/N")
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--stage", default="smoke")
    chosen = parser.parse_args()
    index, count = map(int, chosen.share.split("/"))
    key = chosen.device.partition(":")[0].upper()
    ran = failed = 0
    for backend in chosen.backends.split(","):
        why = backends.reason_unavailable(backend, key)
        if why is not None:
            print(f"left out: {backend}: {why}")
            continue
        with fm.backend(backend):
            for case in [*QUICK, *BY_VECTOR, *beyond_shared_memory()][index::count]:
                ran += 1
                line = {"stage": chosen.stage, "test": f"{case} with {backend}"}
                line["outcome"], started = "passed", time.monotonic()
                try:
                    case.check(case.run(case.args(chosen.device)))
                except Exception as error:  # a kernel that cannot be compiled: the others still run
                    failed += 1
                    why = f"{type(error).__name__}: {error}"
                    line |= {"outcome": "failed", "why": why[-600:]}
                    print(f"WRONG {case} with {backend}: {why}", flush=True)
                if chosen.results:
                    line["seconds"] = round(time.monotonic() - started, 3)
                    record(chosen.results, line)
    print(f"{ran} calls, {failed} wrong")
    sys.exit(3 if ran == 0 else failed > 0)


if __name__ == "__main__":
    main()
