"""Runs GlobalMix in processes of one gloo group, forked from this one; argv: task, ranks, folder.

Each task is a function of the rank here; what it returns is written to the folder as JSON.
"""

from __future__ import annotations

import datetime
import json
import random
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from detections import MODES
from global_cases import K, batch_of, check, kinds_of, options_of
from torch import multiprocessing as mp

from fused_mixup import BatchMix
from fused_mixup.distributed import GlobalMix

CASES = int(sys.argv[4]) if len(sys.argv) > 4 else 60


def random_plans(rank: int, ranks: int) -> dict:
    """Random batches, settings and sizes: each rank against one process."""
    rng, done = random.Random(7), {"images": 0, "masks": 0}
    for case in range(CASES):
        options = options_of(rng)
        neighbours = rng.choice((None, None, 2, 3))
        inner = rng.random() < 0.2
        sizes = [rng.choice((0, 1, 2, 3, 5, 8)) if inner else rng.randint(1, 7) for _ in range(ranks)]
        torch.manual_seed(case)
        batch = batch_of(rng, sum(sizes))
        if options["pairing"] == "cross_class" and not isinstance(batch, (tuple, dict)):
            options["pairing"] = "shuffle"
        if options["pairing"] == "cross_class":
            y = batch["label"] if isinstance(batch, dict) else batch[1]
            if isinstance(y, dict) or y.is_floating_point():
                options["pairing"] = "shuffle"
        maps = None
        if "mix" in options and set(options["mix"]) <= {"saliencymix", "attentivemix", "guidedmixup"}:
            maps = torch.rand(sum(sizes), 4, 4)
        overlap = rng.random() < 0.8
        mix = GlobalMix(BatchMix(K, **options), None, overlap, neighbours=neighbours)
        width = neighbours or ranks
        first = rank // width * width
        block = sizes[first : first + width]
        stream = rank // width if len(block) > 1 else rank
        whole = BatchMix(K, **options, rank=stream)
        start = sum(sizes[:first])
        part = _rows(batch, start, start + sum(block))
        own_maps = None if maps is None else maps[start : start + sum(block)]
        for _ in range(2):
            check(mix, whole, part, block, rank - first, own_maps)
        done["masks" if "mix" in options else "images"] += 1
    return done


def kinds(rank: int, ranks: int) -> int:
    """Every kind of entry, by MixUp, CutMix and both."""
    done, sizes = 0, [3, 2, 4, 1][:ranks]
    for mode in MODES.values():
        for pairing in ("flip", "shuffle"):
            for more, batch in kinds_of(sum(sizes)).values():
                options = {**mode, **more, "pairing": pairing, "inplace": pairing == "flip"}
                mix = GlobalMix(BatchMix(K, **options))
                whole = BatchMix(K, **options, rank=0)
                for _ in range(2):
                    check(mix, whole, batch, sizes, rank)
                done += 1
    return done


def _rows(value, start, stop):
    if isinstance(value, dict):
        return {key: _rows(v, start, stop) for key, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_rows(v, start, stop) for v in value)
    return value[start:stop]


def run(rank: int, task: str, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), ranks)
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timeout)
    try:
        said = {"result": globals()[task](rank, ranks)}
    except Exception:
        said = {"error": traceback.format_exc()}
    (Path(folder) / str(rank)).write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    context = mp.get_context("fork")
    task, ranks, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    processes = [context.Process(target=run, args=(r, task, ranks, folder)) for r in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
