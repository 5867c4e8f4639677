"""Checks of the losses' arguments; errors say what was expected, what came, and the remedy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import check_plain_tensor, integer, is_host_row, kind
from ..checks import may_overlap
from ..codes import IGNORE_INDEX, MAX_DIMS, NO_IGNORE, REDUCTIONS
from ..dtypes import FLOATING, arithmetic
from ..target.checks import check_labels
from ..target.mixed_target import MixedTarget
from ..tracing import in_vmap, leaf_under


def check_reduction(reduction: str) -> int:
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {sorted(REDUCTIONS)}, got {kind(reduction)}")
    return REDUCTIONS[reduction]


def check_logits(logits: Tensor) -> None:
    check_plain_tensor("logits", logits)
    if not isinstance(logits, Tensor) or logits.dtype not in FLOATING:
        got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits: expected a floating tensor [B, K, …], got {got}")
    _check_layout("logits", logits)
    if logits.ndim < 2 or logits.shape[1] == 0:
        raise ValueError(
            f"logits: expected shape [B, K, …] with K >= 1, got {list(logits.shape)}; one sample "
            "is a batch of one, logits[None]"
        )
    if logits.ndim - 1 > MAX_DIMS:
        raise ValueError(
            f"logits: expected at most {MAX_DIMS + 1} dims, got {logits.ndim}; flatten some"
        )


def _check_layout(name: str, x: Tensor) -> None:
    if x.is_nested:
        raise TypeError(
            f"{name}: expected one tensor, got a nested one; use .to_padded_tensor() and "
            "ignore_index, or torch.cat of its rows"
        )
    if x.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got {x.layout}; use .to_dense()")


def row_shape(logits: Tensor) -> torch.Size:
    """The shape [B, d1…]: a row for each sample and position."""
    return logits.shape[:1] + logits.shape[2:]


# ------------------------------------------------------------------ targets


def check_mixed_target(logits: Tensor, target: MixedTarget, num_classes: int | None = None) -> None:
    """Raise unless the target fits; ``num_classes`` is its K where it is not that of the logits."""
    for name in ("labels", "partner_labels", "weight"):
        check_plain_tensor(f"target.{name}", getattr(target, name))
    if target.labels.shape != row_shape(logits):
        raise ValueError(
            f"target: expected labels of shape {list(row_shape(logits))} for logits "
            f"{list(logits.shape)}, got {list(target.labels.shape)}"
        )
    expected = logits.shape[1] if num_classes is None else num_classes
    if target.num_classes != expected:
        meant = f"as in logits {list(logits.shape)}"
        if num_classes is not None:
            meant = f"for one logit a row, {list(logits.shape)}: labels 0 (absent) and 1 (present)"
        raise ValueError(
            f"target: expected num_classes {expected} {meant}, got {target.num_classes}"
        )
    target.labels_in_range  # noqa: B018  IndexError where labels written to later are out of range
    weight_serves = is_host_row(target.weight) or target.weight.device == logits.device
    if target.labels.device != logits.device or not weight_serves:
        raise ValueError(
            f"target: expected it on {logits.device} like logits, got labels on "
            f"{target.labels.device} and weight on {target.weight.device}; "
            f"use target.to({str(logits.device)!r})"
        )


def check_own_ignore_index(target: MixedTarget, ignore_index: int) -> None:
    """Raise IndexError for labels that are legal only by the target's own ignore_index."""
    if ignore_index != target.ignore_index:
        for labels in (target.labels, target.partner_labels):
            check_labels(labels, target.num_classes, ignore_index)


def is_class_indices(logits: Tensor, target: object, binary: bool = False) -> bool:
    """True for int64 [B, d1…]. Raises TypeError or ValueError for other non-floating tensors."""
    check_plain_tensor("target", target)
    if not isinstance(target, Tensor) or target.is_floating_point():
        return False
    shape, rows = target.shape, row_shape(logits)
    if target.dtype == torch.int64 and shape == rows:
        return True
    expected = (
        f"target: expected class indices of shape {list(rows)} (int64), or soft labels "
        f"{list(logits.shape)} (floating), got {target.dtype} {list(shape)}"
    )
    if target.is_complex():
        raise TypeError(expected)
    if shape == rows:
        raise TypeError(f"{expected}; use .long() for class indices")
    if shape == logits.shape and (binary or shape[1] > 1):
        indices = "" if binary else ", or .argmax(1) for class indices"
        raise TypeError(f"{expected}; use .float() for a number of each class{indices}")
    if shape == (*rows[:1], 1, *rows[1:]):
        long = "" if target.dtype == torch.int64 else ".long()"
        raise ValueError(f"{expected}; use .squeeze(1){long}")
    raise ValueError(expected)


