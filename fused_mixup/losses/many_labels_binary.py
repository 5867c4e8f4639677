"""The ops of the binary cross-entropy for targets with k > 2 labels a row, on those for two.

Backward: the op sweeps the logits as for a target that is the same in every class of a sample, and
the entries of the labels are computed from scratch and written over its own. Forward: the loss at a
label may be far smaller than that of an absent class, so that it could not be put right in a sum:
samples get dense targets, as many at a time as fit a buffer of a few megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..codes import MEAN, NONE, SUM
from ..dtypes import arithmetic
from ..reference.dense import in_range
from ..reference.focal import binary_focal_slope
from ..reference.losses import binary_scale
from ..schemas import BinaryCrossEntropyArguments
from .many_labels import all_labels, label_weights

_BUFFER = 1 << 20  # elements of a dense target: 4 MiB of float32, in a GPU's second-level cache


class _Values(NamedTuple):
    """A target by the values of t; S stands for d1…"""

    base: Tensor  # [B]: where no label is
    classes: Tensor  # int64 [B, k, S]: the labels, class 0 in poisoned rows
    at: Tensor  # [B, k, S]: at the labels
    poisoned: Tensor  # bool [B, S]


def _values(a: BinaryCrossEntropyArguments, num_classes: int, acc: torch.dtype) -> _Values:
    assert a.partner_labels is not None and a.weight is not None
    labels = all_labels(a.target, a.partner_labels)
    poisoned = ~in_range(labels, num_classes).all(1)
    index = torch.where(poisoned.unsqueeze(1), 0, labels)
    weight = label_weights(a.weight, labels, acc)
    off = a.target_smoothing / num_classes
    on = 1.0 - a.target_smoothing + off
    hit, miss = (torch.where(weight == 0, 0, weight * value) for value in (on, off))
    # In the order of dense_target(), whose bits a threshold sees.
    base, at = torch.zeros_like(miss[:, 0]), torch.zeros_like(labels, dtype=acc)
    for j in range(labels.shape[1]):
        one = slice(j, j + 1)
        base = base + miss[:, j]
        at = at + torch.where(index == index[:, one], hit[:, one], miss[:, one])
    if a.target_threshold is not None:
        base, at = ((t > a.target_threshold).to(acc) for t in (base, at))
    return _Values(base.flatten(), index, at, poisoned)


def samples_of_buffer(logits: Tensor) -> int:
    """How many samples a buffer holds; all in compiled code, which would unroll the loop."""
    if torch.compiler.is_compiling():
        return max(len(logits), 1)
    return max(_BUFFER // max(logits[:1].numel(), 1), 1)


def _chunks(
    logits: Tensor, a: BinaryCrossEntropyArguments
) -> Iterator[tuple[Tensor, BinaryCrossEntropyArguments]]:
    """Logits of a few samples, and arguments with their dense target."""
    each = samples_of_buffer(logits)
    for start in range(0, max(len(logits), 1), each):
        at = slice(start, start + each)
        z = logits[at]
        sparse = zip(("target", "partner_labels", "weight"), a[:3], strict=True)
        some = a._replace(**{name: t[at] for name, t in sparse})  # type: ignore[index, arg-type]
        found = _values(some, z.shape[1], arithmetic(z.dtype))
        t = found.base.view([-1] + [1] * (z.ndim - 1)).expand(z.shape).contiguous()
        t = t.scatter_(1, found.classes, found.at)
        t = t.masked_fill_(found.poisoned.unsqueeze(1), torch.nan)
        yield (
            z,
            a._replace(
                target=t,
                partner_labels=None,
                weight=None,
                target_smoothing=0.0,
                target_threshold=None,
            ),
        )


def soft_target_binary_cross_entropy(logits: Tensor, *arguments: Any) -> Tensor:
    a = BinaryCrossEntropyArguments(*arguments)
    op = ops.soft_target_binary_cross_entropy
    if a.reduction == NONE:
        parts = [op(z, *each) for z, each in _chunks(logits, a)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    total = torch.zeros((), dtype=arithmetic(logits.dtype), device=logits.device)
    for z, each in _chunks(logits, a):
        total = total + op(z, *each._replace(reduction=SUM))
    if a.reduction == MEAN:
        total = total / (logits.numel() // (logits.shape[1] if a.sum_classes else 1))
    return total


def _backward(
    grad_loss: Tensor, logits: Tensor, a: BinaryCrossEntropyArguments
) -> tuple[BinaryCrossEntropyArguments, Tensor, Tensor]:
    """Arguments of the op, and the entries to write over its gradient with their classes."""
    acc, k = arithmetic(logits.dtype), logits.shape[1]
    found = _values(a, k, acc)
    # Smoothing of 1 spreads the sum of two weights over the classes; the second weight holds the
    # digits that float32 takes from the first.
    total = found.base * k
    high = total.float()
    weight = torch.stack((high, (total - high.to(acc)).float()), 1)
    rows = torch.where(found.poisoned, k, 0)
    # With a threshold t is 0 or 1, up to the rounding of K · 1/K.
    threshold = None if a.target_threshold is None else 0.5
    uniform = a._replace(
        target=rows,
        partner_labels=rows,
        weight=weight,
        target_smoothing=1.0,
        target_threshold=threshold,
    )
    x, t = logits.gather(1, found.classes).to(acc), found.at
    one = t.new_ones(())
    w, q = (one if c is None else c[found.classes] for c in (a.class_weight, a.pos_weight))
    if a.focal_gamma:
        present, absent = (binary_focal_slope(y, a.focal_gamma) for y in (x, -x))
        slope = q * t * present - (1 - t) * absent
    else:
        e = (-x.abs()).exp()
        pulled = (1 + (q - 1) * t) * (e / (1 + e))
        slope = torch.where(x < 0, pulled - q * t, (1 - t) - pulled)
    scale = binary_scale(grad_loss, logits, a.reduction, a.sum_classes)
    if a.reduction == NONE and not a.sum_classes:
        scale = scale.gather(1, found.classes)
    entries = (scale * (w * slope)).masked_fill(found.poisoned.unsqueeze(1), torch.nan)
    return uniform, found.classes, entries.to(logits.dtype)


def soft_target_binary_cross_entropy_backward(
    grad_loss: Tensor, logits: Tensor, *arguments: Any
) -> Tensor:
    uniform, *entries = _backward(grad_loss, logits, BinaryCrossEntropyArguments(*arguments))
    grad = ops.soft_target_binary_cross_entropy_backward(grad_loss, logits, *uniform)
    return grad.scatter_(1, *entries)


def soft_target_binary_cross_entropy_backward_(
    grad_loss: Tensor, logits: Tensor, *arguments: Any
) -> None:
    uniform, *entries = _backward(grad_loss, logits, BinaryCrossEntropyArguments(*arguments))
    ops.soft_target_binary_cross_entropy_backward_(grad_loss, logits, *uniform)
    logits.scatter_(1, *entries)


def soft_target_binary_cross_entropy_grad(logits: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    loss = soft_target_binary_cross_entropy(logits, *arguments)
    one = torch.ones_like(loss)
    return loss, soft_target_binary_cross_entropy_backward(one, logits, *arguments)
