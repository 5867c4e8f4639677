"""Times fused_mixup.openmixup against the real OpenMixup: whole calls with the same draws.

A call draws, makes the mask, mixes and pairs labels. OpenMixup runs from its files on the CPU
(installed_openmixup.py), with the settings of its own configurations.
"""

# ruff: noqa: NPY002  (the legacy generator is the one that OpenMixup draws from)

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fused_mixup as fm
from fused_mixup import PatchPlan, openmixup
from fused_mixup.openmixup.puzzle_transport import transport

from .. import installed_openmixup
from ..registry import OURS, Case, Provider, Work
from ..sides import reference, rounding
from ..timing import rotate

CLASSES = 1000
GRID = 14  # cells along a side of AttentiveMix's map, as of a ViT at 224²
SEEDS = 16
PEER = "OpenMixup"
SEED_TORCH = torch.default_generator.manual_seed

SETTINGS: dict[str, dict[str, Any]] = {
    "fmix": {"alpha": 1.0, "decay_power": 3},
    # A drawn crop may be longer than the image: then ours is right and OpenMixup is not, and they
    # differ. That of the first seed, whose results are compared, fits.
    "gridmix": {
        "alpha": 1.0,
        "n_holes": (2, 6),
        "hole_aspect_ratio": 1.0,
        "cut_area_ratio": (0.5, 1),
        "cut_aspect_ratio": (0.5, 2),
    },
    "smoothmix": {"alpha": 1.0},
    "resizemix": {"alpha": 1.0, "scope": (0.1, 0.8), "use_alpha": True},
    "attentivemix": {"alpha": 2.0, "top_k": None},
    "mixup": {"alpha": 1.0},
    "cutmix": {"alpha": 1.0},
}


@cache
def seeds(batch_size: int) -> tuple[int, ...]:
    """Seeds whose first permutation moves every sample.

    After another one OpenMixup 0.2.10 and ours draw a new permutation, OpenMixup 0.2.9 does not.
    """
    found: list[int] = []
    rows, seed = torch.arange(batch_size), 0
    while len(found) < SEEDS:
        generator = torch.Generator().manual_seed(seed)
        if bool((torch.randperm(batch_size, generator=generator) != rows).all()):
            found.append(seed)
        seed += 1
    return tuple(found)


def seeded(run: Callable, numbers: Sequence[int]) -> Callable:
    """Seeds the three generators before each call, so that all providers draw the same."""
    turn = cycle(numbers)

    def call(x: Tensor) -> Any:
        seed = next(turn)
        np.random.seed(seed)
        random.seed(seed)
        SEED_TORCH(seed)
        return run(x)

    return call


def own_share(result: Any) -> Any:
    """SmoothMix's result with the label weight of the sample: OpenMixup returns the partner's."""
    mixed, (y_a, y_b, lam) = result
    return mixed, (y_a, y_b, 1 - lam)


def flat(result: Any) -> tuple[Tensor, ...]:
    mixed, (y_a, y_b, lam) = result
    return mixed, y_a, y_b, torch.as_tensor(lam).double()


def peer(name: str) -> Callable | str:
    """OpenMixup's function, or why it is missing."""
    reason = installed_openmixup.reason_missing()
    if reason is not None:
        return reason
    found = installed_openmixup.mix(name)
    return found or f"OpenMixup {installed_openmixup.version()} has no {name} that imports"


def whole_call(case: Case, device: str) -> Work:
    batch_size, size = case.shape[0], case.shape[-2:]
    numbers = seeds(batch_size)
    options = dict(SETTINGS[case.op])
    if case.op == "fmix":
        options["size"] = tuple(size)
    if case.op == "attentivemix":
        options["features"] = torch.randn(batch_size, 1, GRID, GRID)
    y = torch.randint(0, CLASSES, (batch_size,))

    def bind(function: Callable) -> Callable:
        return lambda x: function(x, y, **options)

    ours, theirs = bind(getattr(openmixup, case.op)), peer(case.op)
    xs = rotate(lambda: torch.randn(case.shape))
    # OpenMixup's g and 1 - g are our 1 - (1 - g) and 1 - g.
    tolerance = rounding(case.dtype) if case.op == "smoothmix" else None
    if isinstance(theirs, str):
        providers: dict[str, Provider | str] = {PEER: theirs}
        expected = reference(ours)
    else:
        their_call = bind(theirs)
        if case.op == "smoothmix":
            their_call = lambda x: own_share(bind(theirs)(x))  # noqa: E731
        providers = {PEER: Provider(seeded(their_call, numbers), tolerance)}
        expected = their_call
    providers[OURS] = Provider(seeded(ours, numbers), tolerance)
    first = seeded(expected, numbers[:1])  # the check is the first call of a provider
    return Work(xs, providers, lambda x: flat(first(x)), select=flat)


