"""Samples of an entry on their way from rank to rank: whole ones, boxes of them, small rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..batch_mix.places import Place
from ..plan.mix_plan import MixPlan
from .global_plan import GlobalPlan
from .wire import Arriving, Wire, as_bytes


def by_rank(sizes: Tensor, ranks: Tensor, count: int) -> list[int]:
    """The sums of ``sizes`` by the rank that each belongs to."""
    return torch.zeros(count, dtype=torch.int64).index_add_(0, ranks, sizes.long()).tolist()


class Rows:
    """Whole rows of x [n, …], those that a flag of each sample sent and received selects."""

    def __init__(
        self, x: Tensor, plan: GlobalPlan, wire: Wire, send: Tensor, receive: Tensor, last: bool
    ) -> None:
        self.last = last  # channels lie last in memory, on every rank
        seen = x.movedim(1, -1) if last else x
        self.rows = plan.received[receive]
        self.shape, self.dtype = (len(self.rows), *seen.shape[1:]), x.dtype
        data = seen.index_select(0, plan.sent[send].to(x.device)).contiguous()
        size = math.prod(seen.shape[1:]) * x.element_size()
        counts = [
            by_rank(torch.full((len(ranks),), size), ranks, wire.size)
            for ranks in (plan.target[send], plan.source[receive])
        ]
        self.arriving: Arriving = wire.start(as_bytes(data), *counts)

    def wait(self) -> Tensor:
        """[R, …], in the order of ``rows``."""
        bank = self.arriving.wait().view(self.dtype).view(self.shape)
        return bank.movedim(-1, 1) if self.last else bank


def all_rows(x: Tensor, plan: GlobalPlan, wire: Wire, last: bool) -> Rows:
    """The rows of all partners, mixed or not."""
    send, receive = (torch.ones(len(t), dtype=torch.bool) for t in (plan.sent, plan.received))
    return Rows(x, plan, wire, send, receive, last)


class Boxes:
    """The boxes that rows cut out of samples of x [n, …]."""

    def __init__(
        self,
        x: Tensor,
        plan: GlobalPlan,
        wire: Wire,
        send: Tensor,
        receive: Tensor,
        taken: MixPlan,
        own: MixPlan,
        place: Place,
    ) -> None:
        self.place, self.rows = place, plan.received[receive]
        sent = plan.sent[send]
        self.box, taken_box = own.box[self.rows], taken.box[sent]
        samples = math.prod(x.shape[1:])
        space = _window(x, [], place).shape[x.ndim - own.spatial_dims :]
        channels = samples // max(math.prod(space), 1)
        counts = [
            by_rank(_area(box) * channels * x.element_size(), ranks, wire.size)
            for box, ranks in ((taken_box, plan.target[send]), (self.box, plan.source[receive]))
        ]
        parts = [
            _window(x, box, place).index_select(0, sent[rows].to(x.device)).reshape(-1)
            for box, rows in _equal(taken_box)
        ]
        data = torch.cat(parts) if parts else x.new_empty(0)
        self.arriving = wire.start(as_bytes(data), *counts)

    def paste(self, y: Tensor) -> None:
        """Write the boxes into y [n, …]."""
        flat = self.arriving.wait().view(y.dtype)
        start = 0
        for box, rows in _equal(self.box):
            window = _window(y, box, self.place)
            index = self.rows[rows]
            shape = (len(index), *window.shape[1:])
            stop = start + math.prod(shape)
            window.index_copy_(0, index.to(y.device), flat[start:stop].view(shape))
            start = stop


def _area(box: Tensor) -> Tensor:
    d = box.shape[1] // 2
    return (box[:, d:] - box[:, :d]).long().prod(1)


def _equal(box: Tensor) -> list[tuple[list[int], slice]]:
    """Runs of rows with equal boxes."""
    if not len(box):
        return []
    boxes, counts = torch.unique_consecutive(box, dim=0, return_counts=True)
    stops = counts.cumsum(0).tolist()
    starts = [0, *stops[:-1]]
    slices = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    return list(zip(boxes.tolist(), slices, strict=True))


def _window(x: Tensor, box: Sequence[int], place: Place) -> Tensor:
    """The part of every sample that lies in ``box``; all of it where there is none."""
    seen = x if place.dim == -1 else x.movedim(place.dim, -1)
    d = len(box) // 2
    for k in range(d):
        seen = seen.narrow(k - d, box[k], box[k + d] - box[k])
    return seen


class Records:
    """Rows of several small tensors [n, …], as one record of bytes for each sample."""

    def __init__(self, tensors: Sequence[Tensor], plan: GlobalPlan, wire: Wire) -> None:
        self._tensors, self._plan = tensors, plan
        index = plan.sent
        rows = [_as_rows(t.index_select(0, index.to(t.device))) for t in tensors]
        device = tensors[0].device
        data = torch.cat([r.to(device) for r in rows], 1)
        counts = ([n * data.shape[1] for n in of] for of in (plan.send_counts, plan.receive_counts))
        self._arriving = wire.start(data.reshape(-1), *counts)

    def wait(self) -> list[Tensor]:
        """For each tensor its rows [R, …] of the partners that lie elsewhere."""
        sizes = [math.prod(t.shape[1:]) * t.element_size() for t in self._tensors]
        data = self._arriving.wait().view(len(self._plan.received), sum(sizes))
        parts = data.split(sizes, 1)
        pairs = zip(self._tensors, parts, strict=True)
        # A copy, as rows of bytes need not be aligned.
        return [
            part.contiguous().view(-1).clone().view(t.dtype).view(len(part), *t.shape[1:])
            for t, part in pairs
        ]


def _as_rows(t: Tensor) -> Tensor:
    size = math.prod(t.shape[1:]) * t.element_size()
    return t.contiguous().view(-1).view(torch.uint8).view(len(t), size)


def partners_of(x: Tensor, plan: GlobalPlan, bank: Tensor) -> Tensor:
    """[n, …]: the partner of every sample, from x where it lies here, else from ``bank`` [R, …]."""
    local = torch.where(plan.here, plan.partner - plan.start, 0)
    made = x.index_select(0, local.to(x.device))
    return made.index_copy_(0, plan.received.to(x.device), bank)
