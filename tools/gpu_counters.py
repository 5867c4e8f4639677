"""Runs each headline's kernels once between profiler marks: `make gpu` runs it under ncu.

    ncu --profile-from-start off … python tools/gpu_counters.py [cuda|cpu]

Prints a line "CASE {…}" for each case, in ncu's order of the kernels. A short kernel of PyTorch
(spin_kernel) marks the start of a case. On a CPU the calls run without marks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.registry import FLOOR, OURS, Provider, collect
from benchmarks.suite import copy_input


def main(device: str) -> None:
    cuda = device == "cuda"
    for case in collect(device, part="headlines"):
        if case.op == FLOOR:
            continue
        torch.manual_seed(0)
        work = case.build(case, device)
        provider = work.providers[OURS]
        assert isinstance(provider, Provider), f"{case.name}: {provider}"
        x = copy_input(work.inputs[0])
        for _ in range(2):  # compiles, loads, fills the allocator
            provider.run(x)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStart()
            torch.cuda._sleep(1)
        provider.run(x)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStop()
        size = (work.read or 0) + (work.written or 0)
        print("CASE", json.dumps({"case": case.name, "bytes": size}), flush=True)
        del work, provider, x


if __name__ == "__main__":
    main(*sys.argv[1:] or ["cuda"])
