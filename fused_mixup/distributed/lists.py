"""Entries with rows for each sample in a list, as boxes are, on their way between ranks."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..batch_mix.entries import Entry
from ..batch_mix.tv_tensors import plain, wrap_like
from .agree import ALL, DIMS, EMPTY, NOTHING, Form
from .global_plan import GlobalPlan
from .parts import Part

_NONE = -1  # the number of rows of a sample that has None


class ListEntry(Part):
    """An entry whose value is a list, with a tensor for each sample, rows of objects, or None."""

    counts: Tensor  # int64 [n]: the rows of each sample, or the bytes of its objects
    values: list[Any]  # for each sample, in the form of all ranks

    def __init__(self, entry: Entry) -> None:
        self._value: Sequence[Any] = entry.value
        # Before anything is sent, as it may raise. A tensor travels as it is.
        self._sent = [
            v if isinstance(v, (Tensor, type(None))) else _pickled(v) for v in self._value
        ]

    def form(self, name: str, what: str) -> Form:
        """What this rank's values say of the dtype and dims of rows."""
        there = [v for v in self._value if v is not None]
        if any(not isinstance(v, Tensor) for v in there):
            return Form(name, what, None, ())
        found = {f"{t.dtype} {['n', *t.shape[1:]]}": t for t in there if len(t)}
        if len(found) > 1:
            raise ValueError(f"{name}: expected rows of one dtype and shape, got {[*found]}")
        first = max(there, key=_known, default=None)
        if first is None:
            return Form(name, what, None, (), NOTHING)
        return Form(name, what, first.dtype, tuple(first.shape[1:]), _known(first))

    def take_form(self, form: Form) -> None:
        """Give empty tensors the dtype and dims of all ranks, as one process would."""
        self._objects = form.dtype is None
        self._shape, self._dtype = form.shape, form.dtype or torch.uint8
        self.values = [self._alike(v) for v in self._value]
        if not self._objects:
            self._sent = [plain(v) for v in self.values]
        elif any(isinstance(v, Tensor) for v in self._value):
            self._sent = [None if v is None else _pickled(v) for v in self.values]
        counts = [_NONE if t is None else len(t) for t in self._sent]
        self.counts = torch.tensor(counts, dtype=torch.int64)
        self._came: dict[int, Any] = {}

    def _alike(self, rows: Any) -> Any:
        if not isinstance(rows, Tensor) or len(rows):
            return rows
        return [] if self._objects else wrap_like(self._empty(0), rows)

    def _empty(self, rows: int) -> Tensor:
        return torch.empty(rows, *self._shape, dtype=self._dtype)

    def expect(self, counts: Tensor, plan: GlobalPlan) -> ListEntry:
        """Tell it the ``counts`` of the partners."""
        super().__init__(plan.send_by_rank, plan.rows_by_rank)
        self._coming = counts
        return self

    def sizes(self, send: bool) -> list[int]:
        of, counts = (self.send, self.counts) if send else (self.rows, self._coming)
        size = math.prod(self._shape) * self._dtype.itemsize
        return [int(counts[i].clamp(min=0).sum()) * size if len(i) else 0 for i in of]

    def write(self, rank: int, out: Tensor) -> None:
        parts = [self._sent[i] for i in self.send[rank].tolist()]
        flat = [t.detach().reshape(-1) for t in parts if t is not None]
        torch.cat(flat, out=out.view(self._dtype))

    def read(self, rank: int, data: Tensor) -> None:
        rows = data.view(self._dtype).view(-1, *self._shape)
        index = self.rows[rank]
        counts = self._coming[index].clamp(min=0).tolist()
        for i, part in zip(index.tolist(), rows.split(counts), strict=True):
            self._came[i] = part

    def both(self, plan: GlobalPlan) -> list[Any]:
        """The rows of every sample, and behind them those of every partner."""
        partners = (plan.partner - plan.start).tolist()
        found = [
            self.values[p] if here else self._arrived(i)
            for i, (p, here) in enumerate(zip(partners, plan.here.tolist(), strict=True))
        ]
        return [*self.values, *found]

    def _arrived(self, i: int) -> Any:
        count = int(self._coming[i])
        if count == _NONE:
            return None
        if i not in self._came:  # a rank has sent no bytes
            return self._empty(count)
        rows = self._came[i]
        return pickle.loads(bytes(rows.tolist())) if self._objects else rows  # of this training


def _pickled(rows: Any) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(rows)), dtype=torch.uint8)


def _known(rows: Tensor) -> int:
    return ALL if len(rows) else DIMS if rows.ndim > 1 else EMPTY
