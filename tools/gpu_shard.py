"""A pytest plugin: keeps the tests that touch a GPU, and of those the share of one process.

`-p gpu_shard` with GPU_SHARD=2/12 in the environment is the third of twelve. On a GPU nearly all
the time goes into compiling Triton's kernels, which several processes do at once.

Each test's outcome is added to the file GPU_RESULTS as soon as it is known, one JSON line with the
name GPU_STAGE: a process that is stopped, or that crashes, has lost none of what it had done. In a
rehearsal without a GPU (FUSED_MIXUP_REHEARSAL) it keeps a few tests of the CPU instead.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

# Tests that look how much memory is free and then take most of it: not beside each other.
ONE_BY_ONE = "test_gpu_large.py::"
REHEARSED = 6  # tests of the CPU that stand for all in a rehearsal, for each file


def touches_gpu(nodeid: str) -> bool:
    """Tests of the CPU alone are left to `make test`, those of CUDA code built for it too."""
    if "[cpu-" in nodeid or "cuda-on-host" in nodeid:
        return False
    return re.search("cuda|gpu|device|test_triton", nodeid) is not None


def share(nodeids: list[str], index: int, count: int) -> list[str]:
    """In order: native's before Triton's, so that the first seconds prove the most."""
    parts: list[list[str]] = [[] for _ in range(count)]
    parts[-1] = [name for name in nodeids if ONE_BY_ONE in name]
    spread = [name for name in nodeids if ONE_BY_ONE not in name]
    # Triton's first, one to each in turn: what takes long is spread evenly.
    for name in sorted(spread, key=_is_triton, reverse=True):  # stable
        min(parts, key=len).append(name)
    return sorted(parts[index], key=_is_triton)


def _is_triton(nodeid: str) -> bool:
    return "triton" in nodeid


def rehearsed(nodeids: list[str]) -> list[str]:
    found: dict[str, list[str]] = {}
    for name in nodeids:
        if "[cpu-native" in name:
            found.setdefault(name.partition("::")[0], []).append(name)
    return [name for names in found.values() for name in names[:: len(names) // REHEARSED + 1]]


def pytest_collection_modifyitems(config, items) -> None:
    index, count = map(int, os.environ["GPU_SHARD"].split("/"))
    names = [item.nodeid for item in items]
    chosen = rehearsed if os.environ.get("FUSED_MIXUP_REHEARSAL") else _on_gpu
    by_name = {item.nodeid: item for item in items}
    mine = [by_name[name] for name in share(chosen(names), index, count)]
    kept = {id(item) for item in mine}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = mine


def _on_gpu(nodeids: list[str]) -> list[str]:
    return [name for name in nodeids if touches_gpu(name)]


def record(path: str | Path, line: dict) -> None:
    """Add a line to a file that other processes add to as well: one write, at its end."""
    data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def pytest_runtest_logreport(report) -> None:
    path = os.environ.get("GPU_RESULTS")
    # A test has a report for its call, and others where its set-up or what follows went wrong.
    if not path or (report.when != "call" and report.outcome == "passed"):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    line = {"stage": os.environ.get("GPU_STAGE", ""), "test": report.nodeid}
    line |= {"outcome": report.outcome, "seconds": round(report.duration, 3)}
    if report.outcome != "passed":
        line["why"] = why.removeprefix("Skipped: ")[-600:]
    record(path, line)


def pytest_sessionfinish(session, exitstatus) -> None:
    """The last line of a process that came to its end: without it, some tests are not known."""
    if path := os.environ.get("GPU_RESULTS"):
        stage = os.environ.get("GPU_STAGE", "")
        record(path, {"stage": stage, "ended": os.environ["GPU_SHARD"], "status": int(exitstatus)})
