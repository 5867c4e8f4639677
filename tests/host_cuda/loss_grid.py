"""The losses in the host harness against float64: settings, and the check of one of them."""

from __future__ import annotations

import itertools

import torch
from comparing import same_bits

from fused_mixup import reference
from fused_mixup.dtypes import arithmetic

from . import lib
from . import loss_ops as host
from .batches import ORDERS, make_batch, make_blend, random
from .ops import DTYPES

CLASSES = (1, 2, 5, 32, 33, 1000, 1025, 5000)
NO_IGNORE = -(2**63)
# Bounds against float64: K float32 terms are summed; exp2 errs by 2 units in the last place.
LOSS_TOLERANCE = {torch.float64: 1e-12}
# The gradient is rounded once to its type: half a unit in the last place, and float32 arithmetic.
GRAD_ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float32: 2e-6}


def tolerance(logits):
    # One thread sums hundreds of classes of a position.
    return LOSS_TOLERANCE.get(logits.dtype, 3e-6 if logits.ndim == 2 else 1e-5)


def close(got, want, rtol, atol):
    torch.testing.assert_close(got.double(), want.double(), rtol=rtol, atol=atol, equal_nan=True)


def close_gradient(grad, want, logits):
    assert grad.dtype == logits.dtype and grad.stride() == torch.empty_like(logits).stride()
    rounding = GRAD_ROUNDING.get(logits.dtype, 1e-11)
    # Below the smallest normal half a value is rounded to a multiple of 2^-24.
    tiny = 2**-25 if logits.dtype == torch.float16 else 0
    close(grad, want, 1.01 * rounding + tolerance(logits), tiny + tolerance(logits))


def to_float64(*tensors):
    return [t.double() if t is not None and t.is_floating_point() else t for t in tensors]


def run_in_place(logits, write):
    """Run ``write`` on logits inside a larger storage; check that the rest is unchanged."""
    reach = sum((n - 1) * s for n, s in zip(logits.shape, logits.stride(), strict=True)) + 1
    base = torch.full((reach + 16,), 3.0, dtype=logits.dtype)
    kept = torch.ones_like(base, dtype=torch.bool)
    view = base.as_strided(logits.shape, logits.stride(), 8)
    kept.as_strided(logits.shape, logits.stride(), 8)[...] = False
    view.copy_(logits)
    write(view)
    assert (base[kept] == 3.0).all()
    return view


def check_values(
    logits, target, partner, weight, ts, ls, generator, *, class_weight=None, ignore=NO_IGNORE,
    ranks=False, reductions=(0, 1, 2), gamma=0.0, z_loss=0.0,
):  # fmt: skip
    """Check every op of the cross-entropy on one batch."""
    class_weight = class_weight.to(arithmetic(logits.dtype)) if class_weight is not None else None
    sparse = (target, partner, weight, class_weight)
    wide = to_float64(logits, *sparse)
    rtol = tolerance(logits)
    for reduction in reductions:
        options = (ignore, ts, ls, gamma, z_loss, reduction)
        loss, stats, count, found = host.soft_target_cross_entropy(logits, *sparse, *options, ranks)
        want, want_stats, want_count, want_found = reference.soft_target_cross_entropy(
            *wide, *options, ranks
        )
        close(loss, want, rtol, 4 * rtol)
        close(stats[:2], want_stats[:2], rtol, 4 * rtol)
        # Near p = 1 (1-p)^γ has no better digits; the gradient multiplies it by p and 1-p.
        lost = 4 * (1 + gamma) * rtol ** min(gamma, 1) if gamma else 0
        close(stats[2], want_stats[2], rtol, 4 * rtol + lost)
        assert count == want_count and torch.equal(found, want_found)
        again = host.soft_target_cross_entropy(logits, *sparse, *options, ranks)
        assert same_bits(loss, again[0])
        shape = loss.shape if reduction == 2 else ()
        grad_loss = torch.rand(shape, generator=generator).to(loss.dtype) + 0.5
        upstream = (grad_loss, logits, stats, count, *sparse, *options)
        grad = host.soft_target_cross_entropy_backward(*upstream)
        want = reference.soft_target_cross_entropy_backward(
            grad_loss.double(), wide[0], want_stats, want_count, *wide[1:], *options
        )
        close_gradient(grad, want, logits)
        over = run_in_place(
            logits,
            lambda view, at=upstream: host.soft_target_cross_entropy_backward_(
                at[0], view, *at[2:]
            ),
        )
        close(over, grad, 0, 0)
        both = host.soft_target_cross_entropy_grad(logits, *sparse, *options, ranks)
        want = reference.soft_target_cross_entropy_grad(*wide, *options, ranks)
        close(both[0], want[0], rtol, 4 * rtol)
        close_gradient(both[1], want[1], logits)
        assert torch.equal(both[2], want[2])


