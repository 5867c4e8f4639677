"""Properties of every op of the losses on every backend (see properties.py)."""

from __future__ import annotations

from typing import Any

import torch
from fuzz_cases import generator
from fuzz_loss_cases import LossCase
from torch import Tensor

from fused_mixup import reference
from fused_mixup.checks import may_overlap
from fused_mixup.codes import MEAN, NONE
from fused_mixup.dtypes import arithmetic
from fused_mixup.reference import losses as reference_losses
from fused_mixup.schemas import BinaryCrossEntropyArguments, CrossEntropyArguments

# An accumulator adds up to 64 terms in sequence, with half a unit in the last place of error each.
# The float64 reference has errors too.
_EPS = {torch.float32: 32 * 2.0**-23, torch.float64: 32 * 2.0**-52}
_ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}


def assert_near(got: Tensor, want: Tensor, bound: Tensor, what: str) -> None:
    got = got.double()
    equal = (got == want) | (got.isnan() & want.isnan())
    wrong = ~(equal | ((got - want).abs() <= bound))
    assert not bool(wrong.any()), (
        f"{what}: {got[wrong][:4].tolist()}, expected {want[wrong][:4].tolist()} "
        f"within {bound.expand_as(wrong)[wrong][:4].tolist()}"
    )


def _to_float64(arguments: tuple) -> tuple:
    """Convert arguments to float64, except the weights of a mixed target, which are float32."""
    target, partner_labels, weight, *rest = arguments
    target = target.double() if partner_labels is None else target
    rest = [a.double() if isinstance(a, Tensor) else a for a in rest]
    return target, partner_labels, weight, *rest


def _add_rounding(bound: Tensor, want: Tensor, dtype: torch.dtype, on: Any) -> Tensor:
    """Widen ``bound`` by one rounding to ``dtype``."""
    bound = bound + _ROUNDING.get(dtype, 0) * 1.01 * want.abs()
    if on.truncates and dtype == torch.bfloat16:
        bound = bound + 2.0**-8 * want.abs()  # the low bits are cut off, not rounded
    return bound + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps


def _check_format(grad: Tensor, z: Tensor) -> None:
    like = torch.empty_like(z)
    # The stride of a dim of one element has no meaning.
    steps = [(a, b) for a, b, n in zip(grad.stride(), like.stride(), z.shape, strict=True) if n > 1]
    assert not z.numel() or all(a == b for a, b in steps), "the memory format is kept"


def _upstream(case: LossCase, loss: Tensor) -> Tensor:
    g = generator(case.seed)
    return (torch.rand(loss.shape, generator=g, dtype=torch.float64) + 0.5).to(loss.dtype)


def _check_reduced(loss: Tensor, rows: Tensor, errors: Tensor, want: Tensor, count, what) -> None:
    """Compare ``rows``, or their sum over ``count``, with ``want``."""
    if loss.shape == rows.shape and loss.ndim:
        assert_near(loss, want, errors, what)
    else:
        eps = _EPS[loss.dtype]
        assert_near(loss, want, (errors.sum() + eps * rows.abs().sum()) / count, what)


def _write_in_place(on: Any, op: str, case: LossCase, before: tuple, after: tuple) -> Tensor:
    """Run ``op`` in place of the logits; check that nothing outside them changes."""
    copy = case.logits.copy()
    getattr(on.ops, op)(*before, copy.tensor, *after)
    untouched = case.logits.copy()
    untouched.tensor.copy_(copy.tensor)
    assert on.same(copy.storage, untouched.storage), f"{op} writes outside the logits"
    return copy.tensor


def cross_entropy(on: Any, case: LossCase) -> None:
    """Loss, stats, count and ranks equal those of float64, within the arithmetic's accuracy."""
    z, args = case.logits.tensor, case.cross_entropy
    sparse = case.partner_labels is not None
    op = "soft_target_cross_entropy"
    loss, stats, count, ranks = getattr(on.ops, op)(z, *args, sparse)
    exact, wide = z.double(), _to_float64(args)
    want, want_stats, want_count, want_ranks = reference.soft_target_cross_entropy(
        exact, *wide, sparse
    )
    rows = reference.soft_target_cross_entropy(exact, *wide[:-1], NONE, False)[0]
    assert loss.dtype == stats.dtype == count.dtype == arithmetic(z.dtype)
    # Errors are relative to the terms that a row sums, not to their sum, which may cancel.
    u, _ = reference_losses.weighted_target(exact, CrossEntropyArguments(*wide))
    m, log_sum, total = want_stats
    spread = (exact - m.unsqueeze(1)).masked_fill(u == 0, 0).abs()
    size = log_sum.abs() * u.abs().sum(1) + (u.abs() * spread).sum(1) + u.abs().sum(1)
    eps = _EPS[loss.dtype]
    counted = float(want_count) if case.reduction == MEAN else 1.0
    _check_reduced(loss, rows, eps * size.where(rows != 0, 0), want, counted, "loss")
    # The maximum of a row with a NaN has no defined value: the log-sum propagates the NaN.
    assert_near(stats[0].where(~m.isnan(), torch.nan), m, 0 * m, "stats: max")
    assert_near(stats[1], log_sum, eps * (1 + log_sum.abs()), "stats: log-sum")
    assert_near(stats[2], total, eps * u.abs().sum(1), "stats: sum of the target")
    assert count == want_count and on.same(ranks, want_ranks), "count, ranks"

    upstream = _upstream(case, loss)
    given = upstream, z, stats, count
    wide_given = upstream.double(), exact, want_stats, want_count
    want = reference.soft_target_cross_entropy_backward(*wide_given, *wide)
    # exp(z - m - l) inherits the error of its argument; then one rounding to the gradient's type.
    away = exact - m.unsqueeze(1)
    reach = 1 + log_sum.abs().unsqueeze(1) + away.abs().nan_to_num(0, 0, 0)
    p = (away - log_sum.unsqueeze(1)).exp()
    terms = total.abs().unsqueeze(1) * p * reach + u.abs()
    # exp may flush subnormal results to zero.
    terms = eps * terms + torch.finfo(loss.dtype).tiny * total.abs().unsqueeze(1)

    def check(grad: Tensor, want: Tensor, grad_loss: Tensor, what: str) -> None:
        scale = reference_losses.row_scale(grad_loss.double(), want_count, case.reduction)
        assert grad.dtype == z.dtype
        assert_near(grad, want, _add_rounding(terms * scale, want, z.dtype, on), what)

    grad = getattr(on.ops, f"{op}_backward")(*given, *args)
    _check_format(grad, z)
    check(grad, want, upstream, "gradient")
    if not may_overlap(z):
        after = stats, count, *args
        written = _write_in_place(on, f"{op}_backward_", case, (upstream,), after)
        check(written, want, upstream, "gradient in place")
    again, grad, again_ranks = getattr(on.ops, f"{op}_grad")(z, *args, sparse)
    counted_rows = counted or 1.0
    _check_reduced(
        again, rows, eps * size.where(rows != 0, 0), loss.double(), counted_rows, "again"
    )
    assert on.same(again_ranks, want_ranks)
    one = torch.ones_like(upstream)
    want = reference.soft_target_cross_entropy_backward(one.double(), *wide_given[1:], *wide)
    check(grad, want, one, "gradient in the forward")


