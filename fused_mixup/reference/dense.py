"""The dense labels that a mixed batch stands for, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..codes import NO_IGNORE
from ..dtypes import arithmetic
from .blending import term, weight_columns


def label_columns(labels: Tensor, partner_labels: Tensor) -> tuple[Tensor, ...]:
    """The labels of each term, [B, …]: two, or k where ``partner_labels`` is [B, k-1, …]."""
    if partner_labels.ndim == labels.ndim:
        return labels, partner_labels
    return labels, *partner_labels.unbind(1)


def in_range(labels: Tensor, num_classes: int) -> Tensor:
    return (labels >= 0) & (labels < num_classes)


def dense_target(
    labels: Tensor,  # [B, …]
    partner_labels: Tensor,  # [B, …], or [B, k-1, …]
    weight: Tensor,  # [B, 2], or [B, k]
    num_classes: int,
    label_smoothing: float,
    dtype: torch.dtype,
    ignore_index: int = NO_IGNORE,
) -> Tensor:
    """Σ_k weight_k · ((1-ε) onehot(label_k) + ε/K) as [B, K, …]; NaN for labels outside [0, K).

    Terms whose label is ``ignore_index`` are left out, their share of ε too.
    """
    acc = arithmetic(dtype)
    off = label_smoothing / max(num_classes, 1)  # without classes it stands nowhere
    on = 1.0 - label_smoothing + off
    shape = [1, num_classes] + [1] * (labels.ndim - 1)
    classes = torch.arange(num_classes, device=labels.device).view(shape)
    # These stay on the host, whatever the default device: scalars serve labels on any device.
    hit_value, other_value = torch.tensor([on, off], dtype=acc, device="cpu").unbind()
    total = torch.zeros((), dtype=acc, device=labels.device)
    terms = weight_columns(weight, labels, acc), label_columns(labels, partner_labels)
    for w, y in zip(*terms, strict=True):
        hit = classes == y.unsqueeze(1)
        values = torch.where(hit, hit_value, other_value)
        total = total + torch.where(
            (y == ignore_index).unsqueeze(1), 0, term(w.unsqueeze(1), values)
        )
    poisoned = poisoned_rows(labels, partner_labels, num_classes, ignore_index)
    return torch.where(poisoned.unsqueeze(1), torch.nan, total).to(dtype).contiguous()


def poisoned_rows(
    labels: Tensor, partner_labels: Tensor, num_classes: int, ignore_index: int
) -> Tensor:
    """bool [B, …]: rows with a label outside [0, K) that is not ignored, whatever its weight."""
    good = torch.ones_like(labels, dtype=torch.bool)
    for y in label_columns(labels, partner_labels):
        good = good & (in_range(y, num_classes) | (y == ignore_index))
    return ~good