def check_binary(
    logits, target, partner, weight, ts, threshold, sums, generator, weights, reductions=(0, 1, 2),
    gamma=0.0,
):  # fmt: skip
    """Check every op of the binary loss on one batch; ``weights``: of classes, of positives."""
    weights = [w.to(arithmetic(logits.dtype)) if w is not None else None for w in weights]
    sparse = (target, partner, weight)
    wide = to_float64(logits, *sparse, *weights)
    # The threshold compares the given target, whose smoothing and weights are float32.
    rtol = tolerance(logits)
    for reduction in reductions:
        options = (*weights, ts, threshold, gamma, reduction, sums)
        wide_options = (*wide[4:], ts, threshold, gamma, reduction, sums)
        loss = host.soft_target_binary_cross_entropy(logits, *sparse, *options)
        want = reference.soft_target_binary_cross_entropy(*wide[:4], *wide_options)
        close(loss, want, rtol, 4 * rtol)
        shape = loss.shape if reduction == 2 else ()
        grad_loss = torch.rand(shape, generator=generator).to(loss.dtype) + 0.5
        upstream = (grad_loss, logits, *sparse, *options)
        grad = host.soft_target_binary_cross_entropy_backward(*upstream)
        want = reference.soft_target_binary_cross_entropy_backward(
            grad_loss.double(), *wide[:4], *wide_options
        )
        close_gradient(grad, want, logits)
        over = run_in_place(
            logits,
            lambda view, at=upstream: host.soft_target_binary_cross_entropy_backward_(
                at[0], view, *at[2:]
            ),
        )
        close(over, grad, 0, 0)
        both = host.soft_target_binary_cross_entropy_grad(logits, *sparse, *options)
        assert same_bits(both[0], loss)
        want = reference.soft_target_binary_cross_entropy_grad(*wide[:4], *wide_options)[1]
        close_gradient(both[1], want, logits)


# ------------------------------------------------------------------ settings

ROWS = ("contiguous", "misaligned", "strided", "rows", "offset")
COLUMNS = ("columns", "odd columns", "channels_last")


def cases(layouts=ROWS, start=0, step=1):
    """(order, layout, target smoothing, label smoothing, kind of target, class weights, ignored
    label, reduction)."""
    settings = itertools.product((0.0, 0.1), (0.0, 0.1), ("sparse", "equal", "dense", "float32"))
    turning = (
        ORDERS,
        layouts,
        (False, True, True),
        (NO_IGNORE, -100, 0, -100, NO_IGNORE),
        # Every order and layout gets its turn; means have ignored labels in even and odd turns.
        (1, 1, 2, 1, 0, 2, 2, 0, 0),
    )
    rotation = zip(*map(itertools.cycle, turning), strict=False)
    for k, ((ts, ls, kind), turn) in enumerate(zip(settings, rotation, strict=False)):
        order, layout, *rest = turn
        if k % step == start % step:
            yield order, layout, ts, ls, kind, *rest


def make_logits(batch, classes, dtype, layout, generator):
    if layout == "rows":  # adjacent classes, rows with gaps
        return (random([batch, classes + 3], dtype, generator) * 4)[:, 1 : classes + 1]
    if layout in COLUMNS:
        shape = {"columns": [16], "odd columns": [3, 3], "channels_last": [2, 3]}[layout]
        logits = random([batch, classes, *shape], dtype, generator) * 4
        if layout == "channels_last":
            logits = logits.contiguous(memory_format=torch.channels_last)
        return logits
    logits, _ = make_batch(batch, [classes], dtype, layout, generator)
    logits *= 4
    return logits


