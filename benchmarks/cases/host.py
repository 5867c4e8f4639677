"""Times the host's part of a call, on tensors so small that nothing else counts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan

from ..goals import BARE
from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, SMOOTHING, our_providers, reference


def mixing(case: Case, device: str) -> Work:
    x = torch.randn(case.shape, device=device)
    run = partial(fm.mix_, plan=MixPlan.uniform(len(x), "flip", LAM))
    return Work([x], our_providers(run, device) | launch(x), reference(run))


def loss(case: Case, device: str) -> Work:
    rows, num_classes = case.shape
    z = torch.randn(case.shape, device=device).requires_grad_()
    labels = torch.randint(0, num_classes, (rows,), device=device)
    plan = MixPlan.uniform(rows, "flip", LAM)
    target = MixedTarget.from_labels(labels, plan, num_classes, SMOOTHING)

    def gradient(z: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(fm.soft_target_cross_entropy(z, target), z)[0]

    return Work([z], our_providers(gradient, device, (1e-5, 1e-6)) | launch(z), reference(gradient))


def launch(like: torch.Tensor) -> dict[str, Provider | str]:
    zeroed = torch.empty_like(like, requires_grad=False)
    return {BARE: Provider(lambda _: zeroed.zero_(), checked=False)}


def cases(device: str) -> Iterator[Case]:
    dtype, small = torch.float32, (8, 3, 8, 8)
    goals = ("cuda host op",) if device == "cuda" else ()
    peers = (OURS_TRITON, BARE)
    yield Case("mix_", "flip", small, dtype, mixing, "host", peers, clock="host", goals=goals)
    goals = ("cuda host both",) if device == "cuda" else ()
    op = "soft_target_cross_entropy"
    yield Case(op, "fwd+bwd", (8, 10), dtype, loss, "host", peers, clock="host", goals=goals)
