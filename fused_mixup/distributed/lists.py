"""Entries with rows for each sample in a list, as boxes are, on their way between ranks."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..batch_mix.entries import Entry
from ..batch_mix.structure import first_of
from ..batch_mix.tv_tensors import plain, wrap_like
from .global_plan import GlobalPlan
from .parts import Part

_NONE = -1  # the first size of a sample that has no rows


class ListEntry(Part):
    """An entry whose value is a list, with a tensor for each sample, rows of objects, or None."""

    def __init__(self, entry: Entry) -> None:
        self._value = entry.value
        self._like = first_of(entry.value)
        self._tensors = [_as_tensor(v) for v in entry.value]
        first = first_of(self._tensors)
        self._first = torch.empty(0, dtype=torch.uint8) if first is None else first
        none = [_NONE] * self._first.ndim
        shapes = [none if t is None else list(t.shape) for t in self._tensors]
        # int64 [n, ndim]: the shape of each sample's tensor
        self.shapes = torch.tensor(shapes, dtype=torch.int64).view(len(shapes), self._first.ndim)
        self._came: dict[int, Any] = {}

    @property
    def form(self) -> str:
        """Dtype and dims, which are the same on every rank."""
        if isinstance(self._like, Tensor):
            return f"lists of {self._first.dtype}, {self._first.ndim} dims"
        return "lists of objects"

    def expect(self, shapes: Tensor, plan: GlobalPlan) -> ListEntry:
        """Tell it the shapes [n, ndim] of the partners' tensors."""
        super().__init__(plan.send_by_rank, plan.rows_by_rank)
        self._coming = shapes
        return self

    def sizes(self, send: bool) -> list[int]:
        of, shapes = (self.send, self.shapes) if send else (self.rows, self._coming)
        numbers = shapes.clamp(min=0).prod(1) * self._first.element_size()
        return [int(numbers[index].sum()) for index in of]

    def write(self, rank: int, out: Tensor) -> None:
        parts = [self._tensors[i] for i in self.send[rank].tolist()]
        torch.cat([t.reshape(-1) for t in parts if t is not None], out=out.view(self._first.dtype))

    def read(self, rank: int, data: Tensor) -> None:
        flat, start = data.view(self._first.dtype), 0
        for i in self.rows[rank].tolist():
            shape = self._coming[i].tolist()
            if shape[:1] != [_NONE]:
                stop = start + torch.Size(shape).numel()
                self._came[i] = self._restored(flat[start:stop].view(shape))
                start = stop

    def partners(self, plan: GlobalPlan) -> list[Any]:
        """The rows of the partner of every sample, as the entry has them."""
        local = zip((plan.partner - plan.start).tolist(), plan.here.tolist(), strict=True)
        found = [self._value[p] if here else None for p, here in local]
        for i in plan.received.tolist():
            found[i] = self._came[i] if i in self._came else self._nothing(i)
        return found

    def _nothing(self, i: int) -> Any:
        """What a rank without bytes for others has: empty tensors, or None."""
        shape = self._coming[i].tolist()
        if shape[:1] == [_NONE] or not isinstance(self._like, Tensor):
            return None
        return wrap_like(self._first.new_empty(shape), self._like)

    def _restored(self, t: Tensor) -> Any:
        if isinstance(self._like, Tensor):
            return wrap_like(t, self._like)
        return pickle.loads(bytes(t.tolist()))  # of a rank of this training


def _as_tensor(rows: Sequence[Any] | Tensor | None) -> Tensor | None:
    if rows is None or isinstance(rows, Tensor):
        return plain(rows)
    return torch.frombuffer(bytearray(pickle.dumps(rows)), dtype=torch.uint8)
