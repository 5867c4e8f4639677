"""Times draw_plan and random_erasing on the batch's device, against mixing that batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import fused_mixup as fm
from fused_mixup import Erasing, MixPlan

from ..goals import MIXING
from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, our_providers, reference


def draw(case: Case, device: str) -> Work:
    """One draw per call. Each call copies the state first, so that all providers draw the same."""
    batch_size, *_, height, width = case.shape
    per, pairing = case.variant.split(" ")
    states = [fm.plan_state(seed, device=device) for seed in range(4)]
    settings = fm.plan_settings(mixup_alpha=0.8, cutmix_alpha=1.0, device=device)
    labels = torch.randint(0, 100, (batch_size,), device=device)
    needed = labels if pairing == "cross_class" else None

    def run(state: torch.Tensor) -> MixPlan:
        size, state = (height, width), state.clone()
        kinds = {"per": per, "pairing": pairing, "labels": needed}
        return fm.draw_plan(batch_size, size, state=state, settings=settings, **kinds)

    def select(plan: MixPlan) -> torch.Tensor:
        return torch.cat((plan.partner[:, None], plan.weight, plan.blend, plan.box), 1)

    x = torch.randn(case.shape, device=device)
    plan = MixPlan.uniform(batch_size, "flip", LAM)
    providers = our_providers(run, device)
    providers[MIXING] = Provider(lambda _: fm.mix_(x, plan), checked=False)
    expected = reference(run)
    return Work(states, providers, lambda state: select(expected(state)), select=select)


def erase(case: Case, device: str) -> Work:
    """One draw per call, as of plans."""
    batch_size, *_, height, width = case.shape
    states = [fm.plan_state(seed, device=device) for seed in range(4)]
    settings = fm.erasing_settings(device=device)
    options = {"settings": settings, "mode": case.variant, "max_count": 1}

    def run(state: torch.Tensor) -> Erasing:
        return fm.random_erasing(batch_size, (height, width), state=state.clone(), **options)

    def select(erasing: Erasing) -> torch.Tensor:
        fill = erasing.noise if erasing.value is None else erasing.value
        assert fill is not None
        return torch.cat((erasing.box.flatten().double(), fill.flatten().double()))

    providers = our_providers(run, device)
    expected = reference(run)
    return Work(states, providers, lambda state: select(expected(state)), select=select)


def cases(device: str) -> Iterator[Case]:
    shape, peers = (256, 3, 224, 224), (OURS_TRITON, MIXING)
    for variant in ("sample flip", "sample shuffle", "sample cross_class"):
        goals = (f"{device} draw",)
        yield Case("draw_plan", variant, shape, torch.float32, draw, "draw", peers, goals=goals)
    yield Case("random_erasing", "rand", shape, torch.float32, erase, "draw", (OURS_TRITON,))
