"""What travels of the entries of a batch: whole samples, boxes of them, and small rows.

All parts of a step travel in one exchange, a block of bytes for each rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..batch_mix.places import Place
from ..memory import recycled_scratch
from ..plan.mix_plan import MixPlan
from .global_plan import GlobalPlan
from .wire import Wire

_ALIGNED = 16  # bytes at which each part of a block starts


class Part:
    """Bytes for and from each rank."""

    def __init__(self, send: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """``send``: by rank, the samples that it takes; ``rows``: those whose partners it has."""
        self.send, self.rows = send, rows

    def sizes(self, send: bool) -> list[int]:
        """The bytes for each rank, or from each."""
        raise NotImplementedError

    def write(self, rank: int, out: Tensor) -> None:
        """Fill ``out``, flat uint8, with what that rank takes."""
        raise NotImplementedError

    def read(self, rank: int, data: Tensor) -> None:
        """Keep what came from that rank, flat uint8."""
        raise NotImplementedError


class Parcel:
    """Parts on their way, in a buffer of ``most`` bytes where they need no more."""

    def __init__(
        self, parts: Sequence[Part], wire: Wire, device: torch.device, most: int = 0
    ) -> None:
        self._parts = parts
        self._coming = [part.sizes(send=False) for part in parts]
        going = [part.sizes(send=True) for part in parts]
        send, receive = (_block_sizes(sizes, wire.size) for sizes in (going, self._coming))
        like = torch.empty(1, dtype=torch.uint8, device=device).expand(most)
        data, room = (recycled_scratch(like, (sum(sizes),)) for sizes in (send, receive))
        for part, rank, place in _places(parts, going):
            part.write(rank, data[place])
        self._arriving = wire.start(data, send, room, receive)

    def wait(self) -> None:
        """Hand each part what came for it."""
        data = self._arriving.wait()
        for part, rank, place in _places(self._parts, self._coming):
            part.read(rank, data[place])


def _block_sizes(sizes: Sequence[Sequence[int]], ranks: int) -> list[int]:
    """The bytes of the block of each rank, of the bytes of each part."""
    return [sum(_padded(of[rank]) for of in sizes) for rank in range(ranks)]


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _places(
    parts: Sequence[Part], sizes: Sequence[Sequence[int]]
) -> Iterator[tuple[Part, int, slice]]:
    """Where each part lies in the blocks of all ranks, where it has any bytes."""
    start = 0
    for rank, of in enumerate(zip(*sizes, strict=True)):
        for part, size in zip(parts, of, strict=True):
            if size:
                yield part, rank, slice(start, start + size)
            start += _padded(size)


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def movable(x: Tensor) -> Tensor:
    """The bits of x as signed integers, where PyTorch copies no rows of its dtype."""
    return x.view(_SIGNED.get(x.dtype, x.dtype))


class Rows(Part):
    """Whole samples of x [n, …]."""

    def __init__(
        self, x: Tensor, send: Sequence[Tensor], rows: Sequence[Tensor], last: bool = False
    ) -> None:
        super().__init__(send, rows)
        self.last = last  # channels lie last in memory, on every rank
        self.seen = x.movedim(1, -1) if last else x
        self.size = math.prod(x.shape[1:]) * x.element_size()
        self.banks: dict[int, Tensor] = {}

    def sizes(self, send: bool) -> list[int]:
        return [len(of) * self.size for of in (self.send if send else self.rows)]

    def write(self, rank: int, out: Tensor) -> None:
        index = self.send[rank].to(out.device)
        there = out.view(self.seen.dtype).view(len(index), *self.seen.shape[1:])
        torch.index_select(self.seen, 0, index, out=there)

    def read(self, rank: int, data: Tensor) -> None:
        bank = data.view(self.seen.dtype).view(-1, *self.seen.shape[1:])
        self.banks[rank] = bank.movedim(-1, 1) if self.last else bank

    def partners(self, plan: GlobalPlan) -> Tensor:
        """[n, …]: the partner of every sample, once all that lie elsewhere have come."""
        x = self.seen.movedim(-1, 1) if self.last else self.seen
        local = torch.where(plan.here, plan.partner - plan.start, 0)
        made = x.index_select(0, local.to(x.device))
        for rank, bank in self.banks.items():
            made.index_copy_(0, self.rows[rank].to(x.device), bank)
        return made


class Boxes(Part):
    """The boxes that rows cut out of samples of x [n, …]."""

    def __init__(
        self,
        x: Tensor,
        send: Sequence[Tensor],
        rows: Sequence[Tensor],
        taken: MixPlan,
        own: MixPlan,
        place: Place,
    ) -> None:
        super().__init__(send, rows)
        self.x, self.place, self.taken, self.own = x, place, taken.box, own.box
        d = own.spatial_dims
        seen = _window(x, (), place)
        self.size = math.prod(seen.shape[1 : x.ndim - d]) * x.element_size()  # of a pixel
        self.came: dict[int, Tensor] = {}

    def sizes(self, send: bool) -> list[int]:
        of, box = (self.send, self.taken) if send else (self.rows, self.own)
        d = box.shape[1] // 2
        area = (box[:, d:] - box[:, :d]).long().prod(1)
        return [int(area[index].sum()) * self.size if len(index) else 0 for index in of]

    def write(self, rank: int, out: Tensor) -> None:
        index, flat = self.send[rank], out.view(self.x.dtype)
        for box, rows, place in self._runs(self.taken, index):
            cut = _window(self.x, box, self.place).index_select(0, index[rows].to(out.device))
            flat[place] = cut.reshape(-1)

    def read(self, rank: int, data: Tensor) -> None:
        self.came[rank] = data.view(self.x.dtype)

    def paste(self, y: Tensor) -> None:
        """Write the boxes that came into y [n, …]."""
        for rank, flat in self.came.items():
            index = self.rows[rank]
            for box, rows, place in self._runs(self.own, index):
                window, at = _window(y, box, self.place), index[rows].to(y.device)
                window.index_copy_(0, at, flat[place].view(len(at), *window.shape[1:]))

    def _runs(self, boxes: Tensor, index: Tensor) -> Iterator[tuple[list[int], slice, slice]]:
        """Samples with equal boxes that follow each other, and where their values lie."""
        found, counts = torch.unique_consecutive(boxes[index], dim=0, return_counts=True)
        first = start = 0
        for box, count in zip(found.tolist(), counts.tolist(), strict=True):
            d = len(box) // 2
            area = math.prod(b - a for a, b in zip(box[:d], box[d:], strict=True))
            values = count * area * self.size // self.x.element_size()
            yield box, slice(first, first + count), slice(start, start + values)
            first, start = first + count, start + values


def _window(x: Tensor, box: Sequence[int], place: Place) -> Tensor:
    """The part of every sample that lies in ``box``; all of it where there is none."""
    seen = x if place.dim == -1 else x.movedim(place.dim, -1)
    d = len(box) // 2
    for k in range(d):
        seen = seen.narrow(k - d, box[k], box[k + d] - box[k])
    return seen


class Records(Rows):
    """Rows of several small tensors [n, …], as one record of bytes for each sample."""

    def __init__(
        self, tensors: Sequence[Tensor], send: Sequence[Tensor], rows: Sequence[Tensor]
    ) -> None:
        self._tensors = tensors
        super().__init__(torch.cat([_as_bytes(t) for t in tensors], 1), send, rows)

    def all_partners(self, plan: GlobalPlan) -> list[Tensor]:
        """For each tensor its rows of the partner of every sample."""
        records = self.partners(plan)
        sizes = [math.prod(t.shape[1:]) * t.element_size() for t in self._tensors]
        pairs = zip(self._tensors, records.split(sizes, 1), strict=True)
        # A copy, as rows of bytes need not be aligned.
        return [part.flatten().clone().view(t.dtype).view(t.shape) for t, part in pairs]


def _as_bytes(t: Tensor) -> Tensor:
    """[n, bytes of a row]."""
    size = math.prod(t.shape[1:]) * t.element_size()
    return t.contiguous().view(-1).view(torch.uint8).view(len(t), size)
