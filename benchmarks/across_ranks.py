"""Times :class:`fused_mixup.distributed.GlobalMix` against gathering all batches and plain mixing.

    python -m benchmarks.across_ranks --ranks 2 --json ranks.json

Every rank is a process of this machine with its own batch; all of them run each way in turn, and
the time of a step is that of the slowest rank.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch import multiprocessing as mp

from fused_mixup import BatchMix
from fused_mixup.distributed import GlobalMix

CLASSES = 1000
CASES: dict[str, dict[str, Any]] = {
    "MixUp flip": {"mixup_alpha": 1.0},
    "MixUp shuffle": {"mixup_alpha": 1.0, "pairing": "shuffle"},
    "MixUp roll": {"mixup_alpha": 1.0, "pairing": "roll"},
    "CutMix flip": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "cutmix_minmax": (0.5, 0.5001)},
}


def gathered(x: Tensor) -> Tensor:
    """The batches of all ranks, one behind the other."""
    every = x.new_empty((dist.get_world_size() * len(x), *x.shape[1:]))
    dist.all_gather(list(every.chunk(dist.get_world_size())), x)
    return every


def plain(case: str, x: Tensor, labels: Tensor, whole: bool) -> tuple[Tensor, Tensor]:
    """Gather, then mix all (``whole``) or this rank's samples by plain PyTorch, as timm does."""
    every, classes, n = gathered(x), gathered(labels), len(x)
    total, first = len(every), dist.get_rank() * n
    own = torch.arange(total) if whole else torch.arange(first, first + n)
    if "roll" in case:
        partner = (own - 1) % total
    elif "shuffle" in case:
        partner = torch.randperm(total, generator=torch.Generator().manual_seed(0))[own]
    else:
        partner = total - 1 - own
    lam = 0.75 if "CutMix" in case else 0.6
    mine = every if whole else x
    if "CutMix" in case:
        h, w = x.shape[-2:]
        box = slice(h // 4, h // 4 + h // 2), slice(w // 4, w // 4 + w // 2)
        mixed = mine.clone()
        mixed[:, :, box[0], box[1]] = every[partner][:, :, box[0], box[1]]
    else:
        mixed = mine * lam + every[partner] * (1 - lam)
    one_hot = torch.nn.functional.one_hot(classes, CLASSES).float()
    target = one_hot[own] * lam + one_hot[partner] * (1 - lam)
    here = slice(first, first + n) if whole else slice(None)
    return mixed[here], target[here]


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each call, of the slowest rank."""
    found = []
    for _ in range(repeats):
        dist.barrier()
        started = time.perf_counter()
        call()
        seconds = torch.tensor([time.perf_counter() - started])
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        found.append(float(seconds))
    return found


def work(rank: int, options: argparse.Namespace, folder: str) -> None:
    torch.set_num_threads(max((os.cpu_count() or 1) // options.ranks, 1))
    store = dist.FileStore(str(Path(folder) / "store"), options.ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=options.ranks)
    size = (options.batch, 3, options.size, options.size)
    x, labels = torch.rand(size), torch.randint(0, CLASSES, (options.batch,))
    found = {}
    for case, arguments in CASES.items():
        mix = GlobalMix(BatchMix(CLASSES, **arguments))
        ways = {
            "GlobalMix": lambda mix=mix: mix(x, labels),
            "gather, mix all": lambda case=case: plain(case, x, labels, True),
            "gather, mix own": lambda case=case: plain(case, x, labels, False),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):  # in turn, so that a busy machine is busy for all
            for name, call in ways.items():
                seconds[name] += timed(call, 2)
        found[case] = {name: statistics.median(t[2:]) * 1e3 for name, t in seconds.items()}
        sent = mix.bytes_sent / (2 * options.rounds)
        found[case] |= {
            "MB sent": sent / 1e6,
            "MB of an all-gather": x.nbytes / 1e6 * (options.ranks - 1),
        }
    if rank == 0:
        (Path(folder) / "found").write_text(json.dumps(found))
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.across_ranks")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="samples of each rank")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context("spawn")
        ranks = [
            context.Process(target=work, args=(rank, options, folder))
            for rank in range(options.ranks)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        found = json.loads((Path(folder) / "found").read_text())
    print(
        f"{options.ranks} ranks, {options.batch}x3x{options.size}x{options.size} float32 each, ms"
    )
    for case, numbers in found.items():
        shown = ", ".join(f"{name} {value:.1f}" for name, value in numbers.items())
        ratio = numbers["gather, mix all"] / numbers["GlobalMix"]
        print(f"{case:14} {shown}: {ratio:.1f}x")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
