"""The focal losses of one class in plain PyTorch, and their derivatives (see the package).

Softmax, with q = 1 - p and r = -p log p / q, which runs from 0 at p = 0 to 1 at p = 1:
    loss   f = q^γ (-log p)
    slope  h = -p f'(p) = q^γ (1 + γ r)              d Σ u f / d z = p Σ u h - u h
    curve  k =  p h'(p) = γ q^γ (r + (p/q) ((1-γ) r - 2))
At q = 0 all three are 0 (γ > 0). Where p underflows, f = -log p and h = 1.

Binary, with s = softplus(-x) = -log σ(x), so that (1 - σ(x))^γ = exp(-γ softplus(x)):
    loss   F = (1 - σ)^γ s
    slope  S = F'(x) = -(1 - σ)^γ (γ σ s + 1 - σ)
    curve  S'(x) = (1 - σ)^γ σ (γ² σ s + (1 - σ) (1 + 2γ - γ s))
of a label that is there; one that is absent has F(-x), -S(-x) and S'(-x).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def _factor(log_p: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """p, q and q^γ. Autograd meets no infinite derivative: q^γ is constant at both ends of p."""
    p, q = log_p.exp(), -torch.expm1(log_p)
    inside = (p != 0) & (q != 0)
    power = torch.where(inside, q, 0.5) ** gamma
    return p, q, torch.where(inside, power, torch.where(q == 0, 0.0, 1.0).to(q.dtype))


def focal_loss(log_p: Tensor, gamma: float) -> Tensor:
    return -_factor(log_p, gamma)[2] * log_p


def _ratio(log_p: Tensor, p: Tensor, q: Tensor) -> Tensor:
    inside = (p != 0) & (q != 0)
    ratio = torch.where(inside, -p * log_p, 0.0) / torch.where(inside, q, 1.0)
    return torch.where(q == 0, 1.0, ratio)


def focal_slope(log_p: Tensor, gamma: float) -> Tensor:
    p, q, factor = _factor(log_p, gamma)
    return factor * (1 + gamma * _ratio(log_p, p, q))


def focal_curve(log_p: Tensor, gamma: float) -> Tensor:
    p, q, factor = _factor(log_p, gamma)
    r = _ratio(log_p, p, q)
    odds = p / torch.where(q == 0, 1.0, q)
    return gamma * factor * (r + odds * ((1 - gamma) * r - 2))


def binary_focal_loss(x: Tensor, gamma: float) -> Tensor:
    return -(gamma * logsigmoid(-x)).exp() * logsigmoid(x)


def binary_focal_slope(x: Tensor, gamma: float) -> Tensor:
    below = torch.sigmoid(-x)
    return (gamma * logsigmoid(-x)).exp() * (gamma * torch.sigmoid(x) * logsigmoid(x) - below)


def binary_focal_curve(x: Tensor, gamma: float) -> Tensor:
    p, below, s = torch.sigmoid(x), torch.sigmoid(-x), -logsigmoid(x)
    inner = gamma**2 * p * s + below * (1 + 2 * gamma - gamma * s)
    return (gamma * logsigmoid(-x)).exp() * p * inner
