"""The last linear layer and its cross-entropy in one: no [B, K] logits are held."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_plain_tensor, integer
from ..codes import IGNORE_INDEX, MEAN, NONE, SUM
from ..dtypes import FLOATING
from ..schemas import focal_everywhere
from ..target.mixed_target import MixedTarget
from ..tracing import in_forward_mode, transforms_active
from .arguments import cross_entropy_arguments, divide_or_nan, flatten_target, promote
from .checks import check_reduction
from .cross_entropy import cross_entropy
from .linear_chunks import Chunks, sum_chunks

# A quarter of the rows leaves the buffer at a twelfth of what two steps hold at their peak (logits,
# their log-softmax and the gradient). Each chunk reads and writes the weight's gradient once more,
# so that smaller ones cost time: 11 of them took 1.4 times as long at 512×1024→100,000.
_CHUNKS, _LEAST_ROWS, _MOST_ROWS = 4, 64, 1024


def linear_soft_target_cross_entropy(
    features: Tensor,  # [B, …, D]
    weight: Tensor,  # [K, D]
    bias: Tensor | None,  # [K]
    target: Tensor | MixedTarget,  # [B, …] or [B, …, K]
    *,
    class_weight: Tensor | None = None,  # [K]
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    z_loss: float = 0.0,
    chunk_rows: int | None = None,
) -> Tensor:
    """The soft-target cross-entropy of a linear layer's output, which is never held as a whole.

    ``loss_i = -Σ_c w_c t'_ic (1-p_ic)^γ log p_ic + z logsumexp(W x_i + b)²`` with
    ``p_i = softmax(W x_i + b)`` and ``t' = (1-ε) t + ε/K``.

    Equivalent to::

        logits = F.linear(features, weight, bias)
        soft_target_cross_entropy(logits, target, weight=class_weight, ignore_index=ignore_index,
                                  reduction=reduction, label_smoothing=label_smoothing,
                                  focal_gamma=focal_gamma, z_loss=z_loss)

    Args:
        features: [B, …, D], floating.
        weight: [K, D], of the dtype of the features.
        bias: [K], or None.
        target: a :class:`MixedTarget` with labels [B, …], int64 class indices [B, …], or dense
            probabilities [B, …, K].
        class_weight, ignore_index, reduction, label_smoothing, focal_gamma, z_loss: as ``weight``
            and the others of :func:`soft_target_cross_entropy`.
        chunk_rows: rows whose logits are held at a time; default a quarter of them, at least 64
            and at most 1024.

    Returns:
        A scalar, or [B, …] for ``"none"``; float32 for half and float32 features, float64 for
        float64 features or a float64 dense target.

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
        Under torch.compile, torch.func and forward mode, and with ``focal_gamma`` where a target is
        dense or smoothed, the two steps run instead and hold logits.

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
    options = class_weight, ignore_index, code, label_smoothing, focal_gamma, z_loss
    arguments, divisor = cross_entropy_arguments(logits, target, *options)
    traced = torch.compiler.is_compiling() or transforms_active() or in_forward_mode()
    if traced or focal_everywhere(arguments):
        loss, _ = cross_entropy(F.linear(flat, weight, bias), arguments, False, False, False)
    else:
        # The op's mean is over a chunk: so chunks give sums, and counts that add up.
        if code == MEAN and divisor is None:
            arguments = arguments._replace(reduction=SUM)
        chunks = Chunks(arguments, rows, weight.shape[0], _chunk_rows(chunk_rows, rows))
        loss, count = sum_chunks(flat, weight, bias, chunks)
        if code == MEAN and divisor is None:
            divisor = count
    if divisor is not None:
        loss = divide_or_nan(loss, divisor)
    loss = promote(loss, target)
    return loss.reshape(shape) if code == NONE else loss


def _check_layer(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for name, t, dims in (("features", features, None), ("weight", weight, 2), ("bias", bias, 1)):
        if t is None and name == "bias":
            continue
        check_plain_tensor(name, t)
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
    """The target for logits [rows, K], from one for logits of ``shape`` [B, …, K]."""
    if isinstance(target, MixedTarget):
        return flatten_target(target, shape)
    if not isinstance(target, Tensor) or len(shape) == 2:
        return target  # checked later
    check_plain_tensor("target", target)
    if target.shape == shape:
        return target.reshape(-1, shape[-1])
    expected = shape if target.is_floating_point() else shape[:-1]
    if target.shape != expected:
        raise ValueError(
            f"target: expected shape {list(expected)} for features {[*shape[:-1], 'D']}, got "
            f"{list(target.shape)}"
        )
    return target.reshape(-1)


def _chunk_rows(chunk_rows: int | None, rows: int) -> int:
    if chunk_rows is None:
        return min(max(-(-rows // _CHUNKS), _LEAST_ROWS), _MOST_ROWS)
    chunk_rows = integer("chunk_rows", chunk_rows)
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows: expected an int >= 1, got {chunk_rows}")
    return chunk_rows
