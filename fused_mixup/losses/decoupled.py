"""The cross-entropy of a mix, with a term for each label among the classes without the other.

With b the label of the larger logit of the two and o the other, R = log Σ_{c≠b} exp(z_c) from a
sweep of its own (1 - p_b loses its digits where p_b comes near 1), and s = log(1 + exp(R - z_b)):

    -log p_b = s,   logsumexp(z) = z_b + s,   log p_o = z_o - z_b - s   (p_o <= 1/2)
    of o without b:  R - z_o                  of b without o:  s + log(1 - p_o)

All softmaxes are multiples of exp(z_c - R), so that the backward is one sweep of the op with
another maximum, sum and factor; the two entries of the labels are written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..arguments import kind
from ..codes import IGNORE_INDEX, MEAN, NO_IGNORE, NONE
from ..dtypes import arithmetic
from ..schemas import CrossEntropyArguments
from ..target.mixed_target import MixedTarget
from ..tracing import in_vmap
from .arguments import cross_entropy_arguments
from .autograd import (
    call_op,
    compiled_function,
    function,
    needs_plain_pytorch,
    nones,
    plain_gradients,
)
from .checks import check_coefficient, check_logits, check_reduction
from .cross_entropy import plain_cross_entropy
from .many_labels import label_terms, label_weights, no_weight
from .many_labels_binary import samples_of_buffer

# Both labels of a row weigh more than this where it has terms, as in OpenMixup.
_LEAST_WEIGHT = 1e-3
_TERMS = ("both", "less", "more")


def decoupled_mixup_cross_entropy(
    logits: Tensor,  # [B, K, d1, …]
    target: MixedTarget,  # [B, d1, …]
    eta: float | Sequence[float] | Tensor = 0.1,  # [], [2] or [B, 2]
    *,
    terms: str = "both",
    weight: Tensor | None = None,  # [K]
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Decoupled mixup: the cross-entropy of a mix, and of each label without the other.

    ``loss_i = CE(logits_i, t_i) + Σ_j η_j w_{y_j} · (log Σ_{c≠y_k} exp(z_c) - z_{y_j})``, k the
    other label of the row than j: a hard mix is pulled to both of its classes, whatever λ is.

    Equivalent to (of one row with labels a and b)::

        without = lambda c: logits.index_fill(0, c, -torch.inf)
        loss = F.cross_entropy(logits, target.dense()[0])
        loss += eta * (F.cross_entropy(without(b), a) + F.cross_entropy(without(a), b))

    Args:
        logits: [B, K, d1, …], floating.
        target: a :class:`MixedTarget` of two labels a row.
        eta: η >= 0: a number, one for the sample's own label and one for its partner's, or a tensor
            [B, 2] of them on the device of the logits.
        terms: ``"both"`` labels have a term, or only that of ``"less"`` or ``"more"`` weight.
        weight, ignore_index, reduction, label_smoothing: as
            :func:`soft_target_cross_entropy`; smoothing is in the first term alone.

    Returns:
        A scalar, or [B, d1, …] for ``"none"``; float32, or float64 for float64 logits.

    Raises:
        TypeError, ValueError, IndexError: as :func:`soft_target_cross_entropy`; a target of more
            labels than two, or dense; an η below 0.

    Notes:
        A row has terms where its labels differ, neither is ignored and both weigh more than 0.001.
        The forward sweeps the logits twice, the second time a copy of a few samples in which one
        class is masked; the backward is one sweep. Exact where a class has all the probability.
        Under vmap, forward mode and torch.func inside torch.compile, and in the backward of
        torch.func.grad and of create_graph, it runs in plain PyTorch. OpenMixup, which this
        follows, has no terms in a batch whose λ is ½ exactly, and deals the two η of its modes
        "less" and "more" out by the class numbers of the first row, so that the other label may
        get them.

    Source: Liu et al., Decoupled Mixup for Data-efficient Learning, 2022, arXiv 2203.10761.
    """
    check_logits(logits)
    if not isinstance(target, MixedTarget) or target.num_labels != 2:
        got = kind(target)
        if isinstance(target, MixedTarget):
            got = f"one of {target.num_labels}"
        raise ValueError(
            f"target: expected a MixedTarget of two labels a row, got {got}; "
            "soft_target_cross_entropy takes dense targets and more labels"
        )
    if terms not in _TERMS:
        raise ValueError(f"terms: expected one of {list(_TERMS)}, got {kind(terms)}")
    code = check_reduction(reduction)
    a, _ = cross_entropy_arguments(
        logits, target, weight, ignore_index, NONE, label_smoothing, 0.0, 0.0
    )
    factors = _factors(logits, a, eta, terms)
    if needs_plain_pytorch():
        rows, count = _plain(logits, factors, a)
    elif torch.compiler.is_compiling():
        rows, count, *_ = _compiled(logits, factors, *a)
    elif torch.is_grad_enabled() and logits.requires_grad:
        rows, count, *_ = _differentiable(logits, factors, *a)
    else:
        rows, count, *_ = _call_forward(logits, factors, *a)
    if code == NONE:
        return rows
    return rows.sum() / count if code == MEAN else rows.sum()


