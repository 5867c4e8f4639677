"""Runs two processes of one group, each with a BatchMix; writes their draws to files in argv[1].

This program forks both, since importing everything twice would take longer than the rest.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader

import fused_mixup as fm
from fused_mixup import BatchMix
from fused_mixup.codes import STREAM_WORD

OPTIONS = {"per": "sample", "seed": 3}


def weights(plan):
    return plan.weight[:, 0].tolist()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.mix = nn.Linear(3, 2), BatchMix(2, **OPTIONS)
        self.seen = []

    def forward(self, x):
        x, target = self.mix(x, torch.arange(4) % 2)
        self.seen.append(target.weight[:, 0].tolist())
        return fm.soft_target_cross_entropy(self.net(x), target)


class Data:
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.zeros(3), i % 2


def collate_in(context):
    mix = BatchMix(2, **OPTIONS)
    mix.set_epoch(0)
    loader = DataLoader(
        Data(), 4, num_workers=1, collate_fn=mix.collate, multiprocessing_context=context
    )
    return next(iter(loader))[1].weight[:, 0].tolist()


def work(rank, place):
    os.environ.pop("RANK", None)
    early, model = BatchMix(2, **OPTIONS), Model()
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)
    said = {"rank": early.rank, "early": [weights(early.draw(4)) for _ in range(2)]}
    wrapped = nn.parallel.DistributedDataParallel(model)
    for _ in range(2):
        wrapped(torch.rand(4, 3)).backward()
    said["wrapped"] = model.seen
    said["saved"] = int(early.state_dict()["_extra_state"][STREAM_WORD])
    said["given"] = BatchMix(2, rank=7).rank
    said["worker"] = collate_in("spawn")
    (place / str(rank)).write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.start_processes(work, (Path(sys.argv[1]),), nprocs=2, start_method="fork")
