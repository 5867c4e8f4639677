"""Clocks, and inputs that are not in cache when their turn comes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fused_mixup import memory

WARMUP = 3  # calls before the clock starts: first-use costs are not the op's
AHEAD = 4_000_000  # cycles, some 2 ms: a GPU is kept waiting while a call is queued
HOST_CALLS = 100  # of one round where the host's time counts; the queue of a GPU holds ten times it
LEAST_CACHE = 2**25  # bytes, where the system does not say how large the last-level cache is
MOST_INPUTS = 64


def last_level_cache() -> int:
    """Bytes of the CPU's last-level cache."""
    sizes = [LEAST_CACHE]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 2**10, "M": 2**20}.get(text[-1:], 0)
        sizes.append(int(text[:-1]) * unit if unit else 0)
    return max(sizes)


def cache_bytes(device: str) -> int:
    """What rotated inputs must exceed together."""
    if os.environ.get("FUSED_MIXUP_REHEARSAL") == "1":  # rehearsal.py, which imports this
        return 2**20
    if device == "cpu":
        return 2 * last_level_cache()
    return 2 * max(torch.cuda.get_device_properties(device).L2_cache_size, LEAST_CACHE)


def rotate(make: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """Enough tensors, taken in turn, that none is in cache when its turn comes again."""
    first = make()
    count = 2 + cache_bytes(str(first.device)) // max(first.numel() * first.element_size(), 1)
    return [first] + [make() for _ in range(min(count, MOST_INPUTS) - 1)]


# ------------------------------------------------------------------ clocks


class DeviceMark:
    """A moment on the GPU's own clock. The difference of two is in seconds, and waits for both."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: DeviceMark) -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3


def hold_gpu() -> None:
    """Keep the GPU waiting while the host queues a call between two marks.

    A mark recorded on an idle GPU would count the host's time until the launch as well.
    """
    torch.cuda._sleep(AHEAD)


def clock(device: str, kind: str) -> Callable[[], object]:
    """What pytest-benchmark reads before and after a round."""
    return DeviceMark if device == "cuda" and kind != "host" else time.perf_counter


def capture(run: Callable[[object], object], argument: object) -> Callable[[object], object]:
    """``run(argument)`` captured in a CUDA graph: one replay is one call, without the host."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            run(argument)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run(argument)  # what the graph writes must stay allocated

    def replay(_argument: object) -> object:
        graph.replay()
        return kept

    return replay


# ------------------------------------------------------------------ memory


def extra_bytes(run: Callable[[], object], device: str) -> int:
    """The most tensor memory that ``run`` holds beyond what was there."""
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    memory.empty_cache()  # what is used again counts, too
    with torch.profiler.profile(profile_memory=True) as profiler:
        run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
