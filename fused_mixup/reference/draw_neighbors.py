"""``draw_neighbors`` in plain PyTorch: the specification of docs/tables.md, step by step.

Every backend gives the same bits. Values on a device are never read on the host. A few rows are
worked on at a time, so that memory grows with the pool, not with its square.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import expect, expect_shape
from ..codes import (
    DRAW_NEIGHBOR,
    GAUSSIAN,
    MAX_POOL,
    STATE_VERSION,
    STEP_WORD,
    TOPHAT,
    VERSION_WORD,
    WEIGHT_SCALE,
)
from .random import MASK, Stream, exp_negative

PAIRS = 1 << 20  # of labels that are compared at a time


def draw_neighbors(
    state: Tensor,  # [4]
    settings: Tensor,  # [1]
    labels: Tensor,  # [B, D]
    pool: Tensor | None,  # [N, D]
    kernel: int,
) -> Tensor:
    _check(state, settings, labels, pool, kernel)
    batch, device = labels.shape[0], state.device
    found = labels if pool is None else pool
    bandwidth = settings.to(device, torch.float64)
    known = state[VERSION_WORD] == STATE_VERSION
    stream = Stream(state)
    rows = max(1, PAIRS // max(found.shape[0], 1))
    own, others = labels.double(), found.double()
    partner = torch.empty(batch, dtype=torch.int32, device=device)
    for first in range(0, batch, rows):
        i = torch.arange(first, min(first + rows, batch), device=device)
        weight = _weights(own[i], others, bandwidth, pool is None, kernel)
        total = weight.sum(1)
        low, high, _, _ = stream.words(i, DRAW_NEIGHBOR)
        place = _below(low, high, total)
        chosen = (weight.cumsum(1) <= place[:, None]).sum(1)
        kept = i.clamp_max(others.shape[0] - 1)
        partner[i] = torch.where(known & (total > 0), chosen, kept).int()
    state[STEP_WORD].add_(known)
    return partner


def _weights(own: Tensor, others: Tensor, bandwidth: Tensor, among: bool, kernel: int) -> Tensor:
    """int64 [rows, N], whole numbers."""
    distance = torch.zeros(len(own), len(others), dtype=torch.float64, device=own.device)
    for mine, theirs in zip(own.unbind(1), others.unbind(1), strict=True):
        gap = mine[:, None] - theirs
        distance = distance + gap * gap
    nearest = distance.new_zeros(())
    if not among:
        known = torch.where(distance.isnan(), torch.inf, distance)
        nearest = known.amin(1, keepdim=True)
    if kernel == TOPHAT:
        return ((distance < bandwidth * bandwidth) | (distance == nearest)).long()
    x = (distance - nearest) * (1.0 / (bandwidth * bandwidth * 2.0))
    counts = x <= 23.0  # beyond, weights are 0; so is that of a NaN
    e = exp_negative(x.where(counts, 0.0)).where(counts, 0.0)
    return (e * WEIGHT_SCALE).round().long()  # halves to even


def _below(low: Tensor, high: Tensor, n: Tensor) -> Tensor:
    """An integer in [0, n) for n up to 2^63: the upper half of the product with 64 random bits."""
    n_low, n_high = n & MASK, n >> 32
    # Each product wraps to the 64 bits of the unsigned one; what is added has 33 bits.
    carried = (low * n_low >> 32) & MASK
    middle = high * n_low
    upper = low * n_high + carried  # below 2^63, as n_high < 2^31
    carried = ((middle & MASK) + (upper & MASK)) >> 32
    return high * n_high + ((middle >> 32) & MASK) + ((upper >> 32) & MASK) + carried


def _check(
    state: Tensor, settings: Tensor, labels: Tensor, pool: Tensor | None, kernel: int
) -> None:
    expect(state.dtype == torch.int64, "state", "int64, as it is written", state.dtype)
    expect_shape("state", state, 4)
    expect_shape("settings", settings, 1)
    expect(GAUSSIAN <= kernel <= TOPHAT, "kernel", "0 or 1", kernel)
    shape = list(labels.shape)
    expect(labels.ndim == 2 and shape[1] >= 1, "labels", "shape [B, D], D >= 1", shape)
    if pool is not None:
        expect(pool.ndim == 2 and pool.shape[1] == shape[1], "pool", f"[N, {shape[1]}]", pool.shape)
        expect(pool.shape[0] >= min(shape[0], 1), "pool", "a sample", pool.shape)
    count = shape[0] if pool is None else pool.shape[0]
    expect(count <= MAX_POOL, "labels, pool", f"up to {MAX_POOL:,} samples", count)
