"""The ops that mix boxes against the reference; a part of ``grid.py``."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from box_cases import counts_of, random_call, wild_call

from fused_mixup import ops, reference


def check_boxes(check: Callable, count: int) -> None:
    rng = random.Random(4)
    for k in range(count):
        dtype = (torch.float32, torch.float64)[k % 2]
        args = (wild_call if k % 3 == 0 else random_call)(rng, dtype)
        for part in zip(ops.mix_boxes(*args), reference.mix_boxes(*args), strict=True):
            check("mix_boxes", *part, k)
        rows, count, *rest = args
        counts = [min(max(n, 0), rows.shape[1]) for n in counts_of(rows, count)]
        lists = [b[:n] for b, n in zip(rows, counts, strict=True)]
        args = torch.cat([rows[:0].view(0, 4), *lists]), counts, *rest
        got, expected = ops.mix_boxes_packed(*args), reference.mix_boxes_packed(*args)
        for part in zip(got, expected, strict=True):
            check("mix_boxes_packed", *part, k)