def _factors(
    logits: Tensor, a: CrossEntropyArguments, eta: float | Sequence[float] | Tensor, terms: str
) -> Tensor:
    """η of both labels as [B, 2] in the arithmetic type, 0 in samples whose weights want none."""
    acc, batch = arithmetic(logits.dtype), len(logits)
    if isinstance(eta, Tensor) and eta.ndim:
        if eta.shape not in ((2,), (batch, 2)) or not eta.is_floating_point():
            raise ValueError(
                f"eta: expected a number, two, or floats of shape [{batch}, 2], got {kind(eta)}"
            )
        both = eta.detach().to(device=logits.device, dtype=acc).expand(batch, 2)
    else:
        given = eta if isinstance(eta, (list, tuple)) else (eta, eta)
        if len(given) != 2:
            raise ValueError(f"eta: expected a number, or two, got {len(given)} of them")
        numbers = [check_coefficient("eta", x) for x in given]
        both = torch.tensor([numbers], dtype=acc, device=logits.device).expand(batch, 2)
    assert a.weight is not None
    w = label_weights(a.weight, logits, acc).flatten(1)
    both = torch.where((w > _LEAST_WEIGHT).all(1, keepdim=True), both, 0)
    if terms != "both":
        own_is_less = w[:, 0] < w[:, 1]
        own = own_is_less if terms == "less" else ~own_is_less
        both = torch.where(torch.stack((own, ~own), 1), both, 0)
    return both


class _Pairs(NamedTuple):
    """The two labels of each row, ordered by their logits; S stands for d1…"""

    classes: Tensor  # int64 [B, 2, S]: the label b of the larger logit, then o; 0 without terms
    eta: Tensor  # [B, 2, S]: η times the class weight of each
    pulled: Tensor  # [B, 2, S]: w t' of each
    there: Tensor  # bool [B, S]: whether the row has terms


def _pairs(logits: Tensor, factors: Tensor, a: CrossEntropyArguments) -> _Pairs:
    assert a.partner_labels is not None
    more = a._replace(partner_labels=a.partner_labels.unsqueeze(1))
    terms = label_terms(logits, more)
    labels = torch.stack((a.target, a.partner_labels), 1)
    kept = ((labels != a.ignore_index) & (labels >= 0) & (labels < logits.shape[1])).all(1)
    eta = factors.view([-1, 2] + [1] * (labels.ndim - 2)).expand(labels.shape)
    there = kept & (labels[:, 0] != labels[:, 1]) & (eta != 0).any(1)
    classes = torch.where(there.unsqueeze(1), labels, 0)
    pulled = terms.share
    if terms.constant is not None:
        spread = (terms.constant / logits.shape[1]).unsqueeze(1)
        if a.class_weight is not None:
            spread = spread * a.class_weight[classes]
        pulled = pulled + spread
    if a.class_weight is not None:
        eta = eta * a.class_weight[classes]
    z = logits.gather(1, classes)
    first = (z[:, 1:] > z[:, :1]).long()
    order = torch.cat((first, 1 - first), 1)
    return _Pairs(classes.gather(1, order), eta.gather(1, order), pulled.gather(1, order), there)


def _sums_without(logits: Tensor, pairs: _Pairs) -> Tensor:
    """[2, B, S]: maximum and log Σ exp(z - maximum) of the classes without b."""
    parts = []
    each = samples_of_buffer(logits)
    for start in range(0, max(len(logits), 1), each):
        at = slice(start, start + each)
        z, b = logits[at].clone(), pairs.classes[at, :1]
        there = pairs.there[at].unsqueeze(1)
        z.scatter_(1, b, torch.where(there, -torch.inf, z.gather(1, b)))
        label = torch.zeros_like(pairs.classes[at, 0])
        uniform = CrossEntropyArguments(
            label,
            label,
            no_weight(len(label)),
            None,
            NO_IGNORE,
            *(0.0, 0.0, 0.0, 0.0, NONE),
        )
        parts.append(ops.soft_target_cross_entropy(z, *uniform, False)[1][:2])
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class _Logs(NamedTuple):
    """Logarithms of each row, [B, S] (see the head of this file)."""

    rest: Tensor  # R - logsumexp(z)
    p: Tensor  # [B, 2, S]: log p_b, log p_o
    left: Tensor  # log(1 - p_o)
    losses: Tensor  # [B, 2, S]: the terms of b and o, without η


