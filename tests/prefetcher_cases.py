"""Batches for the tests of Prefetcher, and the parts that it is made of."""

from __future__ import annotations

import torch

import fused_mixup as fm
from fused_mixup import MixedTarget

K = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIX = {"num_classes": K, "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "per": "sample"}
CONSTANTS = {"mean": MEAN, "std": STD}


def images(b=4, h=10, w=12, seed=0, c=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, (b, c, h, w), generator=g, dtype=torch.uint8)


def pairs(count=3, **kw):
    return [(images(seed=i, **kw), torch.arange(4) + i) for i in range(count)]


def mixed_by_hand(mix, x, labels, order="after", **kw):
    plan = mix.draw(len(x), x.shape[2:])
    y = fm.mix_normalize(x, plan, **CONSTANTS, mix=order, **kw)
    return y, MixedTarget.from_labels(labels, plan, K)
