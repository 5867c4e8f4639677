"""Modules of a user of ``python -m fused_mixup.sweep``, as text."""

from __future__ import annotations

MODULE = """
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

STARTED = []  # runs


def make_data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 4, generator=generator)
    labels = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    train = DataLoader(TensorDataset(x[:32], labels[:32]), 8, shuffle=True)
    return train, [(x[32:], labels[32:])]


def make_model():
    STARTED.append(1)
    if len(STARTED) == int(os.environ.get("SWEEP_STOPS_AT", -1)):
        raise KeyboardInterrupt
    return nn.Linear(4, 3)
"""

# PyTorch's first optimizer imports the compiler, which takes seconds.
_DESCENT = """

class Descent:
    def __init__(self, parameters):
        self.parameters = list(parameters)

    def zero_grad(self, set_to_none=True):
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self):
        for p in self.parameters:
            p -= RATE * p.grad


def make_optimizer(model):
    return Descent(model.parameters())
"""
SWEPT = MODULE + _DESCENT.replace("RATE", "0.3")

_OWN_DATA = """
X, LABELS = torch.rand(8, 4), torch.arange(8) % 3
BEFORE = X.clone()


def make_data():
    return [(X, LABELS)], [(X, LABELS)]
"""
OWN_TENSORS = SWEPT + _OWN_DATA
DIVERGING = MODULE + _DESCENT.replace("RATE", "float('inf')") + _OWN_DATA

# Drawn at import, and once for all runs.
KEPT_DRAWS = (
    SWEPT
    + """
import functools

ORDER = torch.randperm(48)


@functools.cache
def read():
    x = torch.randn(48, 4)[ORDER]
    return x, (x[:, 0] > 0).long()


def make_data():
    x, labels = read()
    return [(x[:32], labels[:32])], [(x[32:], labels[32:])]
"""
)
LOST_IN_EVAL = (
    SWEPT
    + """

class Lost(nn.Linear):
    def forward(self, x):
        return super().forward(x) if self.training else super().forward(x) * float("nan")


def make_model():
    return Lost(4, 3)
"""
)
