"""The ops of labels in plain PyTorch (see the package)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..op_checks import check_label_pairs, expect
from .dense import dense_target
from .pairing import partner_rows


def label_bounds(labels: Tensor, ignore_index: int) -> Tensor:
    """int64 [2]: the smallest and the largest label that is not ignored; (0, -1) for none."""
    expect(
        not (labels.is_floating_point() or labels.is_complex()), "labels", "integers", labels.dtype
    )
    kept = labels.long()
    kept = kept[kept != ignore_index]
    if kept.numel() == 0:
        return torch.tensor([0, -1], device=labels.device)
    return torch.stack(torch.aminmax(kept))


def mix_targets(
    labels: Tensor,  # [B, …]
    partner: Tensor | None,  # [B]
    weight: Tensor,  # [B, 2]
    pairing: int,
    num_classes: int,
    label_smoothing: float,
    dtype: torch.dtype,
) -> Tensor:
    check_label_pairs(labels, pairing, partner, weight, num_classes)
    other = partner_rows(labels, partner, pairing)
    return dense_target(labels, other, weight, num_classes, label_smoothing, dtype)
