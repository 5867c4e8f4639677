"""Timing that can be quoted: medians of alternating runs, on data that is not in cache."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import fused_mixup as fm
from fused_mixup import backends

CACHE_BYTES = 2**26  # what rotated buffers must exceed together: the last-level caches of today
WARMUP = 3  # calls before the clock starts: first-use costs are not the op's
BLOCK = 10  # calls of one run before the next has its turn


def rotated(make: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """Enough tensors, taken in turn, that none is in cache when its turn comes again."""
    first = make()
    count = 2 + CACHE_BYTES // max(first.numel() * first.element_size(), 1)
    return [first] + [make() for _ in range(min(count, 64) - 1)]


def _once(run: Callable[[], object], device: str) -> float:
    if device == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop)
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


def compare(runs: dict[str, Callable[[], object]], device: str, seconds: float) -> dict[str, dict]:
    """Milliseconds of each run. Blocks of calls are taken in turn, so that drift meets all alike.

    Inside a block the memory allocator is in the state that this run alone leaves, as it is in a
    program that has one of them; call by call in turn, each would pay for pages the other gave up.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 2 * BLOCK:
        for name, run in runs.items():
            for _ in range(WARMUP):
                run()
            times[name] += [_once(run, device) for _ in range(BLOCK)]
    return {
        name: {
            "median_ms": round(statistics.median(t), 4),
            "min_ms": round(min(t), 4),
            "runs": len(t),
        }
        for name, t in times.items()
    }


def extra_bytes(run: Callable[[], object], device: str) -> int:
    """The most tensor memory that ``run`` holds beyond what was there."""
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profiler:
        run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def machine(device: str) -> dict:
    """What a figure depends on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0].split(":", 1)[1].strip() if models else name
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "backend": backends.chosen(device.upper()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "fused_mixup": fm.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
