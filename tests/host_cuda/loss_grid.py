"""The loss in the host harness against float64: settings, and the check of one of them."""

from __future__ import annotations

import itertools

import torch
from comparing import same_bits

from fused_mixup import reference

from . import lib
from . import ops as host
from .batches import ORDERS, make_batch, make_blend, random

CLASSES = (1, 2, 5, 32, 33, 1000, 1025, 5000)
# Against float64: sums of K float32 terms, and for half types exp2 with 2 units in the last place.
LOSS_TOLERANCE = {torch.float64: 1e-12}
# The gradient is rounded once to its type: half a unit in the last place, and float32 arithmetic.
GRAD_ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float32: 2e-6}


def check_values(logits, target, partner_labels, weight, ts, ls, generator):
    wide = [t.double() if t is not None and t.is_floating_point() else t for t in (logits, target)]
    exact = (wide[0], wide[1], partner_labels, weight, ts, ls)
    for reduction in (0, 1, 2):
        args = (logits, target, partner_labels, weight, ts, ls, reduction)
        loss, stats = host.soft_target_cross_entropy(*args)
        want, want_stats = reference.soft_target_cross_entropy(*exact, reduction)
        tolerance = LOSS_TOLERANCE.get(logits.dtype, 3e-6)
        torch.testing.assert_close(
            loss.double(), want, rtol=tolerance, atol=4 * tolerance, equal_nan=True
        )
        torch.testing.assert_close(
            stats.double(), want_stats, rtol=tolerance, atol=4 * tolerance, equal_nan=True
        )
        again, _ = host.soft_target_cross_entropy(*args)
        assert same_bits(loss, again)
        shape = (logits.shape[0],) if reduction == 2 else ()
        grad_loss = torch.rand(shape, generator=generator).to(loss.dtype) + 0.5
        grad = host.soft_target_cross_entropy_backward(grad_loss, logits, stats, *args[1:])
        want = reference.soft_target_cross_entropy_backward(
            grad_loss.double(), wide[0], want_stats, *exact[1:], reduction
        )
        assert grad.dtype == logits.dtype and grad.stride() == torch.empty_like(logits).stride()
        rounding = GRAD_ROUNDING.get(logits.dtype, 1e-11)
        # Below the smallest normal half a value is rounded to a multiple of 2^-24.
        tiny = 2**-25 if logits.dtype == torch.float16 else 0
        torch.testing.assert_close(
            grad.double(), want, rtol=1.01 * rounding + tolerance, atol=tiny + tolerance,
            equal_nan=True,
        )  # fmt: skip


def cases():
    """(order, layout, target smoothing, label smoothing, kind of target)."""
    settings = itertools.product((0.0, 0.1), (0.0, 0.1), ("sparse", "equal", "dense", "float32"))
    orders = itertools.cycle(ORDERS)
    layouts = itertools.cycle(("contiguous", "misaligned", "strided", "rows", "offset"))
    for ts, ls, kind in settings:
        yield next(orders), next(layouts), ts, ls, kind


def check(dtype, classes, case, generator):
    order, layout, ts, ls, kind = case
    lib.set_order(order)
    batch = 3 if classes > 100 else 11
    if layout == "rows":  # rows apart, columns together
        logits = (random([batch, classes + 3], dtype, generator) * 4)[:, 1 : classes + 1]
    else:
        logits, _ = make_batch(batch, [classes], dtype, layout, generator)
        logits *= 4
    labels = torch.randint(0, classes, (batch,), generator=generator)
    partner_labels = torch.randint(0, classes, (batch,), generator=generator)
    weight = make_blend("rows" if ls else (0.3, 0.7), batch, generator).float()
    if kind in ("dense", "float32"):
        target = torch.rand(batch, classes, generator=generator).softmax(1)
        target[:, ::3] = 0.0
        target = target.to(dtype if kind == "dense" else torch.float32)
        if layout == "strided":
            target = target.t().contiguous().t()
        check_values(logits, target, None, None, 0.0, ls, generator)
    else:
        partner_labels = labels if kind == "equal" else partner_labels
        check_values(logits, labels, partner_labels, weight, ts, ls, generator)
