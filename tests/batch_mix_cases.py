"""Batches for the tests of BatchMix, and functions that run and compare its steps."""

from __future__ import annotations

import torch

K = 10
BOTH = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


def batch(device="cpu", n=6, size=8):
    x = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n)).to(device)
    return x, (torch.arange(n, device=device) * 7) % K


def tensors(target):
    return target.labels, target.partner_labels, target.weight


def run(mix, steps, device="cpu"):
    """Run ``steps`` steps and list the tensors that they return."""
    out = []
    for _ in range(steps):
        x, target = mix(*batch(device))
        out += [x, *tensors(target)]
    return out


def equal(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))
