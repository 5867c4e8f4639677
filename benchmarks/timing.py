"""Clocks, extra memory, and inputs that are not in cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fused_mixup import memory

WARMUP = 3  # calls before the clock starts, which pay first-use costs
AHEAD = 4_000_000  # cycles, some 2 ms: the GPU waits while the host queues a call
HOST_CALLS = 100  # a round of host timing; a GPU's queue holds ten times that
LEAST_CACHE = 2**25  # bytes, where the system does not report the last-level cache
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
    """The least total size of rotating inputs."""
    if os.environ.get("FUSED_MIXUP_REHEARSAL") == "1":  # as rehearsal.py, which imports this file
        return 2**20
    if device == "cpu":
        return 2 * last_level_cache()
    return 2 * max(torch.cuda.get_device_properties(device).L2_cache_size, LEAST_CACHE)


def rotate(make: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """So many tensors to rotate over that none is in cache when its turn comes again."""
    first = make()
    count = 2 + cache_bytes(str(first.device)) // max(first.numel() * first.element_size(), 1)
    return [first] + [make() for _ in range(min(count, MOST_INPUTS) - 1)]


# ------------------------------------------------------------------ clocks


class DeviceMark:
    """A time stamp on the GPU. The difference of two, in seconds, waits for both."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: DeviceMark) -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3


def hold_gpu() -> None:
    """Keeps the GPU busy while the host queues a call between two marks.

    On an idle GPU the time between the marks would include the host's time until the launch.
    """
    torch.cuda._sleep(AHEAD)


def clock(device: str, kind: str) -> Callable[[], object]:
    """The timer that pytest-benchmark reads before and after a round."""
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
        kept = run(argument)  # the graph's output must stay allocated

    def replay(_argument: object) -> object:
        graph.replay()
        return kept

    return replay


# ------------------------------------------------------------------ memory


def extra_bytes(run: Callable[[], object], device: str) -> int:
    """Peak tensor memory of ``run`` beyond the memory in use before."""
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    memory.empty_cache()  # memory that our ops would reuse counts too
    with torch.profiler.profile(profile_memory=True) as profiler:
        run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
