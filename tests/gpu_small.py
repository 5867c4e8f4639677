"""Runs every op once or twice with each backend on small inputs; sanitizers run this program.

    python tests/gpu_small.py [--device cuda] [--backends native,triton] [--share 0/4]

Inputs are made on the host and results compared there, so that nearly all that a sanitizer watches
are kernels of this package. --share takes the first of four parts. Exits with 1 where a result is
wrong, or where no backend can run.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import torch
from gpu_cases import CASES, QUICK, Case, mix_args

import fused_mixup as fm
from fused_mixup import backends

# Rows of bytes, rows that start at any address, and maps of half logits, read as vectors.
BY_VECTOR = [
    case
    for case in CASES
    if any(name in str(case) for name in ("5x3x20x33 offset", "bool", " float16 3x21x4x16"))
]


def beyond_shared_memory() -> list[Case]:
    """Mix more rows than shared memory holds: native walks pairs, Triton takes a scratch copy."""
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
                ran, said = ran + 1, "ok"
                try:
                    case.check(case.run(case.args(chosen.device)))
                except Exception as error:  # one kernel failed to compile: the others still run
                    failed, said = failed + 1, f"WRONG: {type(error).__name__}: {error}"
                print(f"{case} with {backend}: {said}", flush=True)
    print(f"{ran} calls, {failed} wrong")
    sys.exit(failed > 0 or ran == 0)


if __name__ == "__main__":
    main()
