"""soft_target_cross_entropy with its gradient, and PyTorch's in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import fused_mixup as fm
from fused_mixup import MixedTarget


def truth(logits, target, **kw):
    """F.cross_entropy and its gradient in float64, from the same rounded inputs."""
    z = logits.detach().cpu().double().requires_grad_()
    dense = target.dense(torch.float64) if isinstance(target, MixedTarget) else target
    loss = F.cross_entropy(z, dense.detach().cpu().double(), **kw)
    (grad,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), grad


def ours(logits, target, **kw):
    z = logits.detach().requires_grad_()
    loss = fm.soft_target_cross_entropy(z, target, **kw)
    (grad,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), grad
