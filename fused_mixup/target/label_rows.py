"""The tensors of a target, sliced, split and moved together as one batch of labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arguments import is_host_row, kind
from ..frozen import Frozen
from ..reference.blending import weight_columns
from ..reference.dense import label_columns

if TYPE_CHECKING:
    from typing_extensions import Self


# The weights of one label: the second term drops.
_ONE_LABEL = torch.tensor([[1.0, 0.0]], dtype=torch.float32, device="cpu")


def one_label_weight(batch_size: int) -> Tensor:
    """float32 [B, 2] for labels that are not mixed: one row, which serves labels on any device."""
    return _ONE_LABEL.expand(batch_size, 2)


def split_labels(labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """labels, partner_labels and weight of a target, from labels [B, k, …] and weight [B, k]."""
    if not isinstance(labels, Tensor) or labels.ndim < 2 or labels.shape[1] < 1:
        raise ValueError(
            f"labels: expected shape [B, k, …] with k >= 1 labels a row, got {kind(labels)}"
        )
    if isinstance(weight, Tensor) and weight.shape != labels.shape[:2]:
        raise ValueError(
            f"weight: expected shape {list(labels.shape[:2])}, one for each label, got "
            f"{list(weight.shape)}"
        )
    own, count = labels[:, 0], labels.shape[1]
    if count == 1:
        if isinstance(weight, Tensor):
            weight = torch.nn.functional.pad(weight, (0, 1))
        return own, own, weight
    return own, labels[:, 1] if count == 2 else labels[:, 1:], weight


class LabelRows(Frozen):
    """The methods of :class:`fused_mixup.MixedTarget` as a batch of B labels."""

    labels: Tensor  # [B, …]
    partner_labels: Tensor  # [B, …], or [B, k-1, …] of k > 2 labels
    weight: Tensor  # [B, 2], or [B, k]; one expanded row on the CPU serves labels on any device

    def _replace(self, labels: Tensor, partner_labels: Tensor, weight: Tensor) -> Self:
        """The target with other tensors, whose values have been checked."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        """The shape of the labels, [B, …]."""
        return self.labels.shape

    @property
    def device(self) -> torch.device:
        """Where the labels live."""
        return self.labels.device

    @property
    def num_labels(self) -> int:
        """k, how many labels a row has: 2, or more."""
        return self.weight.shape[1]

    @property
    def indices(self) -> tuple[Tensor, Tensor]:
        """labels and partner_labels as int64, which any ignore_index can be compared with."""
        return self.labels.long(), self.partner_labels.long()

    @property
    def dominant(self) -> Tensor:
        """int64 [B, …]: the label with the largest weight (the first of them on a tie)."""
        weights = weight_columns(self.weight, self.labels, torch.float32)
        label, most = self.labels, weights[0]
        columns = label_columns(self.labels, self.partner_labels)
        for other, weight in zip(columns[1:], weights[1:], strict=True):
            label = torch.where(weight > most, other, label)
            most = torch.maximum(weight, most)
        return label

    def size(self, dim: int | None = None) -> Any:
        """``shape``, or the size of one dim."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> Self:
        if not isinstance(rows, (slice, Tensor, list)) and not hasattr(rows, "__array__"):
            raise TypeError(
                f"target[…]: expected a slice, a list or a tensor of samples, got {kind(rows)}; "
                "for one sample use target[i : i + 1]"
            )
        labels = self.labels[rows]
        if labels.ndim != self.labels.ndim:
            raise IndexError(
                f"target[…]: expected an index of one dim, for [B] alone, got {kind(rows)}"
            )
        weight = self.weight
        if is_host_row(weight) and len(weight):  # stays one row for any device
            weight = weight[:1].expand(len(labels), -1)
        else:
            weight = weight[rows.to(weight.device) if isinstance(rows, Tensor) else rows]
        return self._replace(labels, self.partner_labels[rows], weight)

    __iter__ = None  # with __getitem__ only, Python would iterate by target[0]

    def split(self, split_size: int | Sequence[int]) -> tuple[Self, ...]:
        """Split along the samples, as :meth:`torch.Tensor.split`."""
        return self._split_as(self.labels.split(split_size))

    def chunk(self, chunks: int) -> tuple[Self, ...]:
        """Split into chunks along the samples, as :meth:`torch.Tensor.chunk`."""
        return self._split_as(self.labels.chunk(chunks))

    def _split_as(self, parts: Sequence[Tensor]) -> tuple[Self, ...]:
        stops = [0]
        for part in parts:
            stops.append(stops[-1] + len(part))
        return tuple(self[a:b] for a, b in pairwise(stops))

    # ---------------------------------------------------------------- moving

    def to(
        self,
        device: torch.device | str | int | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> Self:
        """The same target on ``device``. A dtype is ignored: labels and weights keep theirs."""
        if device is None or isinstance(device, torch.dtype):
            return self
        moved = (
            t.to(device, non_blocking=non_blocking)
            for t in (self.labels, self.partner_labels, self.weight)
        )
        return self._replace(*moved)

    def cpu(self) -> Self:
        """The same target on the CPU."""
        return self.to("cpu")

    def cuda(
        self, device: torch.device | str | int | None = None, non_blocking: bool = False
    ) -> Self:
        """The same target on a GPU, by default the current one."""
        device = "cuda" if device is None else device
        return self.to(device, non_blocking=non_blocking)

    def clone(self) -> Self:
        """The same target in memory of its own."""
        return self._replace(self.labels.clone(), self.partner_labels.clone(), self.weight.clone())

    def pin_memory(self, device: Any = None) -> Self:
        """The same target in page-locked memory; a loader with ``pin_memory=True`` calls it."""
        tensors = self.labels, self.partner_labels, self.weight.contiguous()
        return self._replace(*(t.pin_memory() for t in tensors))
