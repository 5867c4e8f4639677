"""Runs GlobalMix in processes of one gloo group, forked from this one; argv: task, ranks, folder.

Each task is a function of the rank here; what it returns is written to the folder as JSON.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import pickle
import random
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detections import MODES
from global_cases import MAPS, K, assert_same, batch_of, check, kinds_of, options_of
from global_faults import TIMEOUT, dies, misfits, raised, refusals, settings, stays_silent
from torch import multiprocessing as mp

from fused_mixup import BatchMix
from fused_mixup.distributed import GlobalMix, global_plan
from fused_mixup.tracing import group_timeout

CASES = int(sys.argv[4]) if len(sys.argv) > 4 else 60


def random_plans(rank: int, ranks: int) -> dict:
    """Random batches, settings and sizes: each rank against one process."""
    rng, done = random.Random(7), {"images": 0, "masks": 0}
    for case in range(CASES):
        options = options_of(rng)
        neighbours = rng.choice((None, None, 2, 3))
        counts = rng.choice((range(9), range(1, 8), range(1, 8)))  # none on some ranks, or some
        sizes = [rng.choice(counts) for _ in range(ranks)]
        torch.manual_seed(case)
        batch = batch_of(rng, sum(sizes))
        if options["pairing"] == "cross_class" and not isinstance(batch, (tuple, dict)):
            options["pairing"] = "shuffle"
        if options["pairing"] == "cross_class":
            y = batch["label"] if isinstance(batch, dict) else batch[1]
            if isinstance(y, dict) or y.is_floating_point():
                options["pairing"] = "shuffle"
        maps = None
        if not set(MAPS).isdisjoint(options.get("mix", ())):
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


# ------------------------------------------------------------------ bytes


def socket_bytes() -> int:
    """The bytes that all TCP sockets of this process have sent, as the kernel counts them.

    Without those sent again, which a busy machine does on its loopback too.
    """
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as s:
                info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 216)
        except OSError:  # closed meanwhile, or no TCP
            continue
        sent, again = struct.unpack_from("QQ", info, 200) if len(info) >= 216 else (0, 0)
        total += sent - again
    return total


def settled_bytes() -> int:
    """The same, once the threads of gloo have sent all they have."""
    found = [-1, socket_bytes()]
    while len(found) < 6 or len(set(found[-4:])) > 1:
        time.sleep(0.02)
        found.append(socket_bytes())
    return found[-1]


def wire(rank: int, ranks: int) -> list[dict]:
    """What a step of each kind sends: as the kernel and GlobalMix count it, and as planned."""
    said, n, shape = [], 8, (3, 20, 24)
    for dtype in (torch.float32, torch.uint8):
        for pairing in ("flip", "roll", "shuffle", "cross_class"):
            for mode in MODES.values():
                mix = GlobalMix(BatchMix(K, **mode, pairing=pairing, seed=5))
                x = (torch.rand(n, *shape) * 200).to(dtype)
                # Gloo's threads may still send what belongs to what came before: then once more.
                for _ in range(4):
                    step = _counted_step(mix, x, rank, ranks)
                    over = torch.tensor(step["kernel"] - step["counted"] > 1600)
                    dist.all_reduce(over, dist.ReduceOp.MAX)
                    if not over:
                        break
                said.append(step)
    return said


def _counted_step(mix: GlobalMix, x: torch.Tensor, rank: int, ranks: int) -> dict:
    labels, n = torch.randint(0, K, (len(x),)), len(x)
    every = [torch.empty_like(labels) for _ in range(ranks)]
    dist.all_gather(every, labels)
    by_class = mix.batch_mix._rules["pairing"] == "cross_class"
    told = {"labels": torch.cat(every)} if by_class else {}
    plan = global_plan(mix.batch_mix, [n] * ranks, rank, x.shape[2:], **told)
    dist.barrier()
    before, counted, gathered = settled_bytes(), mix.bytes_sent, mix.bytes_of_all_gather
    mix(x, labels)
    step = {
        "kernel": settled_bytes() - before,
        "counted": mix.bytes_sent - counted,
        "plan": plan.traffic(x.shape[1:], x.dtype)._asdict(),
        "samples": len(plan.sent),
        "sample": x[0].nbytes,
        "all_gather": mix.bytes_of_all_gather - gathered,
        "labels_first": by_class,
    }
    dist.barrier()
    return step


# ------------------------------------------------------------------ how it is used


def uses(rank: int, ranks: int) -> dict:
    """Local mixing, resumption, evaluation, copies."""
    x, y = torch.rand(4, 3, 6, 6), torch.randint(0, K, (4,))
    said: dict[str, Any] = {}
    local = GlobalMix(BatchMix(K, seed=3, per="sample"), neighbours=1)
    setup = local.bytes_sent
    alone = BatchMix(K, seed=3, per="sample", rank=rank)
    weights = [local(x.clone(), y)[1].weight[:, 0].tolist() for _ in range(3)]
    assert weights == [alone(x.clone(), y)[1].weight[:, 0].tolist() for _ in range(3)]
    said["local"], said["local bytes"] = weights, local.bytes_sent - setup

    mix = GlobalMix(BatchMix(K, seed=3, schedule=lambda epoch: 1.0 + epoch))
    mix.set_epoch(1)
    mix(x.clone(), y)
    saved = mix.state_dict()
    expected = mix(x.clone(), y)
    again = BatchMix(K, seed=3, schedule=lambda epoch: 1.0 + epoch)
    if rank % 2:  # a process that comes anew, others that go on
        again.load_state_dict({k.removeprefix("batch_mix."): v for k, v in saved.items()})
        again = GlobalMix(again)
    else:
        mix.load_state_dict(saved)
        again = GlobalMix(mix.batch_mix)
    assert_same(again(x.clone(), y), expected)

    mix.eval()
    before = mix.bytes_sent
    kept, target = mix(x, y)
    assert kept is x and target.weight[:, 0].eq(1).all() and mix.bytes_sent == before
    mix.train()
    block = GlobalMix(BatchMix(K), neighbours=2)._wire.group
    assert group_timeout(block, torch.device("cpu")) == datetime.timedelta(seconds=TIMEOUT)
    others = dist.new_group([0, 1])
    said["group"] = raised(lambda: GlobalMix(BatchMix(K), others)) if rank == 2 else []
    assert copy.deepcopy(mix) is mix and mix.double().batch_mix.settings.dtype == torch.float64
    said["pickle"] = raised(lambda: pickle.dumps(mix))
    with_images = mix.with_plans({"image": x.clone(), "label": y})
    said["plans"] = list(with_images[1])
    return said


_TASKS = (random_plans, kinds, wire, uses, settings, refusals, misfits, dies, stays_silent)
TASKS = {task.__name__: task for task in _TASKS}


def _rows(value, start, stop):
    if isinstance(value, dict):
        return {key: _rows(v, start, stop) for key, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_rows(v, start, stop) for v in value)
    return value[start:stop]


def run(rank: int, task: str, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), ranks)
    timeout = datetime.timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timeout)
    try:
        said = {"result": TASKS[task](rank, ranks)}
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