# ------------------------------------------------------------------ PuzzleMix without its graph cut


def one_hot_plan(index: Tensor) -> Tensor:
    """OpenMixup's plan [B, n, n], 1 where patch i goes to place j, of ``index`` [B, g, g]."""
    index = index.flatten(1)
    batch_size, n = index.shape
    plan = torch.zeros(batch_size, n + 1, n)  # places without a patch have the row that is cut off
    plan.scatter_(1, torch.where(index < 0, n, index)[:, None], 1)
    return plan[:, :n].contiguous()


def puzzle(case: Case, device: str) -> Work:
    """Patches moved and blended under given masks; "planned" makes the plan of the moves too."""
    batch_size, width = case.shape[0], case.shape[-1]
    grid, planned = int(case.variant.partition("²")[0]), "planned" in case.variant
    mask = torch.randint(0, 3, (batch_size, grid, grid)) / 2
    order = torch.randperm(batch_size)
    saliency = torch.rand(batch_size, grid, grid) ** 4
    saliency = saliency / saliency.sum((1, 2), keepdim=True)
    y = torch.randint(0, CLASSES, (batch_size,))
    eps = 0.8

    def plan_moves() -> tuple[Tensor, Tensor]:
        return transport(mask, saliency, eps), transport(1 - mask, saliency[order], eps)

    given = plan_moves()

    def ours(x: Tensor) -> Any:
        index, partner_index = plan_moves() if planned else given
        plan = PatchPlan(index, mask=mask, partner=order, partner_index=partner_index)
        return fm.mix_patches(x, plan), (y, y[order], plan.weight[:, 0])

    xs = rotate(lambda: torch.randn(case.shape))
    providers: dict[str, Provider | str] = {OURS: Provider(ours)}
    reason = installed_openmixup.reason_missing()
    if reason is not None:
        providers[PEER] = reason
        return Work(xs, providers, lambda x: flat(reference(ours)(x)), select=flat)
    theirs = installed_openmixup.load_file("puzzlemix")
    their_plans = tuple(map(one_hot_plan, given))

    def their_lines(x: Tensor) -> Any:  # of puzzlemix(), behind the graph cut
        own, partner, m = x.clone(), x[order].clone(), mask[:, None]
        plans = their_plans
        if planned:
            plans = (
                theirs.mask_transport(m, saliency, eps=eps),
                theirs.mask_transport(1 - m, saliency[order], eps=eps),
            )
        for i in range(0, batch_size, 16):  # the batches of its configuration for ImageNet
            at = slice(i, min(i + 16, batch_size))
            own[at] = theirs.transport_image(own[at], plans[0][at], grid, width // grid)
            partner[at] = theirs.transport_image(partner[at], plans[1][at], grid, width // grid)
        m = torch.nn.functional.interpolate(m, size=width)
        lam = m.reshape(batch_size, -1).mean(-1)
        return m * own + (1 - m) * partner, (y, y[order], lam)

    def without_cuda(x: Tensor) -> Any:
        with installed_openmixup.without_cuda():
            return their_lines(x)

    providers[PEER] = Provider(without_cuda)
    return Work(xs, providers, lambda x: flat(without_cuda(x)), select=flat)


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":  # OpenMixup runs on a GPU as it is: the adapter is of the CPU
        return
    make = partial(Case, shape=(64, 3, 224, 224), dtype=torch.float32, peers=(PEER,))
    for name in SETTINGS:
        variant = f"map of {GRID}²" if name == "attentivemix" else "whole call"
        goals = () if name in ("mixup", "cutmix") else (f"cpu {name}",)
        yield make(name, variant, build=whole_call, group="openmixup", goals=goals)
    for variant in ("4² patches", "4² patches, planned", "8² patches"):
        rare = variant.startswith("8²")  # OpenMixup takes seconds
        options = {"build": puzzle, "group": "puzzlemix", "goals": ("cpu puzzlemix",)}
        yield make("puzzlemix", variant, full=rare, **options)
