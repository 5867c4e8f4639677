"""Hypothesis strategies for the losses: logits and their targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from fuzz_cases import (
    EITHER,
    FLOAT,
    SMOOTHING,
    Case,
    View,
    generator,
    labels_of,
    seeds,
    two_weights,
    views,
)
from hypothesis import strategies as st
from torch import Tensor

from fused_mixup.arguments import is_host_row
from fused_mixup.codes import NO_IGNORE


@dataclass(repr=False)
class LossCase(Case):
    """A loss of logits [B, K, d1…]; the options of both losses."""

    logits: View
    target: Tensor
    partner_labels: Tensor | None
    weight: Tensor | None
    class_weight: Tensor | None
    pos_weight: Tensor | None
    ignore_index: int
    target_smoothing: float
    label_smoothing: float
    target_threshold: float | None
    reduction: int
    sum_classes: bool
    seed: int

    @property
    def sparse(self) -> tuple:
        return self.target, self.partner_labels, self.weight, self.class_weight

    @property
    def cross_entropy(self) -> tuple:
        smoothing = self.target_smoothing, self.label_smoothing
        return *self.sparse, self.ignore_index, *smoothing, 0.0, 0.0, self.reduction

    @property
    def binary(self) -> tuple:
        smoothing = self.target_smoothing, self.target_threshold
        return *self.sparse, self.pos_weight, *smoothing, 0.0, self.reduction, self.sum_classes


@st.composite
def loss_cases(draw) -> LossCase:
    batch = draw(st.one_of(st.integers(0, 9), st.sampled_from([33, 70])))
    positions = draw(st.sampled_from([(), (), (1,), (3,), (17,), (2, 5), (40,)]))
    rows = max(batch * math.prod(positions), 1)
    sizes = st.one_of(st.integers(1, 70), st.sampled_from([128, 1000, 2049, 5000]))
    k = max(min(draw(sizes), 12000 // rows), 1)
    dtype = draw(FLOAT)
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    logits = draw(views([batch, k, *positions], dtype, expanded=True))
    logits.storage.mul_(draw(st.sampled_from([0.1, 1.0, 10.0])))
    logits.storage.add_(draw(st.sampled_from([0.0, 0.0, 300.0, -1000.0])))
    g = generator(draw(seeds))
    hole = draw(st.sampled_from([None, None, -math.inf, math.nan]))
    if hole is not None and logits.storage.numel():
        logits.storage[torch.rand(logits.storage.shape, generator=g) < 0.05] = hole
    wild = draw(st.integers(0, 3)) == 0
    shape = [batch, *positions]
    target, partner_labels, weight = labels_of(shape, k, draw(seeds), wild), None, None
    target_smoothing = 0.0
    if draw(EITHER):
        partner_labels = labels_of(shape, k, draw(seeds), wild)
        # Weights of two signs on a logit of -inf would give infinities of both signs, whose sum
        # depends on the order.
        weight = draw(two_weights(batch, torch.float32))
        weight = weight[:1].abs().expand(batch, 2) if is_host_row(weight) else weight.abs()
        target_smoothing = draw(SMOOTHING)
        if draw(EITHER):
            partner_labels = torch.where(target % 2 == 0, target, partner_labels)
    else:
        kinds = {dtype, torch.float32} if dtype.itemsize == 2 else {dtype}
        soft = torch.rand((batch, k, *positions), generator=g)
        soft[torch.rand(soft.shape, generator=g) < 0.5] = 0
        target = draw(views(list(soft.shape), draw(st.sampled_from(sorted(kinds, key=str))))).tensor
        target.copy_(soft)
    of_classes = [None, None]
    for i in range(2):
        if draw(EITHER):
            w = torch.rand(k, generator=g, dtype=acc) * 2
            w[torch.rand(k, generator=g) < 0.1] = 0
            of_classes[i] = w
    return LossCase(
        logits,
        target,
        partner_labels,
        weight,
        *of_classes,
        draw(st.sampled_from([NO_IGNORE, -100, 0, 3])),
        target_smoothing,
        draw(SMOOTHING),
        draw(st.sampled_from([None, 0.3])),
        draw(st.sampled_from([0, 1, 2])),
        draw(EITHER),
        draw(seeds),
    )