def _logs(logits: Tensor, without: Tensor, pairs: _Pairs) -> _Logs:
    b, o = logits.gather(1, pairs.classes).to(without.dtype).unbind(1)
    m, log_sum = without
    above = (m - b) + log_sum
    s = torch.logaddexp(above, torch.zeros_like(above))
    log_p_o = (o - b) - s
    left = torch.log1p(-log_p_o.exp())
    losses = torch.stack((s + left, (m - o) + log_sum), 1)
    return _Logs(above - s, torch.stack((-s, log_p_o), 1), left, losses)


def _forward(logits: Tensor, factors: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Rows of losses, how many of them count, stats of the op, _sums_without()."""
    a = CrossEntropyArguments(*arguments)
    rows, stats, count, _ = ops.soft_target_cross_entropy(logits, *a, False)
    pairs = _pairs(logits, factors, a)
    without = _sums_without(logits, pairs)
    losses = _logs(logits, without, pairs).losses
    more = torch.where(pairs.eta == 0, 0, pairs.eta * losses).sum(1)
    return rows + torch.where(pairs.there, more, 0), count, stats, without


def _backward(
    grad_rows: Tensor,
    logits: Tensor,
    factors: Tensor,
    count: Tensor,
    stats: Tensor,
    without: Tensor,
    a: CrossEntropyArguments,
) -> Tensor:
    pairs = _pairs(logits, factors, a)
    logs, total = _logs(logits, without, pairs), stats[2]
    eta_b, eta_o = pairs.eta.unbind(1)
    factor = total * logs.rest.exp() + eta_o + eta_b * (logs.rest - logs.left).exp()
    moved = torch.where(pairs.there, torch.stack((*without, factor)), stats)
    grad = ops.soft_target_cross_entropy_backward(grad_rows, logits, moved, count, *a)
    entries = total.unsqueeze(1) * logs.p.exp() - pairs.pulled
    entries = entries + pairs.eta * torch.expm1(-logs.losses)
    entries = (grad_rows.unsqueeze(1) * entries).to(grad.dtype)
    kept = grad.gather(1, pairs.classes)
    return grad.scatter_(1, pairs.classes, torch.where(pairs.there.unsqueeze(1), entries, kept))


def _plain(logits: Tensor, factors: Tensor, a: CrossEntropyArguments) -> tuple[Tensor, Tensor]:
    """Rows of losses, and how many count, in plain PyTorch."""
    rows, _, count, _ = plain_cross_entropy(logits, a, False)
    pairs = _pairs(logits.detach(), factors, a)
    z = logits.to(rows.dtype)
    labels = z.gather(1, pairs.classes)
    there = pairs.there.unsqueeze(1)
    for j in (0, 1):
        other = pairs.classes[:, 1 - j : 2 - j]
        masked = torch.where(there, -torch.inf, labels[:, 1 - j : 2 - j])
        loss = z.scatter(1, other, masked).logsumexp(1) - labels[:, j]
        used = pairs.there & (pairs.eta[:, j] != 0)
        rows = rows + torch.where(used, pairs.eta[:, j] * loss, 0)
    return rows, count


def _setup(ctx, inputs, output):
    _, count, stats, without = output
    logits, factors, *tensors = inputs[:6]
    ctx.options = inputs[6:]
    ctx.mark_non_differentiable(count, stats, without)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, factors, count, stats, without, *tensors)


def _grad(ctx, grad_rows, again, call):
    if grad_rows is None:
        return nones(12)
    logits, factors, *found = ctx.saved_tensors
    a = CrossEntropyArguments(*found[3:], *ctx.options)
    if not torch.compiler.is_compiling() and in_vmap():

        def rows_of(logits: Tensor, factors: Tensor) -> Tensor:
            return _plain(logits, factors, a)[0]

        grad, _ = plain_gradients(rows_of, (True, False), grad_rows, logits, factors)
    elif again:
        with torch.enable_grad():
            rows = _plain(logits, factors, a)[0]
            (grad,) = torch.autograd.grad(rows, logits, grad_rows, create_graph=True)
    else:
        grad = call(_backward, grad_rows, logits, factors, *found[:3], a)
    return grad, *nones(11)


def _eager_grad(ctx, grad_rows, *_):
    return _grad(ctx, grad_rows, torch.is_grad_enabled(), call_op)


def _compiled_grad(ctx, grad_rows, *_):
    return _grad(ctx, grad_rows, False, lambda call, *arguments: call(*arguments))


def _call_forward(*arguments):
    return call_op(_forward, *arguments)


_differentiable = function(_call_forward, _setup, _eager_grad)
_compiled = compiled_function(_forward, _setup, _compiled_grad)
