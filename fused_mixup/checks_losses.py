"""Checks of the losses' arguments: which one, what was expected, what came, the remedy."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import FLOATING, MAX_DIMS, may_overlap, refuse_forward_mode
from .plan_checks import integer, is_host_row
from .reference import MEAN, NONE, SUM
from .target import IGNORE_INDEX, NO_IGNORE, MixedTarget, check_labels
from .tracing import leaf_under

REDUCTIONS = {"mean": MEAN, "sum": SUM, "none": NONE}


def arithmetic(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def check_reduction(reduction: str) -> int:
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {sorted(REDUCTIONS)}, got {reduction!r}")
    return REDUCTIONS[reduction]


def check_logits(logits: Tensor) -> None:
    refuse_forward_mode()
    if not isinstance(logits, Tensor) or logits.dtype not in FLOATING:
        got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits: expected a floating tensor [B, K, …], got {got}")
    if logits.layout != torch.strided:
        raise TypeError(f"logits: expected a dense tensor, got {logits.layout}; use .to_dense()")
    if logits.ndim < 2 or logits.shape[1] == 0:
        raise ValueError(
            f"logits: expected shape [B, K, …] with K >= 1, got {list(logits.shape)}; one sample "
            "is a batch of one, logits[None]"
        )
    if logits.ndim - 1 > MAX_DIMS:
        raise ValueError(
            f"logits: expected at most {MAX_DIMS + 1} dims, got {logits.ndim}; flatten some"
        )


def row_shape(logits: Tensor) -> torch.Size:
    """[B, d1…]: a row for each sample and position."""
    return logits.shape[:1] + logits.shape[2:]


# ------------------------------------------------------------------ targets


def check_mixed_target(logits: Tensor, target: MixedTarget) -> None:
    if target.labels.shape != row_shape(logits):
        raise ValueError(
            f"target: expected labels of shape {list(row_shape(logits))} for logits "
            f"{list(logits.shape)}, got {list(target.labels.shape)}"
        )
    if target.num_classes != logits.shape[1]:
        raise ValueError(
            f"target: expected num_classes {logits.shape[1]} as in logits {list(logits.shape)}, "
            f"got {target.num_classes}"
        )
    weight_serves = is_host_row(target.weight) or target.weight.device == logits.device
    if target.labels.device != logits.device or not weight_serves:
        raise ValueError(
            f"target: expected it on {logits.device} like logits, got labels on "
            f"{target.labels.device} and weight on {target.weight.device}; "
            f"use target.to({str(logits.device)!r})"
        )


def check_own_ignore_index(target: MixedTarget, ignore_index: int) -> None:
    """IndexError for labels that are legal by the target's own ignore_index alone."""
    if ignore_index != target.ignore_index:
        for labels in (target.labels, target.partner_labels):
            check_labels(labels, target.num_classes, ignore_index)


def check_class_indices(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    if target.shape != row_shape(logits):
        raise ValueError(
            f"target: expected class indices of shape {list(row_shape(logits))} for logits "
            f"{list(logits.shape)}, got {list(target.shape)}"
        )
    if target.device != logits.device:
        raise ValueError(f"target: expected it on {logits.device} like logits, got {target.device}")
    check_labels(target, logits.shape[1], ignore_index)


def check_dense_target(logits: Tensor, target: Tensor) -> Tensor:
    if not isinstance(target, Tensor):
        raise TypeError(
            f"target: expected a MixedTarget or a tensor [B, K, …], got {type(target).__name__}"
        )
    if not target.is_floating_point():
        raise TypeError(
            "target: expected a MixedTarget, soft labels (floating, of the shape of the logits) or "
            f"int64 class indices [B, …], got {target.dtype}; use .long() for class indices, "
            ".float() for soft labels"
        )
    if target.layout != torch.strided:
        raise TypeError(f"target: expected a dense tensor, got {target.layout}; use .to_dense()")
    if target.shape != logits.shape:
        raise ValueError(
            f"target: expected shape {list(logits.shape)} as logits, got {list(target.shape)}"
        )
    if target.device != logits.device:
        raise ValueError(f"target: expected it on {logits.device} like logits, got {target.device}")
    # Kernels read a dense target in the dtype of the logits or in float32.
    if logits.dtype == torch.float64:
        return target.double()
    return target if target.dtype in (logits.dtype, torch.float32) else target.float()


def chosen_ignore_index(target: object, ignore_index: int) -> int:
    """The ignore_index of a loss and its target: one that is not the default wins."""
    ignore_index = integer("ignore_index", ignore_index)
    if isinstance(target, MixedTarget):
        theirs = target.ignore_index
        if IGNORE_INDEX not in (theirs, ignore_index) and theirs != ignore_index:
            raise ValueError(
                f"ignore_index: expected {theirs} as in target, got {ignore_index}; give it once"
            )
        return ignore_index if theirs == IGNORE_INDEX else theirs
    if isinstance(target, Tensor) and target.is_floating_point():
        if ignore_index not in (IGNORE_INDEX, NO_IGNORE):
            raise ValueError(
                f"ignore_index: expected none with dense targets, got {ignore_index}; rows of "
                "zeros have no loss, or give labels as a MixedTarget"
            )
        return NO_IGNORE
    return ignore_index


def check_target_threshold(threshold: float | None) -> float | None:
    if threshold is None or isinstance(threshold, (int, float)):
        return threshold
    try:
        if isinstance(threshold, str):  # which float() would parse
            raise TypeError
        return float(threshold)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"target_threshold: expected a number or None, got {threshold!r}") from None