def make_target(logits, layout, kind, generator):
    """(target, partner labels or None)"""
    batch, classes, *rest = logits.shape
    if kind in ("dense", "float32"):
        target = torch.rand(logits.shape, generator=generator).softmax(1)
        target[:, ::3] = 0.0
        wide = kind == "float32" and logits.dtype in (torch.float16, torch.bfloat16)
        target = target.to(torch.float32 if wide else logits.dtype)
        if layout == "strided":
            target = target.t().contiguous().t()
        return torch.empty_like(logits, dtype=target.dtype).copy_(
            target
        ) if layout == "channels_last" else target, None
    labels = torch.randint(0, classes, (2, batch, *rest), generator=generator)
    return labels[0], labels[0] if kind == "equal" else labels[1]


def make_loss(dtype, classes, case, generator, batch):
    """(logits, target, partner labels, weight, class weights, target smoothing, ignored label)"""
    _, layout, ts, ls, kind, weighed, ignore, _ = case
    logits = make_logits(batch, classes, dtype, layout, generator)
    target, partner = make_target(logits, layout, kind, generator)
    class_weight = torch.rand(classes, generator=generator) * 2 if weighed else None
    if weighed:
        class_weight[::5] = 0.0
    weight = None
    if partner is not None:
        weight = make_blend("rows" if ls else (0.3, 0.7), batch, generator).float()
        if ignore == -100:
            target, partner = target.clone(), partner.clone()
            target.view(-1)[::3] = ignore
            partner.view(-1)[::4] = ignore
    else:
        ts, ignore = 0.0, NO_IGNORE
    return logits, target, partner, weight, class_weight, ts, ignore


def check(dtype, classes, case, generator):
    order, _, _, ls, _, weighed, _, reduction = case
    lib.set_order(order)
    made = make_loss(dtype, classes, case, generator, 3 if classes > 100 else 11)
    logits, target, partner, weight, class_weight, ts, ignore = made
    check_values(
        logits, target, partner, weight, ts, ls, generator, class_weight=class_weight,
        ignore=ignore, ranks=partner is not None and weighed, reductions=(reduction,),
    )  # fmt: skip
    focal = partner is not None and ts == 0 and ls == 0  # where the kernels have such terms
    check_values(
        logits, target, partner, weight, ts, ls, generator, class_weight=class_weight,
        ignore=ignore, reductions=(reduction,),
        gamma=(2.0 if weighed else 0.5) if focal else 0.0, z_loss=0.01,
    )  # fmt: skip


def check_bce(dtype, classes, case, generator):
    order, layout, ts, ls, kind, weighed, _, reduction = case
    lib.set_order(order)
    batch = 3 if classes > 100 else 11
    logits = make_logits(batch, classes, dtype, layout, generator)
    target, partner = make_target(logits, layout, kind, generator)
    class_weight = torch.rand(classes, generator=generator) if weighed else None
    pos_weight = torch.rand(classes, generator=generator) * 3 if ls else None
    weight = make_blend("rows", batch, generator).float() if partner is not None else None
    threshold = 0.2 if ts and weighed else None
    check_binary(
        logits, target, partner, weight, ts if partner is not None else 0.0, threshold,
        kind in ("equal", "dense"), generator, (class_weight, pos_weight), (reduction,),
        (2.0 if weighed else 0.5) if ls else 0.0,
    )  # fmt: skip


def check_scale(dtype, layout, generator):
    x, base = make_batch(3, [4, 5, 8], dtype, layout, generator)
    before = base.clone()
    factor = torch.tensor(1.0, dtype=arithmetic(x.dtype))
    host.scale_(x, factor)
    assert same_bits(base, before)
    want, want_base = x.clone(), before
    factor.fill_(0.37)
    want = (x.to(factor.dtype) * factor).to(dtype)
    host.scale_(x, factor)
    assert same_bits(x, want)
    if layout == "strided":
        outside = torch.ones_like(base, dtype=torch.bool)
        outside[..., 1::2] = False
        assert torch.equal(base[outside], want_base[outside])


def run(full: bool, generator) -> int:
    """Check every kernel in this variant; return the number of cases."""
    count = 0
    step = 1 if full else 2
    for dtype in DTYPES[:4]:
        sizes = (ROWS, CLASSES if full else (33, 2070)), (COLUMNS, CLASSES[:6] if full else (3, 19))
        for layouts, several in sizes:
            for start, classes in enumerate(several):
                for case in cases(layouts, start, step):
                    check(dtype, classes, case, generator)
                    check_bce(dtype, classes, case, generator)
                    count += 2
        for layout in ("contiguous", "misaligned", "strided", "offset"):
            check_scale(dtype, layout, generator)
            count += 1
    return count
