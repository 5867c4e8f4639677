"""Targets of more than two labels a row, for tests, and what they stand for."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fused_mixup import MixedTarget

CLASSES = 7


def rows(
    batch=6, count=4, inner=(), num_classes=CLASSES, smoothing=0.0, ignore=False, device="cpu"
):
    """A target with equal labels, weights of 0 and, if asked for, ignored labels."""
    labels = torch.randint(0, num_classes, (batch, count, *inner))
    weight = torch.rand(batch, count)
    labels[0, 1] = labels[0, 0]
    weight[1, 0] = weight[2, 2:] = 0.0
    if ignore:
        labels[torch.rand(labels.shape) < 0.3] = -100
        labels[3], weight[-1], labels[-1, 0] = -100, 0.0, -100
    return MixedTarget.of_labels(labels, weight, num_classes, smoothing).to(device)


def columns(target):
    """Labels [B, k, …], and weights of those that are not ignored, in float64."""
    labels = torch.cat((target.labels.unsqueeze(1), target.partner_labels), 1).cpu()
    weight = target.weight.double().cpu().view(labels.shape[:2] + (1,) * (labels.ndim - 2))
    kept = labels != target.ignore_index
    return labels, weight * kept, kept


def one_hot(target):
    """The dense target in float64 from F.one_hot."""
    labels, weight, kept = columns(target)
    k, eps = target.num_classes, target.label_smoothing
    dense = F.one_hot(labels.clamp_min(0), k).double() * (1 - eps) + eps / k
    return (dense * weight.unsqueeze(-1)).sum(1).movedim(-1, 1)