def binary_cross_entropy(on: Any, case: LossCase) -> None:
    """Loss and gradient equal those of float64, within the arithmetic's accuracy."""
    # Infinite logits become large ones: the formula as it stands has 0·inf, which is no number,
    # where kernels have none.
    case.logits.storage.clamp_(-1e4, 1e4)
    z, args = case.logits.tensor, case.binary
    op = "soft_target_binary_cross_entropy"
    loss = getattr(on.ops, op)(z, *args)
    # The target is mixed in the arithmetic type before the threshold compares it.
    t = reference_losses.dense_binary_target(z, BinaryCrossEntropyArguments(*args)).double()
    exact = z.double()
    class_weight, pos_weight = (c if c is None else c.double() for c in args[3:5])
    wide = t, None, None, class_weight, pos_weight, 0.0, None, 0.0, *args[-2:]
    want = reference.soft_target_binary_cross_entropy(exact, *wide)
    each = (*wide[:-2], NONE, case.sum_classes)
    rows = reference.soft_target_binary_cross_entropy(exact, *each)
    assert loss.dtype == arithmetic(z.dtype)
    w, q = (reference_losses.class_factors(c, t) for c in (class_weight, pos_weight))
    a = 1 + (q - 1) * t
    softplus = torch.nn.functional.softplus(-exact)
    size = w * ((1 - t).abs() * exact.abs() + a.abs() * softplus + 1)
    eps = _EPS[loss.dtype]
    if case.sum_classes:
        size = size.sum(1)
    counted = max(rows.numel(), 1) if case.reduction == MEAN else 1
    _check_reduced(loss, rows, eps * size, want, counted, "loss")

    upstream = _upstream(case, loss)
    per_element = eps * w * ((1 - t).abs() + a.abs() * torch.sigmoid(-exact) * (1 + exact.abs()))
    # Eager's formula, σ(x) - t, has errors relative to its terms.
    per_element = per_element + 2.0**-20 * eps / _EPS[torch.float32] * w * (
        a.abs() * torch.sigmoid(exact) + (q * t).abs()
    )
    per_element = per_element.nan_to_num(0) + eps * w * torch.finfo(loss.dtype).tiny

    def check(grad: Tensor, grad_loss: Tensor, what: str) -> None:
        want = reference.soft_target_binary_cross_entropy_backward(grad_loss.double(), exact, *wide)
        scale = reference_losses.binary_scale(grad_loss.double(), z, *args[-2:])
        assert grad.dtype == z.dtype
        assert_near(grad, want, _add_rounding(per_element * scale, want, z.dtype, on), what)

    grad = getattr(on.ops, f"{op}_backward")(upstream, z, *args)
    _check_format(grad, z)
    check(grad, upstream, "gradient")
    if not may_overlap(z):
        written = _write_in_place(on, f"{op}_backward_", case, (upstream,), args)
        check(written, upstream, "gradient in place")
    again, grad = getattr(on.ops, f"{op}_grad")(z, *args)
    _check_reduced(again, rows, eps * size, want, counted, "loss with its gradient")
    check(grad, torch.ones_like(upstream), "gradient in the forward")


def ranking(on: Any, case: LossCase) -> None:
    """label_ranks gives exactly the reference's ranks; scale_ rounds the product once."""
    z = case.logits.tensor
    if case.partner_labels is not None:
        for partner_labels in (case.partner_labels, None):
            got = on.ops.label_ranks(z, case.target, partner_labels)
            assert on.same(got, reference.label_ranks(z, case.target, partner_labels)), "ranks"
    if may_overlap(z):
        return
    for factor in (1.0, 0.3):
        copy = case.logits.copy()
        scale = torch.tensor(factor, dtype=arithmetic(z.dtype))
        on.ops.scale_(copy.tensor, scale)
        want = z.double() * scale.double()
        if factor == 1.0:
            assert on.same(copy.storage, case.logits.storage), "scale_ by one"
        assert_near(
            copy.tensor, want, _add_rounding(0 * want, want, z.dtype, on).nan_to_num(0), "scale_"
        )
