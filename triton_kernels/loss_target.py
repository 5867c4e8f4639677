"""The targets of loss_kernels.py: sparse (two labels and two weights of a row) and dense.

A sparse target has two labels and two weights for a row of K logits. Without class weights w,

    t'_k = C + Σ_j A_j [k = y_j],   A_j = on · w_j,   C = off · (w_0 + w_1) + ls/K
    on = (1 - ls) (1 - ts),   off = (1 - ls) ts / K,   Σt' = (1 - ls) (w_0 + w_1) + ls

so that Σ t' (z - m) = Σ_j A_j (z_yj - m) + C Σ (z - m); with them A_j takes the factor w_yj, and
each term of C its class's. A coefficient of exactly 0 drops its term: a logit of -inf leaves the
loss finite where the target is 0.
"""

import triton
import triton.language as tl

from .common import weighted
from .rows import row_weights


@triton.jit
def sparse_rows(
    target,
    partner_labels,
    weight,
    weight_strides,
    w0,
    w1,
    ignore_index,
    rows,
    ok,
    per_sample,
    K,
    ACC: tl.constexpr,
):
    """Labels, the weights of those kept, whether all are known, whether the row is ignored."""
    y0 = tl.load(target + rows, mask=ok, other=0)
    y1 = tl.load(partner_labels + rows, mask=ok, other=0)
    own, other = row_weights(weight, weight_strides, w0, w1, rows, ok, per_sample, ACC)
    drop0 = y0 == ignore_index
    drop1 = y1 == ignore_index
    known = (drop0 | ((y0 >= 0) & (y0 < K))) & (drop1 | ((y1 >= 0) & (y1 < K)))
    own = tl.where(drop0, 0.0, own)
    other = tl.where(drop1, 0.0, other)
    ignored = known & (drop0 | drop1) & (own == 0) & (other == 0)
    return y0, y1, own, other, known, ignored


@triton.jit
def label_coefficients(
    class_weight, y0, y1, own, other, on, K, ok, ACC: tl.constexpr
):  # A_0, A_1: [SB]
    a0 = on * own
    a1 = on * other
    if class_weight is not None:
        w0 = tl.load(class_weight + y0, mask=ok & (y0 >= 0) & (y0 < K), other=0)
        w1 = tl.load(class_weight + y1, mask=ok & (y1 >= 0) & (y1 < K), other=0)
        a0 = weighted(a0, w0.to(ACC))
        a1 = weighted(a1, w1.to(ACC))
    return a0, a1


@triton.jit
def focal_term(log_p, gamma):
    """f = (1-p)^γ (-log p) and h = -p f'(p), as in fused_mixup/reference/focal.py."""
    p = tl.exp(log_p)
    # Near p = 1 the series of 1 - exp(log p) keeps the digits that the difference loses.
    series = -log_p * (1 + log_p * (0.5 + log_p * (1 / 6 + log_p * (1 / 24))))
    q = tl.where(log_p > -0.01, series, 1 - p)
    inside = q > 0
    safe = tl.where(inside, q, 1.0)
    power = tl.exp(gamma * tl.log(safe))
    ratio = tl.where(p == 0, 0.0, -p * log_p / safe)  # no 0·inf where p underflows
    loss = tl.where(inside, -power * log_p, 0.0)
    slope = tl.where(inside, power * (1 + gamma * ratio), 0.0)
    # The comparison is false for NaN, which stays.
    return tl.where(q == q, loss, q), tl.where(q == q, slope, q)


@triton.jit
def focal_terms(z0, z1, log_sum, a0, a1, gamma):
    """The loss and T of rows with two labels, whose logits are relative to the largest."""
    loss0, slope0 = focal_term(z0 - log_sum, gamma)
    loss1, slope1 = focal_term(z1 - log_sum, gamma)
    nothing = 0 * log_sum  # NaN of a row without a softmax, also where all weights are 0
    loss = weighted(a0, loss0) + weighted(a1, loss1) + nothing
    return loss, weighted(a0, slope0) + weighted(a1, slope1) + nothing


@triton.jit
def add_z_loss(value, total, log_z, z_loss):
    return value + z_loss * log_z * log_z, total + 2 * z_loss * log_z


@triton.jit
def dense_target(
    at, class_weight, k, valid, K, keep, spread, SMOOTH: tl.constexpr, ACC: tl.constexpr
):
    """w t' of a tile, 0 where it is not ``valid``."""
    t = tl.load(at, mask=valid, other=0).to(ACC)
    if SMOOTH:
        t = t * keep + spread
    if class_weight is not None:
        w = tl.load(class_weight + k, mask=k < K, other=0)
        t = tl.where(t == 0, 0.0, weighted(w, t))
    return tl.where(valid, t, 0.0)


@triton.jit
def sparse_target(class_weight, k, K, c, a0, a1, y0, y1):
    """w t' of a tile; those of the labels from scratch."""
    c = c[None, None, :]
    if class_weight is not None:
        c = weighted(c, tl.load(class_weight + k, mask=k < K, other=0))
    hit0 = tl.where(k == y0[None, None, :], a0[None, None, :], 0.0)
    hit1 = tl.where(k == y1[None, None, :], a1[None, None, :], 0.0)
    return c + hit0 + hit1


@triton.jit
def shift_of(m):
    """m, or 0 while no finite logit has been seen: -inf - -inf would be NaN."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit
def gradient_of(z, m, log_sum, total, scale, u, gamma, FOCAL: tl.constexpr):
    """scale (T p - u), with γ scale (T p - u h(p)); rows broadcast."""
    log_p = (z - m[None, None, :]) - log_sum[None, None, :]
    p = tl.exp(log_p)
    if FOCAL:
        # An element takes the power of its own logit: that of the label may be written over by now.
        u = weighted(u, focal_term(log_p, gamma)[1])
    return scale[None, None, :] * (total[None, None, :] * p - u)