def check_probabilities(target: Tensor | MixedTarget) -> None:
    """ValueError for rows that are no distribution. Reads values: a GPU is waited for."""
    if isinstance(target, MixedTarget):
        name, t = "target: expected weights", target.weight.float()
        tolerance = 1e-5  # weights are float32: λ and 1-λ
    elif target.is_floating_point():
        name, t = "target: expected probabilities", target.detach().movedim(1, -1)
        # Each of K rounded entries is off by up to eps/2 of its size, and they sum to one; eager
        # normalisation in a half type adds as much again.
        tolerance = max(1e-5, 2 * torch.finfo(t.dtype).eps)
        t = t.to(torch.float64 if t.dtype == torch.float64 else torch.float32)
    else:
        return
    # Written so that NaN is bad too.
    good = (t >= 0).all(-1) & ((t.sum(-1) - 1).abs() <= tolerance)
    if bool(good.all()):
        return
    row = tuple((~good).nonzero()[0].tolist())
    raise ValueError(
        f"{name} >= 0 that sum to one (within {tolerance:.0e}), got a sum of "
        f"{float(t[row].sum()):.6g} and a least value of {float(t[row].min()):.6g} in row "
        f"{row[0] if len(row) == 1 else row}; normalise them, or leave validate=False"
    )


# ------------------------------------------------------------------ weights of classes


def check_class_weight(name: str, weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """[K] as kernels read it."""
    if weight is None:
        return None
    _check_weight(name, weight, logits)
    if weight.shape != logits.shape[1:2]:
        raise ValueError(
            f"{name}: expected shape [{logits.shape[1]}], one for each class, got "
            f"{list(weight.shape)}"
        )
    return weight.to(arithmetic(logits)).contiguous()


def check_broadcast_weight(name: str, weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """[K] as kernels read it, or None where the weight differs along other dims than the classes.

    Shapes broadcast as everywhere in PyTorch, from the last dim.
    """
    if weight is None:
        return None
    _check_weight(name, weight, logits)
    shape = (1,) * (logits.ndim - weight.ndim) + tuple(weight.shape)
    fits = len(shape) == logits.ndim and all(
        n in (1, m) for n, m in zip(shape, logits.shape, strict=True)
    )
    if not fits:
        k = logits.shape[1]
        raise ValueError(
            f"{name}: expected a shape that broadcasts to that of logits, {list(logits.shape)}, "
            f"got {list(weight.shape)}; one for each class is {[k] + [1] * (logits.ndim - 2)}"
        )
    if any(n != 1 for d, n in enumerate(shape) if d != 1):
        return None
    return weight.to(arithmetic(logits)).reshape(-1).expand(logits.shape[1]).contiguous()


def _check_weight(name: str, weight: Tensor, logits: Tensor) -> None:
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"{name}: expected a floating tensor, got {got}")
    if weight.requires_grad:
        raise ValueError(
            f"{name}: expected a tensor that does not require grad, as no gradient reaches it; "
            "use .detach()"
        )
    if weight.device != logits.device:
        raise ValueError(
            f"{name}: expected it on {logits.device} like logits, got {weight.device}; "
            f"use .to({str(logits.device)!r})"
        )


# ------------------------------------------------------------------ memory


def check_modes(
    logits: Tensor, target: object, inplace_backward: bool, grad_in_forward: bool
) -> None:
    if not (inplace_backward or grad_in_forward):
        return
    if inplace_backward and grad_in_forward:
        raise ValueError(
            "inplace_backward: expected one of inplace_backward and grad_in_forward, got both; the "
            "gradient is written either over the logits or beside them"
        )
    name = "inplace_backward" if inplace_backward else "grad_in_forward"
    if isinstance(target, Tensor) and target.requires_grad:
        raise ValueError(
            f"{name}: expected a target that does not require grad, as no gradient reaches it in "
            "this mode; leave the mode out, or use target.detach()"
        )
    if not (inplace_backward and logits.requires_grad and torch.is_grad_enabled()):
        return
    compiling = torch.compiler.is_compiling()
    if logits.is_leaf or (not compiling and leaf_under(logits) is not None):
        raise ValueError(
            "inplace_backward: expected logits that a model computed, got a leaf that requires "
            "grad or a view of one, whose values the backward would destroy; leave the mode out"
        )
    if not compiling and not logits.is_contiguous() and may_overlap(logits):
        raise ValueError(
            "inplace_backward: expected each logit in memory of its own, got a view of strides "
            f"{list(logits.stride())}, which may be expanded or overlapping; use .contiguous()"
        )
