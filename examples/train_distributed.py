"""Training on several processes whose samples mix with each other: the curve of one process.

    torchrun --nproc-per-node 4 examples/train_distributed.py [--epochs 5] [--pairing shuffle]
    python examples/train_distributed.py  # one process with the whole batch, to compare

Each process holds a part of every batch of scikit-learn's digits; partners lie anywhere. What each
process has sent is printed beside what gathering all batches would send. Needs no network.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if __name__ == "__main__":  # started as a file, not as a module
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.demo_data import digits
from fused_mixup import BatchMix, soft_target_cross_entropy
from fused_mixup.distributed import GlobalMix

BATCH = 128  # of all processes


def network() -> nn.Module:
    """A small network without batch norm, whose statistics would be those of one process."""

    def block(inputs: int, outputs: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        return nn.Sequential(convolution, nn.GroupNorm(4, outputs), nn.ReLU())

    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(block(3, 16), block(16, 32), block(32, 64), pool, nn.Linear(64, 10))


def main(argv: list[str] | None = None, size: int = 32) -> list[float]:
    """Trains and prints; returns the mean loss of every epoch."""
    args = parse(argv)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not alone:
        # A process that fails makes the others raise within this time.
        dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    rank, ranks = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
    torch.set_num_threads(max((os.cpu_count() or 1) // ranks, 1))
    data = digits(size, torch.device("cpu"))
    torch.manual_seed(0)
    net = network()
    mix: nn.Module = BatchMix(
        num_classes=10, mixup_alpha=0.8, cutmix_alpha=1.0, pairing=args.pairing, seed=args.seed
    )
    if not alone:
        net, mix = DistributedDataParallel(net), GlobalMix(mix)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)

    curve = []
    for epoch in range(args.epochs):
        mix.set_epoch(epoch)
        order = torch.randperm(
            len(data.train_labels), generator=torch.Generator().manual_seed(epoch)
        )
        losses = []
        for batch in order.split(BATCH):
            rows = batch.tensor_split(ranks)[rank]  # the last batch: parts of two sizes
            x, target = mix(data.train_images[rows], data.train_labels[rows])
            # The gradients of all processes are averaged: each loss counts by its samples.
            loss = soft_target_cross_entropy(net(x), target) * (len(rows) * ranks / len(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        curve.append(mean_of_ranks(torch.stack(losses).mean(), ranks))
        if rank == 0:
            print(f"epoch {epoch + 1}  loss {curve[-1]:.6f}")
    if rank == 0:
        hits = net(data.test_images).argmax(1) == data.test_labels
        print(f"test accuracy {hits.float().mean():.1%}")
    if not alone:
        ours, usual = mix.bytes_sent / 1e6, mix.bytes_of_all_gather / 1e6
        said = (
            f"rank {rank} sent {ours:.1f} MB; an all-gather of the batches would send {usual:.1f}"
        )
        print(f"{said} MB\n", end="")  # in one piece, as all ranks print
        del net, optimizer  # before its group: a wrapped network that outlives it may hang
        dist.destroy_process_group()
    return curve


def mean_of_ranks(loss: Tensor, ranks: int) -> float:
    if ranks > 1:
        dist.all_reduce(loss)
    return float(loss) / ranks


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--epochs", type=int, default=5)
    pairings = ("flip", "roll", "shuffle", "derangement", "cross_class")
    parser.add_argument("--pairing", default="shuffle", choices=pairings)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
