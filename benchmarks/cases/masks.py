"""Times mixing by a mask: stored masks against eager lines, and every kind against plain MixUp.

Both sides do the whole work of a step: pair, mask, mixed images, mixed labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fused_mixup as fm
from fused_mixup import MixedTarget, MixPlan
from fused_mixup.masks import MixMask, fmix_mask, gauss_mask, grid_mask, stored_mask

from ..goals import PLAIN
from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import LAM, our_providers, reference, rounding
from ..timing import rotate

CLASSES = 1000
GRID = 14  # patches along a side, of a ViT at 224²


def batches(case: Case, device: str) -> list[Tensor]:
    return rotate(lambda: torch.randn(case.shape, device=device).to(case.dtype))


# ------------------------------------------------------------------ stored masks, whole step


def eager_step(
    x: Tensor, y: Tensor, small: Tensor, order: Tensor, mode: str, sigmoid: bool
) -> tuple[Tensor, Tensor]:
    """The lines of AttentiveMix (nearest) and AutoMix (bilinear, sigmoid), with λ of each sample.

    https://github.com/Westlake-AI/openmixup, attentivemix.py and automix.py.
    """
    mask = F.interpolate(small, size=x.shape[-2:], mode=mode)
    if sigmoid:
        mask = torch.sigmoid(mask)
    mixed = mask * x + (1 - mask) * x[order]
    lam = mask.mean((1, 2, 3))[:, None]
    hot = F.one_hot(y, CLASSES).float()
    return mixed, lam * hot + (1 - lam) * hot[order]


def our_step(
    x: Tensor, y: Tensor, small: Tensor, order: Tensor, mode: str, sigmoid: bool
) -> tuple[Tensor, MixedTarget]:
    mask = stored_mask(small, mode, "sigmoid" if sigmoid else "identity")
    plan = MixPlan.uniform(len(x), order, 1.0).with_mask(mask)
    plan = plan.with_weight(mask.mean(x.shape[-2:]))
    return fm.mix(x, plan), MixedTarget.from_labels(y, plan, num_classes=CLASSES)


def dense(result: tuple[Tensor, Any]) -> tuple[Tensor, Tensor]:
    mixed, target = result
    return mixed, target.dense() if isinstance(target, MixedTarget) else target


def stored(case: Case, device: str) -> Work:
    """Masks of GRID × GRID: 0 or 1 and nearest, or logits, bilinear and a sigmoid."""
    batch_size = case.shape[0]
    sigmoid = "sigmoid" in case.variant
    small = torch.randn(batch_size, 1, GRID, GRID, device=device)
    if not sigmoid:
        small = (small > 0).float()
    order = torch.randperm(batch_size, device=device)
    y = torch.randint(0, CLASSES, (batch_size,), device=device)
    rest = {
        "y": y,
        "small": small,
        "order": order,
        "mode": "bilinear" if sigmoid else "nearest",
        "sigmoid": sigmoid,
    }
    # Sums of a mask are added in another order; the sigmoid is the package's own.
    tolerance = (1e-5, 1e-5)
    ours, eager = partial(our_step, **rest), partial(eager_step, **rest)
    providers = our_providers(ours, device, tolerance) | {"eager": Provider(eager, tolerance)}
    return Work(batches(case, device), providers, eager, select=dense)


# ------------------------------------------------------------------ every kind against MixUp


def gauss(batch_size: int, size: tuple[int, int], device: str) -> MixMask:
    extent = torch.tensor(size, device=device)
    center = torch.rand(batch_size, 2, device=device) * extent
    return gauss_mask(center, (torch.rand(batch_size, device=device) / 4 + 0.25) * size[0], size)


def grid(batch_size: int, size: tuple[int, int], device: str) -> MixMask:
    height, width = size
    period = max(width // 5, 2)
    crop, hole = (width - 2, height - 2), (period // 2, period // 2)
    return grid_mask(torch.tensor((1, 1, *crop, period, period, *hole), device=device), size)


def fmix(batch_size: int, size: tuple[int, int], device: str) -> MixMask:
    normals = torch.randn(batch_size, 2, size[1] // 2 + 1, 2, device=device, dtype=torch.float64)
    count = torch.full((batch_size,), int(size[0] * size[1] * LAM), device=device)
    return fmix_mask(normals, count, size)


def nearest(batch_size: int, size: tuple[int, int], device: str) -> MixMask:
    return stored_mask(torch.rand(batch_size, 1, GRID, GRID, device=device) > 0.5)


def bilinear(batch_size: int, size: tuple[int, int], device: str) -> MixMask:
    return stored_mask(torch.rand(batch_size, 1, GRID, GRID, device=device), "bilinear")


KINDS: dict[str, Callable[[int, tuple[int, int], str], MixMask]] = {
    "gauss": gauss,
    "grid": grid,
    "FMix": fmix,
    "stored 14², nearest": nearest,
    "stored 14², bilinear": bilinear,
}


def by_mask(case: Case, device: str) -> Work:
    """The op alone, under a plan that is there, in place or with any partners, beside MixUp."""
    kind, in_place = case.variant.rsplit(", ", 1)
    batch_size, _, height, width = case.shape
    flips = in_place == "flip"
    order: Any = "flip" if flips else torch.randperm(batch_size, device=device)
    plain = MixPlan.uniform(batch_size, order, LAM, device=device)
    mask = KINDS[kind](batch_size, (height, width), device)
    run = fm.mix_ if flips else fm.mix
    ours, theirs = (partial(run, plan=plan) for plan in (plain.with_mask(mask), plain))
    m = mask.dense((height, width)).to(case.dtype)

    def equation(x: Tensor) -> Tensor:
        partner = x.flip(0) if flips else x[order]
        return m * x + (1 - m) * partner

    tolerance = rounding(case.dtype)
    providers = our_providers(ours, device, tolerance)
    providers |= {"eager": Provider(equation, tolerance), PLAIN: Provider(theirs, checked=False)}
    xs = batches(case, device)
    size = xs[0].numel() * xs[0].element_size()
    expected = reference(partial(fm.mix, plan=plain.with_mask(mask)))
    return Work(xs, providers, expected, size, size)


def cases(device: str) -> Iterator[Case]:
    shape = (64, 3, 224, 224) if device == "cpu" else (256, 3, 224, 224)
    dtype = torch.float32
    for variant in ("14², nearest", "14², bilinear, sigmoid"):
        goals = ("cpu stored mask",) if device == "cpu" else ()
        peers = (OURS_TRITON, "eager")
        yield Case("stored mask", variant, shape, dtype, stored, "masks", peers, goals=goals)
    for kind in KINDS:
        for pairing in ("flip", "permutation"):
            goals = (f"cpu mask {pairing}",) if device == "cpu" else ()
            peers = (OURS_TRITON, "eager", PLAIN)
            variant = f"{kind}, {pairing}"
            yield Case("mix by mask", variant, shape, dtype, by_mask, "masks", peers, goals=goals)
