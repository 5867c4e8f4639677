"""A linear layer and its cross-entropy, chunk by chunk, and the gradients of both.

Per chunk of rows, in one buffer that all chunks share:
    logits   = features · weightᵀ + bias
    gradient over the logits (soft_target_cross_entropy_backward_)
    grad_features = G · weight,  grad_weight += Gᵀ · features,  grad_bias += Σ G
so that a forward with gradients holds the gradients and the buffer, and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd import Function

from ..codes import NONE
from ..dtypes import arithmetic
from ..forcing import recalls_backend, remembers_backend
from ..memory import recycled_tensor
from ..schemas import CrossEntropyArguments
from ..tracing import is_batch
from .autograd import call_op, refuse_create_graph, rescale
from .cross_entropy import kernels_for

_REMEDY = "use F.linear and soft_target_cross_entropy"
_CACHED = 1 << 20  # elements of a product


def _working_tensor(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the device of ``like``."""
    if like.is_cpu:
        return recycled_tensor(torch.Size(shape), dtype)
    return like.new_empty(shape, dtype=dtype)


class Chunks:
    """The rows of a target in chunks, and a buffer for the logits of one chunk."""

    def __init__(
        self, arguments: CrossEntropyArguments, rows: int, num_classes: int, size: int
    ) -> None:
        # target, partner_labels and weight by row; class_weight
        self.tensors, self.options = arguments[:4], arguments[4:]
        self.rows, self.num_classes, self.size = rows, num_classes, min(size, rows)
        self.kernels = kernels_for(arguments.weight)

    def __iter__(self) -> Iterator[tuple[slice, tuple]]:
        """Each chunk's rows, and what the op takes after its logits."""
        *by_row, class_weight = self.tensors
        for start in range(0, self.rows, max(self.size, 1)):
            at = slice(start, min(start + self.size, self.rows))
            target = (t if t is None else t[at] for t in by_row)
            yield at, (*target, class_weight, *self.options)

    def logits_of(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Callable:
        """A function that writes the logits of a chunk to the buffer."""
        buffer = _working_tensor(features, (self.size, self.num_classes), features.dtype)

        def logits(at: slice) -> Tensor:
            z, x = buffer[: at.stop - at.start], features[at]
            if bias is None:
                return torch.mm(x, weight.t(), out=z)
            return torch.addmm(bias, x, weight.t(), out=z)

        return logits


class _Gradients:
    """The needed gradients of features, weight and bias, summed chunk by chunk."""

    def __init__(
        self, needs: tuple[bool, ...], features: Tensor, weight: Tensor, chunks: Chunks
    ) -> None:
        self.features_in, self.weight_in = features, weight
        acc = arithmetic(features.dtype)
        self.features = torch.empty_like(features) if needs[0] else None
        # The first chunk is written, not added: this saves a sweep over weight.
        self.adds = float(not len(features))
        one_chunk = chunks.size == chunks.rows  # then nothing is summed
        dtype = weight.dtype if one_chunk else acc
        self.weight = _working_tensor(weight, weight.shape, dtype) if needs[1] else None
        if self.weight is not None and self.adds:
            self.weight.zero_()
        self.bias = weight.new_zeros(len(weight), dtype=acc) if needs[2] else None

    def add(self, at: slice, grad_logits: Tensor) -> None:
        if self.features is not None:
            torch.mm(grad_logits, self.weight_in, out=self.features[at])
        if self.weight is not None:
            x = self.features_in[at]
            if self.weight.dtype == x.dtype:
                self.weight.addmm_(grad_logits.t(), x, beta=self.adds)
            else:
                _add_rounded(self.weight, grad_logits, x, bool(self.adds))
            self.adds = 1.0
        if self.bias is not None:
            self.bias.add_(grad_logits.sum(0, dtype=self.bias.dtype))

    def all(self) -> list[Tensor | None]:
        return [self.features, self.weight, self.bias]


def _add_rounded(total: Tensor, grad_logits: Tensor, x: Tensor, adds: bool) -> None:
    """``total += grad_logitsᵀ · x``, or ``=``: a product of half types in float32 [K, D].

    add_ casts the whole of its argument first: on the CPU parts of it stay in the cache.
    """
    k, d = total.shape
    size = max(_CACHED // max(d, 1), 1) if x.is_cpu else k
    product = x.new_empty((min(size, k), d))
    for start in range(0, k, size):
        sums, columns = total[start : start + size], grad_logits[:, start : start + size]
        part = torch.mm(columns.t(), x, out=product[: len(sums)])
        if adds:
            sums.add_(part)
        else:
            sums.copy_(part)


def sum_chunks(
    features: Tensor, weight: Tensor, bias: Tensor | None, chunks: Chunks
) -> tuple[Tensor, Tensor]:
    """The loss (its sum, or one for each row), and the number of rows that count."""
    wanted = any(t is not None and t.requires_grad for t in (features, weight, bias))
    if not (wanted and torch.is_grad_enabled()):
        with torch.no_grad():
            return _losses(features, weight, bias, chunks, None)[:2]
    function = _Recomputed if chunks.options[-1] == NONE else _MadeInForward
    return function.apply(features, weight, bias, chunks)


def _losses(
    features: Tensor,  # [rows, D]
    weight: Tensor,  # [K, D]
    bias: Tensor | None,  # [K]
    chunks: Chunks,
    gradients: _Gradients | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, count and stats [3, rows]; ``gradients`` get those for an upstream gradient of one."""
    acc = arithmetic(features.dtype)
    per_row = chunks.options[-1] == NONE
    loss = features.new_zeros(chunks.rows if per_row else (), dtype=acc)
    count = features.new_zeros((), dtype=acc)
    stats = features.new_empty((3, chunks.rows), dtype=acc)
    one = features.new_ones((), dtype=acc)
    logits_of = chunks.logits_of(features, weight, bias)
    for at, arguments in chunks:
        z = logits_of(at)
        op = chunks.kernels.soft_target_cross_entropy
        part, found, counted, _ = call_op(op, z, *arguments, False)
        count += counted
        stats[:, at] = found
        if per_row:
            loss[at] = part
        else:
            loss += part
        if gradients is not None:
            write = chunks.kernels.soft_target_cross_entropy_backward_
            call_op(write, one, z, found, counted, *arguments)
            gradients.add(at, z)
    return loss, count, stats


class _MadeInForward(Function):
    @staticmethod
    @remembers_backend
    def forward(ctx, features, weight, bias, chunks):
        gradients = _Gradients(ctx.needs_input_grad[:3], features, weight, chunks)
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
        features, *summed = (g if g is None else rescale(g, grad_loss) for g in ctx.saved_tensors)
        # Sums in float32 are rounded last.
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
        # The target's tensors too, so that autograd detects writes to them before the backward.
        ctx.save_for_backward(features, weight, bias, count, stats, *chunks.tensors)
        return loss, count

    @staticmethod
    @recalls_backend
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return None, None, None, None
        refuse_create_graph("linear_soft_target_cross_entropy", _REMEDY)
        if is_batch(grad_loss):
            raise NotImplementedError(
                "linear_soft_target_cross_entropy: expected one upstream gradient, got a batch of "
                f"them (is_grads_batched); {_REMEDY}"
            )
        features, weight, bias, count, stats, *tensors = ctx.saved_tensors
        chunks = Chunks(CrossEntropyArguments(*tensors, *ctx.options), *ctx.sizes)
        gradients = _Gradients(ctx.needs_input_grad[:3], features, weight, chunks)
        logits_of = chunks.logits_of(features, weight, bias)
        write = chunks.kernels.soft_target_cross_entropy_backward_
        for at, arguments in chunks:
            z = logits_of(at)
            call_op(write, grad_loss[at], z, stats[:, at].contiguous(), count, *arguments)
            gradients.add(at, z)
        first, *summed = gradients.all()
        return first, *(g if g is None else g.to(weight.dtype) for g in summed), None
