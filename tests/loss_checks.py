"""Compares the CPU kernels of the losses with fused_mixup.reference in float64.

test_loss_cpu.py calls these checks; sanitized/grid.py runs them in separate processes.
"""

from __future__ import annotations

import collections
import itertools
import math

import torch
from cases import layouts, values

from fused_mixup import ops, reference
from fused_mixup.codes import NO_IGNORE, NONE, SUM

REDUCTIONS = range(3)
IGNORE = 3
compared: collections.Counter[str] = collections.Counter()  # number of results of each op


def accumulates(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def logits_of(shape, dtype):
    """Logits in several memory layouts, and logits whose values take the kernels' rare paths."""
    z = (values(shape, dtype) * 3).to(dtype)
    yield from (view for _, view in layouts(z))
    if shape[1] > 4:
        rising = z.clone()
        rising[:, shape[1] // 2 :] += 100  # far above the first half of the classes
        yield rising
        masked = z.clone()
        masked[:, : shape[1] - 2] = -math.inf
        yield masked


def labels_of(shape, k, ignore=True, outside=False):
    labels = torch.randint(0, k, (2, *shape))
    labels[1][torch.rand(shape) < 0.2] = 0
    labels[1] = torch.where(torch.rand(shape) < 0.2, labels[0], labels[1])  # equal pairs
    if ignore:
        labels[torch.rand(labels.shape) < 0.3] = IGNORE
    if outside:
        labels[torch.rand(labels.shape) < 0.1] = k
    # Neither is contiguous.
    return labels.movedim(0, -1).contiguous().movedim(-1, 0)


def weights_of(batch):
    yield torch.tensor([[0.3, 0.7]]).expand(batch, 2)
    odd = torch.rand(batch, 2)
    odd[::3, 1] = 0
    odd[1::4, 0] = 0
    yield odd


def class_weights(k, dtype):
    w = torch.rand(k, dtype=accumulates(dtype)) + 0.5
    w[::4] = 0
    return w


def targets_of(shape, dtype, outside=False):
    """(target, partner labels, weight) and the smoothing of the target."""
    b, k, *inner = shape
    for weight in weights_of(b):
        own, partner = labels_of((b, *inner), k, outside=outside)
        yield (own, partner, weight), 0.1
        yield (own, partner, weight), 0.0
    dense = torch.rand(shape, dtype=torch.float64) / k
    dense[dense < 0.3 / k] = 0
    for target_dtype in {dtype, accumulates(dtype)}:
        yield (dense.to(target_dtype), None, None), 0.0
    # The target's memory layout differs from that of the logits.
    yield (dense.transpose(0, -1).contiguous().transpose(0, -1).to(dtype), None, None), 0.0


def thin(items, step):
    items = list(items)
    return items[int(torch.randint(step, ())) :: step]


def to_float64(arguments):
    return tuple(
        a.double() if isinstance(a, torch.Tensor) and a.dtype.is_floating_point else a
        for a in arguments
    )


def check_near(op, got, expected, bound):
    """Check that finite values lie within ``bound``, and that infinities and NaNs are equal."""
    compared[op] += 1
    assert got.shape == expected.shape, op
    got = got.double()
    close = (got - expected).abs() <= bound
    close |= (got == expected) | (got.isnan() & expected.isnan())
    assert close.all(), (op, got.shape, int((~close).sum()), (got - expected)[~close])


def gradient_bound(dtype, expected, eps, scale):
    bound = torch.finfo(dtype).eps / 2 * expected.abs() + eps * scale
    # 6e-8 is the smallest denormal of float16.
    return (bound + 6e-8 if dtype == torch.float16 else bound) * 1.01


def check_cross_entropy(z, target, class_weight, ignore, ts, ls, reduction, gamma=0.0, z_loss=0.0):
    arguments = (*target, class_weight, ignore, ts, ls, gamma, z_loss, reduction)
    sparse = target[1] is not None
    truth = reference.soft_target_cross_entropy(z.double(), *to_float64(arguments), sparse)
    loss, stats, count, ranks = ops.soft_target_cross_entropy(z, *arguments, sparse)
    acc = accumulates(z.dtype)
    assert loss.dtype == stats.dtype == count.dtype == acc and ranks.dtype == torch.int32
    eps = 1e-13 if z.dtype == torch.float64 else 6e-7
    heaviest = 1.0 if class_weight is None else 1.5
    if z_loss:  # what multiplies the softmax grows with the logits
        heaviest += (
            2 * z_loss * float(truth[1][0].nan_to_num(0, 0, 0).abs().max()) if z.numel() else 0
        )
    size = (truth[0].abs() + (math.log(z.shape[1]) + 1) * heaviest).nan_to_num(posinf=0)
    check_near("soft_target_cross_entropy", loss, truth[0], eps * 4 * size)
    stats_bound = eps * 4 * (truth[1].abs().nan_to_num() + 1)
    if gamma:  # near p = 1 (1-p)^γ has no better digits; the gradient multiplies it by p and 1-p
        stats_bound[2] += 4 * (1 + gamma) * heaviest * eps ** min(gamma, 1)
    stats_bound[0, truth[1][0].isnan()] = math.inf  # the kernels' maximum skips NaN
    check_near(
        "soft_target_cross_entropy",
        stats.where(stats_bound < math.inf, truth[1]),
        truth[1],
        stats_bound,
    )
    assert count == truth[2] and torch.equal(ranks, truth[3])

    upstream = torch.randn(loss.shape, dtype=acc)
    if reduction == NONE and loss.ndim > 1:
        upstream = torch.randn(loss.shape[::-1], dtype=acc).permute(*reversed(range(loss.ndim)))
    expected = reference.soft_target_cross_entropy_backward(
        upstream.double(), z.double(), *truth[1:3], *to_float64(arguments)
    )
    scale = heaviest * (upstream.abs().max() if upstream.numel() else 0)
    bound = gradient_bound(z.dtype, expected, eps * 2, scale)
    grad = ops.soft_target_cross_entropy_backward(upstream, z, stats, count, *arguments)
    assert grad.dtype == z.dtype and grad.stride() == torch.empty_like(z).stride()
    check_near("soft_target_cross_entropy_backward", grad, expected, bound)
    kept = z.clone()
    ops.soft_target_cross_entropy_backward_(upstream, z, stats, count, *arguments)
    check_near("soft_target_cross_entropy_backward_", z, expected, bound)
    z.copy_(kept)

    got = ops.soft_target_cross_entropy_grad(z, *arguments, sparse)
    one = torch.ones_like(truth[0])
    expected = reference.soft_target_cross_entropy_backward(
        one, z.double(), *truth[1:3], *to_float64(arguments)
    )
    check_near("soft_target_cross_entropy_grad", got[0], truth[0], eps * 4 * size)
    assert got[1].stride() == grad.stride()
    check_near(
        "soft_target_cross_entropy_grad",
        got[1],
        expected,
        gradient_bound(z.dtype, expected, eps * 2, heaviest),
    )
    assert torch.equal(got[2], truth[3])


def check_binary(z, target, weights, ts, threshold, reduction, summed, gamma=0.0):
    arguments = (*target, *(weights or (None, None)), ts, threshold, gamma, reduction, summed)
    # Thresholds compare in the arithmetic type, to which the reference rounds the target too.
    truth_of = to_float64(arguments)
    if target[1] is not None:
        acc = accumulates(z.dtype)
        sparse = reference.dense_target(*target, z.shape[1], ts, acc).double()
        truth_of = (sparse, None, None, *truth_of[3:5], 0.0, *truth_of[6:])
        if threshold is not None:
            above = torch.where(sparse.isnan(), sparse, (sparse.to(acc) > threshold).double())
            truth_of = (above, *truth_of[1:6], None, *truth_of[7:])
    elif threshold is not None:
        above = (target[0].to(accumulates(z.dtype)) > threshold).double()
        truth_of = (above, *truth_of[1:6], None, *truth_of[7:])
    truth = reference.soft_target_binary_cross_entropy(z.double(), *truth_of)
    loss = ops.soft_target_binary_cross_entropy(z, *arguments)
    assert loss.dtype == accumulates(z.dtype)
    eps = 1e-13 if z.dtype == torch.float64 else 6e-7
    heaviest = 1.0 if weights is None else 3.0
    finite = z.double().nan_to_num(posinf=0, neginf=0)
    largest = finite.abs().max() if z.numel() else 0
    count = z.shape[1] if summed or reduction == SUM else 1
    rows = z.numel() // z.shape[1] if reduction == SUM else 1
    bound = eps * heaviest * (1 + largest) * count * rows
    check_near("soft_target_binary_cross_entropy", loss, truth, bound)

    upstream = torch.randn(loss.shape, dtype=loss.dtype)
    expected = reference.soft_target_binary_cross_entropy_backward(
        upstream.double(), z.double(), *truth_of
    )
    scale = heaviest * (upstream.abs().max() if upstream.numel() else 0)
    bound_of = gradient_bound(z.dtype, expected, eps, scale)
    grad = ops.soft_target_binary_cross_entropy_backward(upstream, z, *arguments)
    assert grad.dtype == z.dtype and grad.stride() == torch.empty_like(z).stride()
    check_near("soft_target_binary_cross_entropy_backward", grad, expected, bound_of)
    kept = z.clone()
    ops.soft_target_binary_cross_entropy_backward_(upstream, z, *arguments)
    check_near("soft_target_binary_cross_entropy_backward_", z, expected, bound_of)
    z.copy_(kept)

    both = ops.soft_target_binary_cross_entropy_grad(z, *arguments)
    expected = reference.soft_target_binary_cross_entropy_backward(
        torch.ones_like(truth), z.double(), *truth_of
    )
    check_near("soft_target_binary_cross_entropy_grad", both[0], truth, bound)
    check_near(
        "soft_target_binary_cross_entropy_grad",
        both[1],
        expected,
        gradient_bound(z.dtype, expected, eps, heaviest),
    )
    assert both[1].stride() == grad.stride()


def check_ranks(z, own, partner):
    for other in (partner, None):
        compared["label_ranks"] += 1
        got = ops.label_ranks(z, own, other)
        assert torch.equal(got, reference.label_ranks(z, own, other)), (z.dtype, z.shape)


def check_scale(x):
    acc = accumulates(x.dtype)
    for factor in (0.3, 1.0, 0.0, math.inf):
        compared["scale_"] += 1
        by, kept = torch.tensor(factor, dtype=acc), x.clone()
        expected = (x.to(acc) * by).to(x.dtype)
        ops.scale_(x, by)
        assert torch.equal(x, expected), (x.dtype, x.shape, x.stride())
        x.copy_(kept)


# ------------------------------------------------------------------ a part of all combinations


def cross_entropies(shape, dtype, step=6):
    options = list(itertools.product((False, True), (IGNORE, NO_IGNORE), (0.0, 0.1), REDUCTIONS))
    targets = list(targets_of(shape, dtype))
    for z in logits_of(shape, dtype):
        for (target, ts), option in zip(thin(targets, 2), thin(options, step), strict=False):
            weighted, ignore, ls, reduction = option
            w = class_weights(shape[1], dtype) if weighted else None
            if shape[1] <= IGNORE and target[1] is not None:  # out of range, unless ignored
                ignore = IGNORE
            focal = (0.0, 0.0)
            if reduction != SUM:  # a part has a z-loss, and focal terms where kernels have them
                sparse = target[1] is not None and ts == 0 and ls == 0
                focal = (2.0 if weighted else 0.5) if sparse else 0.0, 0.01
            check_cross_entropy(z, target, w, ignore, ts, ls, reduction, *focal)


def binary_cross_entropies(shape, dtype, step=7):
    b, k, *inner = shape
    dense = torch.rand(shape, dtype=torch.float64)
    dense[dense < 0.3] = 0
    targets = [((dense.to(d), None, None), 0.0) for d in (dtype, accumulates(dtype))]
    targets += [
        ((*labels_of((b, *inner), k, ignore=False, outside=wide), weight), ts)
        for weight in weights_of(b)
        for ts in (0.0, 0.1)
        for wide in (False, True)
    ]
    options = list(itertools.product((False, True), (None, 0.25), REDUCTIONS, (False, True)))
    for _, z in layouts((values(shape, dtype) * 3).to(dtype)):
        for (target, ts), option in zip(thin(targets, 3), thin(options, step), strict=False):
            weighted, threshold, reduction, summed = option
            weights = (class_weights(k, dtype), class_weights(k, dtype) + 1) if weighted else None
            gamma = (2.0 if weighted else 0.5) if summed else 0.0
            check_binary(z, target, weights, ts, threshold, reduction, summed, gamma)


def all_ranks(shape, dtype):
    b, k, *inner = shape
    z = values(shape, dtype).mul(2).round()  # rounding makes many ties
    z[torch.rand(shape) < 0.02] = math.nan
    z[torch.rand(shape) < 0.02] = math.inf
    labels = labels_of((b, *inner), k, outside=True)
    for _, view in layouts(z):
        check_ranks(view, *labels)


def all_scales(shape, dtype):
    x = values(shape, dtype)
    for view in (view for _, view in layouts(x)) if x.ndim else (x,):
        check_scale(view)
