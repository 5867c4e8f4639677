"""Skips tests whose framework is not installed; runs functions in several processes."""

from __future__ import annotations

import importlib.util
import os
import socket
import traceback
import warnings

import pytest
import torch

from benchmarks import installed_peers

ANYWHERE = "127.0.0.1"


def require(*packages):
    """Skip the test file where a package is missing. Importing one takes seconds, so none is."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(
                f"{package} is not installed; pip install 'fused-mixup[frameworks]'",
                allow_module_level=True,
            )
    installed_peers.fit_torchvision()  # the frameworks import torchvision where it is installed


def run_ranks(function, *arguments, world=2, seconds=150):
    """Run ``function(rank, *arguments)`` in ``world`` fresh processes; list what each returns.

    It may return numbers, strings and lists of them: a tensor's memory ends with its process.
    """
    with socket.socket() as free:
        free.bind((ANYWHERE, 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_rank, args=(rank, world, port, results, function, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    by_rank, failures = {}, []
    while not results.empty():
        rank, good, value = results.get()
        by_rank[rank] = value
        failures += [] if good else [f"rank {rank}:\n{value}"]
    assert not failures, "\n".join(failures)
    assert len(by_rank) == world, f"only ranks {sorted(by_rank)} ended within {seconds} s"
    return [by_rank[rank] for rank in range(world)]


def _rank(rank, world, port, results, function, arguments):
    warnings.simplefilter("ignore")
    os.environ.update(
        MASTER_ADDR=ANYWHERE,
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    try:
        results.put((rank, True, function(rank, *arguments)))
    except BaseException:
        results.put((rank, False, traceback.format_exc()))
