"""Inputs that the tests share, and the mixing rule written out sample by sample."""

from __future__ import annotations

import functools

import torch

from fused_mixup import MixedTarget, MixPlan

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BLENDABLE = (*FLOATS, torch.uint8)
# Odd sizes leave partial vectors; [3, 20, 33] has rows of boxes, [2, 3, 4, 5] three spatial dims;
# [70, 130] and [9001] span several tiles.
SHAPES = ([3, 7, 5], [3, 20, 33], [17], [2, 3, 4, 5], [70, 130], [9001])
# Every shape with an odd batch, every batch size with a small shape.
GRID = [(3, shape) for shape in SHAPES] + [(b, [3, 7, 5]) for b in (0, 1, 2, 8)] + [(33, [17])]


def values(shape, dtype, device="cpu"):
    """Random values without zeros, so that a test sees an element that was not written."""
    if dtype.is_floating_point:
        return (torch.randn(shape, dtype=torch.float64) + 0.5).to(dtype).to(device)
    if dtype == torch.bool:
        return (torch.rand(shape) < 0.5).to(device)
    return torch.randint(1, 120, shape).to(dtype).to(device)


def layouts(x):
    """(name, tensor) for x in every memory layout that its shape allows; values are equal."""
    yield "contiguous", x.clone()
    if x.ndim == 4:
        yield "channels_last", x.contiguous(memory_format=torch.channels_last)
    if x.ndim == 5:
        yield "channels_last_3d", x.contiguous(memory_format=torch.channels_last_3d)
    room = torch.zeros((x.shape[0] + 1, *x.shape[1:]), dtype=x.dtype, device=x.device)
    yield "x[1:]", room[1:].copy_(x)
    flat = torch.zeros(x.numel() + 3, dtype=x.dtype, device=x.device)
    yield "odd offset", flat[3:].view(x.shape).copy_(x)
    apart = torch.zeros((*x.shape, 2), dtype=x.dtype, device=x.device)
    yield "every second element", apart[..., 0].copy_(x)
    yield "transposed", x.transpose(0, -1).contiguous().transpose(0, -1)
    wide = torch.zeros((*x.shape[:-1], x.shape[-1] + 3), dtype=x.dtype, device=x.device)
    yield "padded rows", wide[..., 1:-2].copy_(x)


def pairings(batch_size):
    yield "flip", "flip"
    yield "roll", "roll"
    yield "self", "self"
    yield "permutation", torch.randperm(batch_size)
    # Several samples may share a partner, and some samples are nobody's partner.
    yield "any", torch.randint(0, max(batch_size, 1), (batch_size,))
    yield "one for all", torch.zeros(batch_size, dtype=torch.int64)


def random_boxes(batch_size, spatial):
    starts, stops = [], []
    for n in spatial:
        a = torch.randint(0, n + 1, (batch_size, 2)).sort(1).values
        starts.append(a[:, 0])
        stops.append(a[:, 1])
    return torch.stack(starts + stops, 1)


def plans(batch_size, shape):
    """(name, plan) over pairings and kinds of rows for samples of ``shape``."""
    spatial = shape[1:][-3:] if len(shape) > 1 else shape
    d = len(spatial)
    inner = [n // 4 for n in spatial] + [max(3 * n // 4, 1) for n in spatial]
    whole = [0] * d + list(spatial)
    for name, partner in pairings(batch_size):
        yield f"{name} mixup", MixPlan.uniform(batch_size, partner, 0.3)
        yield f"{name} cutmix", MixPlan.uniform(batch_size, partner, 0.6, inner)
        lam = torch.rand(batch_size, dtype=torch.float64)
        boxes = random_boxes(batch_size, spatial)
        yield f"{name} per-sample mixup", MixPlan.per_sample(lam, partner)
        yield f"{name} per-sample cutmix", MixPlan.per_sample(lam, partner, boxes)
        cut = torch.arange(batch_size) % 3 == 0
        lam[1::3] = 1.0  # these rows keep their sample
        lam[2::5] = 0.0  # these rows become their partner
        yield f"{name} both", MixPlan.per_sample(lam, partner, boxes, cut)
    yield "identity", MixPlan.identity(batch_size)
    yield "whole box", MixPlan.uniform(batch_size, "roll", 0.0, whole)
    yield "empty box", MixPlan.uniform(batch_size, "flip", 1.0, [1] * 2 * d)


def mix_by_hand(x, plan):
    """Apply the rule to one sample at a time, in the arithmetic that the package promises."""
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    source = x.clone()
    out = x.clone()
    d = plan.spatial_dims
    for i in range(plan.batch_size):
        own, other = source[i], source[int(plan.partner[i])]
        w0, w1 = plan.blend[i].to(acc)
        if (w0, w1) != (1, 0):
            mixed = own.to(acc) * w0 if w0 else 0
            mixed = mixed + other.to(acc) * w1 if w1 and w0 else other.to(acc) * w1 if w1 else mixed
            if x.dtype == torch.uint8:
                mixed = mixed.round()
            out[i] = mixed
        box = plan.box[i].tolist()
        if d and all(a < b for a, b in zip(box[:d], box[d:], strict=True)):
            at = (..., *(slice(a, b) for a, b in zip(box[:d], box[d:], strict=True)))
            out[i][at] = other[at]
    return out


@functools.cache
def mixed_by_hand(batch_size, shape, dtype):
    """(batch, [(name, plan, expected)]) of every plan, kept for the next backend: mixing by hand
    takes longer than the op. Tests must not write to it. ``shape`` is a tuple."""
    x = values((batch_size, *shape), dtype)
    named = plans(batch_size, list(shape))
    return x, [(name, plan, mix_by_hand(x, plan)) for name, plan in named]


def loss_targets(batch_size, num_classes, device="cpu"):
    """(name, MixedTarget) with equal labels, weights that do not sum to one, and smoothing."""
    labels = torch.randint(0, num_classes, (batch_size,))
    plan = MixPlan.per_sample(torch.rand(batch_size), "flip")
    yield (
        "uniform",
        MixedTarget.from_labels(labels, MixPlan.uniform(batch_size, "flip", 0.3), num_classes).to(
            device
        ),
    )
    yield "per sample, smoothed", MixedTarget.from_labels(labels, plan, num_classes, 0.1).to(device)
    equal = MixedTarget(labels, labels, plan.weight, num_classes)
    yield "equal labels", equal.to(device)
    weight = torch.rand(batch_size, 2)
    weight[::3, 1] = 0
    odd = MixedTarget(labels, labels.flip(0), weight, num_classes, 0.2)
    yield "weights of any sum", odd.to(device)
