"""A pytest plugin: keeps the tests that touch a GPU, and of those the share of one process.

`-p gpu_shard` with GPU_SHARD=2/12 in the environment is the third of twelve. On a GPU nearly all
the time goes into compiling Triton's kernels, which several processes do at once.
"""

from __future__ import annotations

import os
import re

# Tests that look how much memory is free and then take most of it: not beside each other.
ONE_BY_ONE = "test_gpu_large.py::"


def touches_gpu(nodeid: str) -> bool:
    """Tests of the CPU alone are left to `make test`, those of CUDA code built for it too."""
    if "[cpu-" in nodeid or "cuda-on-host" in nodeid:
        return False
    return re.search("cuda|gpu|device|test_triton", nodeid) is not None


def share(nodeids: list[str], index: int, count: int) -> set[str]:
    parts: list[list[str]] = [[] for _ in range(count)]
    parts[-1] = [name for name in nodeids if ONE_BY_ONE in name]
    spread = [name for name in nodeids if ONE_BY_ONE not in name]
    # Triton's first, one to each in turn: what takes long is spread evenly.
    for name in sorted(spread, key=lambda name: "triton" not in name):  # stable
        min(parts, key=len).append(name)
    return set(parts[index])


def pytest_collection_modifyitems(config, items) -> None:
    index, count = map(int, os.environ["GPU_SHARD"].split("/"))
    mine = share([item.nodeid for item in items if touches_gpu(item.nodeid)], index, count)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in mine])
    items[:] = [item for item in items if item.nodeid in mine]
