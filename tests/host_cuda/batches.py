"""Random batches in every layout, and the rows and boxes of plans, for the harness' tests."""

from __future__ import annotations

import torch

from fused_mixup.codes import PAIRINGS as RULES

BATCHES = (1, 2, 3, 8, 33)
SHAPES = ([3, 5, 7], [3, 16, 16], [17], [2, 4, 6, 8])
LAYOUTS = ("contiguous", "channels_last", "offset", "misaligned", "strided")
BLENDS = ((0.3, 0.7), (1.0, 0.0), (0.0, 1.0), "rows", (0.5, 0.5))
BOXES = ("none", "uniform", "rows", "empty", "borders", "everything")
TENSOR, FLIP, ROLL, SELF = (RULES[name] for name in ("tensor", "flip", "roll", "self"))
PAIRINGS = {
    "flip": FLIP,
    "roll": ROLL,
    "self": SELF,
    "permutation": TENSOR,
    "shared": TENSOR,  # several samples share one partner, so this is no permutation
}
PASTED = (torch.uint8, torch.int16, torch.int32, torch.int64, torch.complex128, torch.bool)
# Blocks and threads run forward, in reverse, shuffled: a kernel must not depend on an order.
ORDERS = (0, 1, 2)


def random(shape, dtype, generator):
    if not dtype.is_floating_point:
        high = 256 if dtype == torch.uint8 else 100
        return torch.randint(0, high, shape, generator=generator).to(dtype)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def make_batch(batch, shape, dtype, layout, generator):
    """A batch of the given layout, and its storage, so that a test sees writes outside it."""
    if layout == "offset":
        base = random([batch + 1, *shape], dtype, generator)
        return base[1:], base
    if layout == "misaligned":
        numel = batch * int(torch.Size(shape).numel())
        base = random([numel + 1], dtype, generator)
        return base[1:].view(batch, *shape), base
    if layout == "strided":
        base = random([batch, *shape[:-1], 2 * shape[-1] + 1], dtype, generator)
        return base[..., 1::2], base
    base = random([batch, *shape], dtype, generator)
    if layout == "channels_last" and base.ndim >= 4:
        form = torch.channels_last if base.ndim == 4 else torch.channels_last_3d
        base = base.contiguous(memory_format=form)
    return base, base


def copy_of(x, base):
    """x with a copy of its storage."""
    other = base.clone()
    return other.as_strided(x.shape, x.stride(), x.storage_offset()), other


def make_partner(kind, batch, generator):
    if kind == "permutation":
        return torch.randperm(batch, generator=generator).int()
    if kind == "shared":
        return torch.randint(0, batch, (batch,), generator=generator).int()
    return None


def make_blend(kind, batch, generator):
    if kind != "rows":
        return torch.tensor([kind], dtype=torch.float64).expand(batch, 2)
    lam = torch.rand(batch, generator=generator, dtype=torch.float64)
    lam[::3] = 1.0  # unmixed rows among mixed ones
    return torch.stack((lam, 1 - lam), 1)


def make_box(kind, batch, shape, generator):
    spatial = shape[1:] if len(shape) > 1 else shape
    d = len(spatial)
    size = torch.tensor(spatial)
    if kind == "none":
        return torch.empty((batch, 0), dtype=torch.int32)
    if kind == "everything":
        row = torch.tensor([[0] * d + list(spatial)], dtype=torch.int32)
        return row.expand(batch, -1)
    if kind == "empty":
        row = torch.tensor([[1] * d + [1] * d], dtype=torch.int32)
        return row.expand(batch, -1)
    rows = 1 if kind == "uniform" else batch
    ends = torch.rand((2, rows, d), generator=generator)
    ends = (ends * (size + 1)).int().sort(0).values
    start, stop = ends[0], ends[1]
    if kind == "borders":  # to the border, and beyond it: kernels clamp
        start[::2], stop[1::2] = 0, (size + 3).int()
    box = torch.cat((start, stop), 1).int()
    return box.expand(batch, -1) if kind == "uniform" else box