def check_class_indices(
    logits: Tensor, target: Tensor, ignore_index: int, num_classes: int | None = None
) -> None:
    if target.device != logits.device:
        raise ValueError(f"target: expected it on {logits.device} like logits, got {target.device}")
    check_labels(target, num_classes or logits.shape[1], ignore_index)


def check_dense_target(logits: Tensor, target: Tensor) -> Tensor:
    if not isinstance(target, Tensor):
        raise TypeError(
            f"target: expected a MixedTarget or a tensor [B, K, …], got {type(target).__name__}"
        )
    _check_layout("target", target)
    if target.shape != logits.shape:
        remedy = ""
        if target.shape == row_shape(logits):
            one = logits.ndim > 1 and logits.shape[1] == 1
            remedy = "; use .unsqueeze(1)" if one else "; use .long() for class indices"
        elif target.shape == (*logits.shape[:1], 1, *logits.shape[2:]):
            indices = "" if logits.ndim == 1 else ".long() for class indices"
            remedy = f"; use .squeeze(1){indices}"
        raise ValueError(
            f"target: expected shape {list(logits.shape)} as logits, got {list(target.shape)}"
            f"{remedy}"
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
    return None if threshold is None else _number("target_threshold", threshold, " or None")


def check_coefficient(name: str, value: float) -> float:
    """A finite number >= 0 (γ of a focal loss, z of a z-loss) as a float."""
    value = _number(name, value)
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value}; 0 leaves it out")
    return float(value)


def _number(name: str, value: float, or_else: str = "") -> float:
    if isinstance(value, (int, float)):
        return value
    try:
        if isinstance(value, str):  # float() would parse it
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: expected a number{or_else}, got {kind(value)}") from None


def check_probabilities(target: Tensor | MixedTarget, one_logit: bool = False) -> None:
    """Raise ValueError for rows that are no distribution. This reads values, so it waits for a GPU.

    ``one_logit``: a row of a dense target is the one number of a binary classifier, in [0, 1].
    """
    if in_vmap():
        raise NotImplementedError(
            "validate: expected False where no value can be read (torch.func.vmap, a compiled "
            "transform); check the target before"
        )
    if isinstance(target, MixedTarget):
        name, t = "target: expected weights", target.weight.float()
        tolerance = 1e-5  # weights are float32: λ and 1-λ
    elif target.is_floating_point():
        name, t = "target: expected probabilities", target.detach().movedim(1, -1)
        # Each of K rounded entries is off by up to eps/2 of its size, and they sum to one; eager
        # normalisation in a half type adds as much again.
        tolerance = max(1e-5, 2 * torch.finfo(t.dtype).eps)
        t = t.to(arithmetic(t.dtype))
    else:
        return
    # The comparisons are false for NaN, so NaN fails too.
    total = t.sum(-1)
    off = (total - 1).clamp_min(0) if one_logit else (total - 1).abs()
    good = (t >= 0).all(-1) & (off <= tolerance)
    if bool(good.all()):
        return
    row = tuple((~good).nonzero()[0].tolist())
    most = "at most " if one_logit else ""
    raise ValueError(
        f"{name} >= 0 that sum to {most}one (within {tolerance:.0e}), got a sum of "
        f"{float(t[row].sum()):.6g} and a least value of {float(t[row].min()):.6g} in row "
        f"{row[0] if len(row) == 1 else row}; normalise them, or leave validate=False"
    )


# ------------------------------------------------------------------ weights of classes


def check_class_weight(name: str, weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """The weight [K] as kernels read it."""
    if weight is None:
        return None
    _check_weight(name, weight, logits)
    if weight.shape != logits.shape[1:2]:
        raise ValueError(
            f"{name}: expected shape [{logits.shape[1]}], one for each class, got "
            f"{list(weight.shape)}"
        )
    return weight.to(arithmetic(logits.dtype)).contiguous()


def check_broadcast_weight(name: str, weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """The weight [K] as kernels read it; None where it differs along other dims than the classes.

    Shapes broadcast from the last dim, as everywhere in PyTorch.
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
    return weight.to(arithmetic(logits.dtype)).reshape(-1).expand(logits.shape[1]).contiguous()


def _check_weight(name: str, weight: Tensor, logits: Tensor) -> None:
    check_plain_tensor(name, weight)
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
            "gradient is written either over the logits or to a new tensor"
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
