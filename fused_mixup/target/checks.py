"""Checks of labels, and of the tensors and numbers of a target."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..arguments import integer, is_host_row, kind
from ..codes import NO_IGNORE
from ..tracing import has_host_values, in_vmap

# Class maps are kept in the dtype of the masks that a data set gives: mixing them as int64 would
# move eight times as many bytes.
MAP_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


# It reads labels for a check, whatever backend is forced for the work.
_bounds_of_kept = ops.default_op("label_bounds")


def _read_once(labels: Tensor) -> Tensor:
    """The labels without the repeats of an expanded tensor, which may be any number."""
    if 0 not in labels.stride():
        return labels
    return labels[tuple(slice(1 if step == 0 else None) for step in labels.stride())]


def label_bounds(labels: Tensor) -> tuple[int, int]:
    """The smallest and the largest of at least one label on the CPU."""
    low, high = torch.aminmax(labels)
    return int(low), int(high)


def check_labels(labels: Tensor, num_classes: int, ignore_index: int = NO_IGNORE) -> bool:
    """Raise TypeError or IndexError for labels that are no class indices (values: only on the CPU).

    Returns True where all are known to be in [0, num_classes).
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        if not isinstance(labels, Tensor) or labels.ndim < 2 or labels.dtype not in MAP_DTYPES:
            raise TypeError(
                f"labels: expected an int64 tensor of class indices, got {got}; use .long()"
            )
    if not has_host_values(labels) or labels.numel() == 0:
        return False
    if in_vmap():
        return False
    labels = _read_once(labels)
    low, high = label_bounds(labels)
    if low >= 0 and high < num_classes:
        return True
    if ignore_index != NO_IGNORE:
        low, high = _bounds_of_kept(labels, ignore_index).tolist()
    if low < 0 or high >= num_classes:
        legal = "" if ignore_index == NO_IGNORE else f" or {ignore_index}, which is ignored"
        raise IndexError(
            f"labels: expected class indices in [0, {num_classes}){legal}, got "
            f"{low if low < 0 else high}; check num_classes"
        )
    return False


def check_num_classes(num_classes: int) -> int:
    num_classes = integer("num_classes", num_classes)
    if num_classes < 1:
        raise ValueError(f"num_classes: expected an int >= 1, got {num_classes}")
    return num_classes


def check_label_smoothing(label_smoothing: float) -> float:
    if not isinstance(label_smoothing, (int, float)):  # a NumPy number, or no number
        try:
            label_smoothing = float(label_smoothing)
        except (TypeError, ValueError):
            got = kind(label_smoothing)
            raise TypeError(f"label_smoothing: expected a number, got {got}") from None
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing}")
    return label_smoothing


def check_target_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"dtype: expected a floating dtype, got {dtype}")


def check_target_tensors(labels: Tensor, partner_labels: Tensor, weight: Tensor) -> None:
    """Raise TypeError or ValueError for tensors that make no target with int64 ``labels``."""
    if labels.ndim < 1:
        raise ValueError("labels: expected shape [B, …], got a scalar")
    more = isinstance(partner_labels, Tensor) and partner_labels.ndim == labels.ndim + 1
    shape = [*labels.shape[:1], partner_labels.shape[1] if more else 1, *labels.shape[1:]]
    if (
        not isinstance(partner_labels, Tensor)
        or list(partner_labels.shape) != (shape if more else list(labels.shape))
        or (more and shape[1] < 2)
        or partner_labels.dtype != labels.dtype
        or partner_labels.device != labels.device
    ):
        raise ValueError(
            f"partner_labels: expected a {labels.dtype} tensor of shape {list(labels.shape)} on "
            f"{labels.device} as labels, got {kind(partner_labels)}; of k > 2 labels make a target "
            "by MixedTarget.of_labels"
        )
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32:
        raise TypeError(
            f"weight: expected a float32 tensor, got {kind(weight)}; λ in half precision loses "
            "labels"
        )
    if weight.shape != (labels.shape[0], shape[1] + 1):
        raise ValueError(
            f"weight: expected shape {[labels.shape[0], shape[1] + 1]}, one for each label, got "
            f"{list(weight.shape)}"
        )
    if weight.requires_grad:
        raise ValueError(
            "weight: expected a tensor that does not require grad, as no gradient reaches it; "
            "use .detach()"
        )
    if has_host_values(weight) and not in_vmap():
        rows = weight[:1] if is_host_row(weight) else weight
        if not bool(rows.isfinite().all()):
            raise ValueError("weight: expected finite numbers, got infinity or NaN")
