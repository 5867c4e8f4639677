"""What GlobalMix sends on many ranks, by simulation: ``python -m benchmarks.traffic``.

The plans are those that a training would draw; nothing is sent. docs/distributed.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fused_mixup import BatchMix
from fused_mixup.distributed import global_plan

BATCH, SHAPE, DTYPE = 256, (3, 224, 224), torch.uint8
RANKS = (8, 64, 256, 1024)
WAYS: dict[str, tuple[dict[str, Any], int | None]] = {
    "flip": ({}, None),
    "roll": ({"pairing": "roll"}, None),
    "shuffle": ({"pairing": "shuffle"}, None),
    "shuffle, `neighbours=8`": ({"pairing": "shuffle"}, 8),
}
MODES = {
    "MixUp": {},
    "CutMix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "per": "sample"},
}
SAMPLED = 4  # ranks of each world, and steps


def rows() -> Iterator[list[str]]:
    """A row for each pairing: MB that a rank sends in a step, MixUp and CutMix, by ranks."""
    for name, (options, neighbours) in WAYS.items():
        row = [name]
        for ranks in RANKS:
            if name == "shuffle" and ranks * BATCH > 1 << 16:
                row.append("–")
                continue
            sent = (mean(ranks, {**mode, **options}, neighbours) for mode in MODES.values())
            row.append(" / ".join(f"{megabytes:.1f}" for megabytes in sent))
        yield row
    size = BATCH * torch.Size(SHAPE).numel() * DTYPE.itemsize / 1e6
    yield ["all-gather", *(f"{(ranks - 1) * size:,.0f}" for ranks in RANKS)]


def mean(ranks: int, options: dict[str, Any], neighbours: int | None) -> float:
    mix = BatchMix(1000, **options)
    total = 0
    for step in range(SAMPLED):
        for rank in range(0, ranks, ranks // SAMPLED):
            place = {"neighbours": neighbours, "step": step}
            plan = global_plan(mix, (BATCH,) * ranks, rank, SHAPE[1:], **place)
            total += plan.traffic(SHAPE, DTYPE).sent
    return total / SAMPLED**2 / 1e6


def table() -> str:
    lines = [["MB a rank and step", *(f"{ranks:,} ranks" for ranks in RANKS)]]
    lines += [["---"] * len(lines[0]), *rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table())
