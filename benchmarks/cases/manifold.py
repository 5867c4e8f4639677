"""Times Manifold Mixup: the blend of a hidden state with its backward, and what its hooks cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import fused_mixup as fm
from fused_mixup import ManifoldMixup, MixedTarget, MixPlan

from ..registry import OURS, OURS_TRITON, Case, Provider, Work
from ..sides import LAM, our_providers, reference, rounding
from ..timing import rotate

HIDDEN = (64, 256, 56, 56)  # behind the first stage of a ResNet-50
CLASSES = 10


def with_backward(mixing: Callable[[Tensor], Tensor], gradient: Tensor) -> Callable[[Tensor], Any]:
    def run(h: Tensor) -> tuple[Tensor, Tensor]:
        mixed = mixing(h)
        return mixed.detach(), torch.autograd.grad(mixed, h, gradient)[0]

    return run


def blend(case: Case, device: str) -> Work:
    """Forward and backward, with random partners, as the paper's code draws them."""
    order = torch.randperm(case.shape[0], device=device)
    gradient = torch.randn(case.shape, device=device).to(case.dtype)
    plan = MixPlan.uniform(case.shape[0], order, LAM)
    hs = rotate(lambda: torch.randn(case.shape, device=device).to(case.dtype).requires_grad_())

    def plain(h: Tensor) -> Tensor:  # vikasverma1077/manifold_mixup, mixup_process
        return h * LAM + h[order] * (1 - LAM)

    ours = with_backward(lambda h: fm.mix(h, plan), gradient)
    tolerance = rounding(case.dtype)
    providers = our_providers(ours, device, tolerance)
    providers["plain PyTorch"] = Provider(with_backward(plain, gradient), tolerance)
    size = 2 * hs[0].numel() * hs[0].element_size()
    return Work(hs, providers, reference(ours), size, size)


class Layers(nn.Module):
    """A model of four layers that do nothing; ``plan`` mixes behind the third."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Identity() for _ in range(4)))
        self.plan: MixPlan | None = None

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i == 2 and self.plan is not None:
                x = fm.mix(x, self.plan)
        return x


def call(case: Case, device: str) -> Work:
    """A call, against the same draws, mix and target written into the model."""
    batch_size = case.shape[0]
    xs = [torch.randn(case.shape, device=device)]
    labels = torch.arange(batch_size, device=device) % CLASSES
    training = case.variant == "training"
    hooked, by_hand = Layers().train(training), Layers().train(training)
    names = [f"layers.{i}" for i in range(4)]
    manifold = ManifoldMixup(hooked, names, include_input=False)
    state = fm.plan_state(0, device=device)
    settings = fm.plan_settings(mixup_alpha=2.0)

    def plain(x: Tensor) -> object:
        if not training:
            return by_hand(x)
        by_hand.plan = plan = fm.draw_plan(batch_size, state=state, settings=settings)
        logits = by_hand(x)
        return logits, MixedTarget.from_labels(labels, plan, logits.shape[1])

    providers: dict[str, Provider | str] = {
        OURS: Provider(lambda x: manifold(x, labels), checked=False),
        "by hand": Provider(plain, checked=False),
    }
    return Work(xs, providers, lambda x: None)


def cases(device: str) -> Iterator[Case]:
    dtypes = (torch.float32,) if device == "cpu" else (torch.float32, torch.bfloat16)
    for dtype in dtypes:
        goals = ("cpu manifold",) if device == "cpu" else ()
        yield Case(
            "manifold blend",
            "forward and backward",
            HIDDEN,
            dtype,
            blend,
            "manifold",
            (OURS_TRITON, "plain PyTorch"),
            goals=goals,
        )
    for variant in ("training", "eval"):
        yield Case(
            "ManifoldMixup",
            variant,
            (8, CLASSES),
            torch.float32,
            call,
            "manifold calls",
            ("by hand",),
            clock="host",
        )
