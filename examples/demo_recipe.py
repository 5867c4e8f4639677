"""Three ways of one training step: no mixing, MixUp/CutMix in eager PyTorch, and fused_mixup.

A way is two functions. ``mix(x, draw)`` changes the batch in place and returns λ or the plan, which
``loss(logits, labels, mixed)``, the soft-target cross-entropy, takes as ``mixed``. Nothing else of
the training differs. The caller makes the draws, the same for all ways.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import fused_mixup
from fused_mixup import MixedTarget, MixPlan

NUM_CLASSES = 10
LABEL_SMOOTHING = 0.1
MIXUP_ALPHA, CUTMIX_ALPHA = 0.8, 1.0  # the usual modern recipe, with smoothing 0.1


@dataclass(frozen=True)
class Draw:
    """The draw for one batch: λ, and for CutMix a box (y0, x0, y1, x1)."""

    lam: float
    box: tuple[int, ...] | None

    @property
    def kind(self) -> str:
        return "MixUp" if self.box is None else "CutMix"


def draw(rng: random.Random, size: int) -> Draw:
    """MixUp or CutMix with equal probability; λ ~ Beta(α, α), for CutMix corrected to the box."""
    if rng.random() < 0.5:
        return Draw(rng.betavariate(MIXUP_ALPHA, MIXUP_ALPHA), None)
    lam = rng.betavariate(CUTMIX_ALPHA, CUTMIX_ALPHA)
    center = rng.randrange(size), rng.randrange(size)
    box, lam = fused_mixup.cutmix_box((size, size), lam, center)
    return Draw(lam, box)


@dataclass(frozen=True)
class Way:
    name: str
    mix: Callable
    loss: Callable


# ------------------------------------------------------------------------------- no mixing


def mix_nothing(x: Tensor, draw: Draw) -> None:
    pass


def loss_of_labels(logits: Tensor, labels: Tensor, mixed: None) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)


# ------------------------------------------------------------------------------- eager PyTorch


def mix_eager(x: Tensor, draw: Draw) -> float:
    """The lines of timm's Mixup in batch mode."""
    if draw.box is not None:
        y0, x0, y1, x1 = draw.box
        x[:, :, y0:y1, x0:x1] = x.flip(0)[:, :, y0:y1, x0:x1]
    else:
        x_flipped = x.flip(0).mul_(1.0 - draw.lam)
        x.mul_(draw.lam).add_(x_flipped)
    return draw.lam


def loss_eager(
    logits: Tensor, labels: Tensor, lam: float, num_classes: int = NUM_CLASSES
) -> Tensor:
    """timm's mixup_target and SoftTargetCrossEntropy: a dense [B, K] target."""
    off = LABEL_SMOOTHING / num_classes
    on = 1.0 - LABEL_SMOOTHING + off
    y1 = _one_hot(labels, num_classes, on, off)
    y2 = _one_hot(labels.flip(0), num_classes, on, off)
    target = y1 * lam + y2 * (1.0 - lam)
    return torch.sum(-target * F.log_softmax(logits, dim=-1), dim=-1).mean()


def _one_hot(labels: Tensor, num_classes: int, on: float, off: float) -> Tensor:
    rows = torch.full((len(labels), num_classes), off, device=labels.device)
    return rows.scatter_(1, labels.view(-1, 1), on)


# ------------------------------------------------------------------------------- fused_mixup


def mix_fused(x: Tensor, draw: Draw) -> MixPlan:
    plan = MixPlan.uniform(len(x), "flip", draw.lam, draw.box)
    fused_mixup.mix_(x, plan)
    return plan


def loss_fused(
    logits: Tensor, labels: Tensor, plan: MixPlan, num_classes: int = NUM_CLASSES
) -> Tensor:
    target = MixedTarget.from_labels(labels, plan, num_classes, LABEL_SMOOTHING)
    return fused_mixup.soft_target_cross_entropy(logits, target)


NO_MIXING = Way("no mixing", mix_nothing, loss_of_labels)
EAGER = Way("eager PyTorch", mix_eager, loss_eager)
FUSED = Way("fused_mixup", mix_fused, loss_fused)
