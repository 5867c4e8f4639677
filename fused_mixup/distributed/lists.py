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
from .parts import by_rank
from .wire import Arriving, Wire, as_bytes

_NONE = -1  # the first size of a sample that has no rows


class ListEntry:
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
        self.sizes = torch.tensor(shapes, dtype=torch.int64).view(len(shapes), self._first.ndim)

    @property
    def form(self) -> str:
        """Dtype and dims, which are the same on every rank."""
        if isinstance(self._like, Tensor):
            return f"lists of {self._first.dtype}, {self._first.ndim} dims"
        return "lists of objects"

    def start(self, sizes: Tensor, plan: GlobalPlan, wire: Wire) -> Arriving:
        """Send what others need; ``sizes`` [R, ndim] are the shapes of what comes."""
        self._coming = sizes
        parts = [t.reshape(-1) for i in plan.sent.tolist() if (t := self._tensors[i]) is not None]
        data = torch.cat(parts) if parts else self._first.new_empty(0)
        counts = [
            by_rank(shapes.clamp(min=0).prod(1) * self._first.element_size(), ranks, wire.size)
            for shapes, ranks in ((self.sizes[plan.sent], plan.target), (sizes, plan.source))
        ]
        return wire.start(as_bytes(data), *counts)

    def partners(self, arriving: Arriving, plan: GlobalPlan) -> list[Any]:
        """The rows of the partner of every sample, as the entry has them."""
        local = zip((plan.partner - plan.start).tolist(), plan.here.tolist(), strict=True)
        found = [self._value[p] if here else None for p, here in local]
        flat = arriving.wait().view(self._first.dtype)
        start = 0
        for i, shape in zip(plan.received.tolist(), self._coming.tolist(), strict=True):
            if shape[:1] == [_NONE]:
                continue
            stop = start + torch.Size(shape).numel()
            found[i] = self._restored(flat[start:stop].view(shape))
            start = stop
        return found

    def _restored(self, t: Tensor) -> Any:
        if isinstance(self._like, Tensor):
            return wrap_like(t, self._like)
        return pickle.loads(bytes(t.tolist()))  # of a rank of this training


def _as_tensor(rows: Sequence[Any] | Tensor | None) -> Tensor | None:
    if rows is None or isinstance(rows, Tensor):
        return plain(rows)
    return torch.frombuffer(bytearray(pickle.dumps(rows)), dtype=torch.uint8)
