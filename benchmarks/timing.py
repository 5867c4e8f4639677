"""Timing that can be quoted: medians of alternating runs, on data that is not in cache."""

from __future__ import annotations

import datetime
import itertools
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
AHEAD = 4_000_000  # cycles, some 2 ms: a GPU is kept waiting while a block of calls is queued
HOST_CALLS = 100  # of one block where the host's time counts; the queue of a GPU holds ten times it


def rotated(make: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """Enough tensors, taken in turn, that none is in cache when its turn comes again."""
    first = make()
    cache = CACHE_BYTES
    if first.is_cuda:
        cache = max(cache, 2 * torch.cuda.get_device_properties(first.device).L2_cache_size)
    count = 2 + cache // max(first.numel() * first.element_size(), 1)
    return [first] + [make() for _ in range(min(count, 64) - 1)]


def _block(run: Callable[[], object], device: str, clock: str) -> list[float]:
    """Milliseconds of each of BLOCK calls.

    On a GPU by events around each call. All are queued while the GPU still waits: an event that is
    recorded on an idle GPU would count the host's time until the launch as well.
    """
    if clock == "host":  # what a call costs the host: nothing is waited for
        begin = time.perf_counter()
        for _ in range(HOST_CALLS):
            run()
        spent = (time.perf_counter() - begin) * 1e3 / HOST_CALLS
        if device == "cuda":
            torch.cuda.synchronize()
        return [spent]
    if device == "cuda":
        events = [torch.cuda.Event(enable_timing=True) for _ in range(BLOCK + 1)]
        torch.cuda._sleep(AHEAD)
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in itertools.pairwise(events)]
    times = []
    for _ in range(BLOCK):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def graphed(run: Callable[[], object]) -> Callable[[], object]:
    """``run`` captured in a CUDA graph: one replay is one call, without the host's part."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()  # what the graph writes must stay allocated

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def compare(
    runs: dict[str, Callable[[], object]], device: str, seconds: float, clock: str = "device"
) -> dict[str, dict]:
    """Milliseconds of each run. Blocks of calls are taken in turn, so that drift meets all alike.

    Inside a block the memory allocator is in the state that this run alone leaves, as it is in a
    program that has one of them; call by call in turn, each would pay for pages the other gave up.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    least = 2 if clock == "host" else 2 * BLOCK
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, run in runs.items():
            for _ in range(WARMUP):
                run()
            times[name] += _block(run, device, clock)
    return {
        name: {
            "median_ms": round(statistics.median(t), 5),
            "min_ms": round(min(t), 5),
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
        "kind": device,
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
