"""Counts of one call: operators, launches, synchronisations, and a profile of its time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity

from .timing import HOST_CALLS, extra_bytes

LAUNCHES = ("LaunchKernel", "Memcpy", "Memset", "GraphLaunch")
WAITS = ("Synchronize",)
MOST_IN_PROFILE = 6
MOST_HOST_SECONDS = 0.5


def count_events(run: Callable[[], object], device: str) -> dict:
    """Counts of one call, taken from PyTorch's profiler."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profiler:
        run()
    # The profiler itself synchronises at its end, after the last operator.
    events = [e for e in profiler.events() if e.device_type.name == "CPU"]
    names = Counter(e.name for e in events)
    found: dict = {
        "operators": sum(n for name, n in names.items() if "::" in name),
        "profile": profile(profiler),
    }
    if device == "cuda":
        found["launches"] = _count_runtime(names, LAUNCHES)
        found["synchronisations"] = max(0, _count_runtime(names, WAITS) - 1)
    return found


def _count_runtime(names: Counter, parts: tuple[str, ...]) -> int:
    runtime = {n: c for n, c in names.items() if n.startswith(("cuda", "cu"))}
    return sum(c for n, c in runtime.items() if any(part in n for part in parts))


def profile(profiler: torch.profiler.profile) -> list[list]:
    """[name, share of the time, calls] for each of the slowest operators."""
    rows = profiler.key_averages()
    on_device = sum(row.self_device_time_total for row in rows)
    key = "self_device_time_total" if on_device else "self_cpu_time_total"
    total = sum(getattr(row, key) for row in rows) or 1
    most = sorted(rows, key=lambda row: -getattr(row, key))[:MOST_IN_PROFILE]
    shares = [[row.key, round(getattr(row, key) / total, 3), row.count] for row in most]
    return [row for row in shares if row[1] >= 0.01]


def host_microseconds(run: Callable[[], object], device: str) -> float:
    """Microseconds that the host spends on a call, without waiting for the device."""
    begin = time.perf_counter()
    calls = 0
    while calls < HOST_CALLS and time.perf_counter() < begin + MOST_HOST_SECONDS:
        run()
        calls += 1
    spent = (time.perf_counter() - begin) / calls
    if device == "cuda":
        torch.cuda.synchronize()
    return spent * 1e6


def measure(run: Callable[[], object], device: str) -> dict:
    """All counts of ``run``; the caller has timed it before."""
    found = {"extra_mib": round(extra_bytes(run, device) / 2**20, 3), **count_events(run, device)}
    if device == "cuda":
        found["host_us"] = round(host_microseconds(run, device), 2)
    return found
