"""The last linear layer and its cross-entropy in one, chunk by chunk: no [B, K] logits are held.

Per chunk of rows, in one buffer that all chunks share:
    logits   = features · weightᵀ + bias
    gradient over the logits (soft_target_cross_entropy_backward_)
    grad_features = G · weight,  grad_weight += Gᵀ · features,  grad_bias += Σ G
so that what a forward with gradients holds beyond them is the buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from . import ops
from .checks import FLOATING
from .checks_losses import check_reduction
from .forcing import recalls_backend, remembers_backend
from .loss_autograd import call_op, cross_entropy, refuse_create_graph, scaled
from .losses import cross_entropy_arguments, over
from .plan_checks import integer
from .reference import MEAN, NONE, SUM
from .target import IGNORE_INDEX, MixedTarget, flattened
from .tracing import transforms_active

# A quarter of the rows leaves the buffer at a twelfth of what two steps hold at their peak (logits,
# their log-softmax and the gradient). Each chunk reads and writes the weight's gradient once more,
# so that smaller ones cost time: 11 of them took 1.4 times as long at 512×1024→100,000.
_CHUNKS, _LEAST_ROWS, _MOST_ROWS = 4, 64, 1024


def linear_soft_target_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor | MixedTarget,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    chunk_rows: int | None = None,
) -> Tensor:
    """The soft-target cross-entropy of a linear layer's output, which is never held as a whole.

    ``loss_i = -Σ_c w_c t'_ic log_softmax(W x_i + b)_c`` with ``t' = (1-ε) t + ε/K``.

    Equivalent to::

        logits = F.linear(features, weight, bias)
        soft_target_cross_entropy(logits, target, weight=class_weight, ignore_index=ignore_index,
                                  reduction=reduction, label_smoothing=label_smoothing)

    Args:
        features: [B, …, D], floating.
        weight: [K, D], of the dtype of the features.
        bias: [K], or None.
        target: a :class:`MixedTarget` with labels [B, …], int64 class indices [B, …], or dense
            probabilities [B, …, K].
        class_weight, ignore_index, reduction, label_smoothing: as ``weight`` and the others of
            :func:`soft_target_cross_entropy`.
        chunk_rows: rows whose logits are held at a time; default a quarter of them, at least 64
            and at most 1024.

    Returns:
        A scalar, or [B, …] for ``"none"``; float32 for half and float32 features, else float64.

    Raises:
        TypeError, ValueError, IndexError: as :func:`soft_target_cross_entropy`; features, weight
            and bias of shapes, dtypes or devices that do not fit each other.
        RuntimeError: from a double backward.

    Notes:
        For ``"mean"`` and ``"sum"`` the gradients are made in the forward, where they are needed,
        and the backward scales them; for ``"none"`` the backward computes the logits of each chunk
        again. Logits are rounded to the dtype of the features, as in two steps; the weight's
        gradient of half types is summed over chunks in float32 (each chunk's product rounded to the
        half type). Under autocast features, weight and bias are cast as F.linear casts them. Runs
        of the same shape on the same machine give the same bits, as far as its matrix products do.
        Under torch.compile and torch.func the two steps run instead, logits and all.

    Source: Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024,
    arXiv 2411.09009; Hsu et al., Liger Kernel, 2024, arXiv 2410.10989.
    """
    _check_layer(features, weight, bias)
    code = check_reduction(reduction)
    if isinstance(target, Tensor) and target.requires_grad:
        raise ValueError(
            "target: expected a tensor that does not require grad, as no gradient reaches it; use "
            ".detach(), or soft_target_cross_entropy on the logits"
        )
    features, weight, bias = _autocast(features, weight, bias)
    shape = features.shape[:-1]
    flat = features.reshape(-1, features.shape[-1])
    rows = len(flat)
    logits = flat.new_empty(()).expand(rows, weight.shape[0])  # a shape to check against
    target = _flat_target(target, (*shape, weight.shape[0]))
    options = class_weight, ignore_index, code, label_smoothing
    arguments, divisor = cross_entropy_arguments(logits, target, *options)
    if torch.compiler.is_compiling() or transforms_active():
        loss, _ = cross_entropy(F.linear(flat, weight, bias), arguments, False, False, False)
    else:
        # The op's mean is over a chunk: chunks give sums, and counts that add up.
        if code == MEAN and divisor is None:
            arguments = (*arguments[:-1], SUM)
        chunks = _Chunks(arguments, rows, weight.shape[0], _chunk_rows(chunk_rows, rows))
        loss, count = _in_chunks(flat, weight, bias, chunks)
        if code == MEAN and divisor is None:
            divisor = count
    if divisor is not None:
        loss = over(loss, divisor)
    return loss.view(shape) if code == NONE else loss


def _check_layer(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for name, t, dims in (("features", features, None), ("weight", weight, 2), ("bias", bias, 1)):
        if t is None and name == "bias":
            continue
        if not isinstance(t, Tensor) or t.dtype not in FLOATING:
            got = t.dtype if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"{name}: expected a floating tensor, got {got}")
        if t.ndim < 2 if dims is None else t.ndim != dims:
            shape = {"features": "[B, …, D]", "weight": "[K, D]", "bias": "[K]"}[name]
            raise ValueError(f"{name}: expected shape {shape}, got {list(t.shape)}")
        if t.device != features.device:
            raise ValueError(
                f"{name}: expected it on {features.device} like features, got {t.device}; "
                f"use .to({str(features.device)!r})"
            )
        if t.dtype != features.dtype and not torch.is_autocast_enabled(features.device.type):
            raise TypeError(
                f"{name}: expected {features.dtype} as features, got {t.dtype}; convert one of "
                "them, or use torch.autocast"
            )
    k, d = weight.shape
    if d != features.shape[-1] or k == 0:
        raise ValueError(
            f"weight: expected shape [K, {features.shape[-1]}] with K >= 1 for features "
            f"{list(features.shape)}, got {list(weight.shape)}"
        )
    if bias is not None and len(bias) != k:
        raise ValueError(f"bias: expected shape [{k}] as weight has rows, got {list(bias.shape)}")


def _autocast(*tensors: Tensor | None) -> list[Any]:
    device = next(t.device.type for t in tensors if t is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors]


def _flat_target(target: Any, shape: tuple[int, ...]) -> Any:
    """``target`` for logits of ``shape`` [B, …, K] as one for logits [rows, K]."""
    if isinstance(target, MixedTarget):
        return flattened(target, shape)
    if not isinstance(target, Tensor) or len(shape) == 2:
        return target  # refused where it does not fit
    expected = shape if target.is_floating_point() else shape[:-1]
    if target.shape != expected:
        raise ValueError(
            f"target: expected shape {list(expected)} for features {[*shape[:-1], 'D']}, got "
            f"{list(target.shape)}"
        )
    return target.reshape(-1, shape[-1]) if target.is_floating_point() else target.reshape(-1)


def _chunk_rows(chunk_rows: int | None, rows: int) -> int:
    if chunk_rows is None:
        return min(max(-(-rows // _CHUNKS), _LEAST_ROWS), _MOST_ROWS)
    chunk_rows = integer("chunk_rows", chunk_rows)
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows: expected an int >= 1, got {chunk_rows}")
    return chunk_rows


# ------------------------------------------------------------------ chunks


class _Chunks:
    """The rows of a target, some at a time, and the buffer of their logits."""

    def __init__(self, arguments: tuple, rows: int, num_classes: int, size: int) -> None:
        # target, partner_labels and weight by row; class_weight
        self.tensors, self.options = arguments[:4], arguments[4:]
        self.rows, self.num_classes, self.size = rows, num_classes, min(size, rows)

    def __iter__(self) -> Iterator[tuple[slice, tuple]]:
        """Each chunk's rows, and what the op takes after its logits."""
        *by_row, class_weight = self.tensors
        for start in range(0, self.rows, max(self.size, 1)):
            at = slice(start, min(start + self.size, self.rows))
            target = (t if t is None else t[at] for t in by_row)
            yield at, (*target, class_weight, *self.options)

    def logits_of(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Callable:
        """A function that writes the logits of a chunk to the buffer."""
        buffer = features.new_empty((self.size, self.num_classes))

        def logits(at: slice) -> Tensor:
            z, x = buffer[: at.stop - at.start], features[at]
            if bias is None:
                return torch.mm(x, weight.t(), out=z)
            return torch.addmm(bias, x, weight.t(), out=z)

        return logits


class _Gradients:
    """Of features, weight and bias, those that are needed, summed chunk by chunk."""

    def __init__(
        self, needs: tuple[bool, ...], features: Tensor, weight: Tensor, acc: torch.dtype
    ) -> None:
        self.features_in, self.weight_in = features, weight
        self.features = torch.empty_like(features) if needs[0] else None
        # The first chunk of the same type is written, not added: one sweep over the weight less.
        self.adds = float(not len(features) or weight.dtype != acc)
        start = torch.zeros_like if self.adds else torch.empty_like
        self.weight = start(weight, dtype=acc) if needs[1] else None
        self.bias = weight.new_zeros(len(weight), dtype=acc) if needs[2] else None

    def add(self, at: slice, grad_logits: Tensor) -> None:
        if self.features is not None:
            torch.mm(grad_logits, self.weight_in, out=self.features[at])
        if self.weight is not None:
            x = self.features_in[at]
            if self.weight.dtype == x.dtype:
                self.weight.addmm_(grad_logits.t(), x, beta=self.adds)
                self.adds = 1.0
            else:
                self.weight.add_(torch.mm(grad_logits.t(), x))
        if self.bias is not None:
            self.bias.add_(grad_logits.sum(0, dtype=self.bias.dtype))

    def all(self) -> list[Tensor | None]:
        return [self.features, self.weight, self.bias]


def _in_chunks(
    features: Tensor, weight: Tensor, bias: Tensor | None, chunks: _Chunks
) -> tuple[Tensor, Tensor]:
    """(sum or rows of the loss, number of rows that count)."""
    wanted = any(t is not None and t.requires_grad for t in (features, weight, bias))
    if not (wanted and torch.is_grad_enabled()):
        with torch.no_grad():
            return _losses(features, weight, bias, chunks, None)[:2]
    function = _Recomputed if chunks.options[-1] == NONE else _MadeInForward
    return function.apply(features, weight, bias, chunks)


def _losses(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    chunks: _Chunks,
    gradients: _Gradients | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, count, stats [3, rows]), and the gradients for an upstream gradient of one."""
    acc = torch.float64 if features.dtype == torch.float64 else torch.float32
    per_row = chunks.options[-1] == NONE
    loss = features.new_zeros(chunks.rows if per_row else (), dtype=acc)
    count = features.new_zeros((), dtype=acc)
    stats = features.new_empty((3, chunks.rows), dtype=acc)
    one = features.new_ones((), dtype=acc)
    logits_of = chunks.logits_of(features, weight, bias)
    for at, arguments in chunks:
        z = logits_of(at)
        part, found, counted, _ = call_op(ops.soft_target_cross_entropy, z, *arguments, False)
        count += counted
        stats[:, at] = found
        if per_row:
            loss[at] = part
        else:
            loss += part
        if gradients is not None:
            write = ops.soft_target_cross_entropy_backward_
            call_op(write, one, z, found, counted, *arguments)
            gradients.add(at, z)
    return loss, count, stats


class _MadeInForward(Function):
    @staticmethod
    @remembers_backend
    def forward(ctx, features, weight, bias, chunks):
        acc = torch.float64 if features.dtype == torch.float64 else torch.float32
        gradients = _Gradients(ctx.needs_input_grad[:3], features, weight, acc)
        loss, count, _ = _losses(features, weight, bias, chunks, gradients)
        ctx.mark_non_differentiable(count)
        ctx.set_materialize_grads(False)
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(*gradients.all())
        return loss, count

    @staticmethod
    @recalls_backend
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return None, None, None, None
        refuse_create_graph("linear_soft_target_cross_entropy", _REMEDY)
        features, *summed = (g if g is None else scaled(g, grad_loss) for g in ctx.saved_tensors)
        # What was summed in float32 is rounded last.
        return features, *(g if g is None else g.to(ctx.weight_dtype) for g in summed), None


class _Recomputed(Function):
    @staticmethod
    @remembers_backend
    def forward(ctx, features, weight, bias, chunks):
        loss, count, stats = _losses(features, weight, bias, chunks, None)
        ctx.mark_non_differentiable(count)
        ctx.set_materialize_grads(False)
        ctx.options = chunks.options
        ctx.sizes = chunks.rows, chunks.num_classes, chunks.size
        # The target's tensors too, so that autograd sees who writes to them before the backward.
        ctx.save_for_backward(features, weight, bias, count, stats, *chunks.tensors)
        return loss, count

    @staticmethod
    @recalls_backend
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return None, None, None, None
        refuse_create_graph("linear_soft_target_cross_entropy", _REMEDY)
        features, weight, bias, count, stats, *tensors = ctx.saved_tensors
        chunks = _Chunks((*tensors, *ctx.options), *ctx.sizes)
        gradients = _Gradients(ctx.needs_input_grad[:3], features, weight, stats.dtype)
        logits_of = chunks.logits_of(features, weight, bias)
        write = ops.soft_target_cross_entropy_backward_
        for at, arguments in chunks:
            z = logits_of(at)
            call_op(write, grad_loss[at], z, stats[:, at].contiguous(), count, *arguments)
            gradients.add(at, z)
        first, *summed = gradients.all()
        return first, *(g if g is None else g.to(weight.dtype) for g in summed), None


_REMEDY = "use F.linear and soft_target_cross_entropy"
