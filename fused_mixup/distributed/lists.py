"""Entries with a tensor for each sample in a list, as boxes are, on their way between ranks."""

from __future__ import annotations

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

_NONE = -1  # the first size of a sample that has no such entry


def check_list(entry: Entry) -> Tensor:
    """The first tensor of a list that can travel; TypeError for Python objects."""
    first = first_of(entry.value)
    if not isinstance(first, Tensor):
        raise TypeError(
            f"{entry.name}: expected a tensor for each sample, as they travel between ranks, got "
            f"{type(first).__name__}; use torch.as_tensor, or say the kind 'keep'"
        )
    return first


def sizes_of(entry: Entry) -> Tensor:
    """int64 [n, ndim]: the shape of each sample's tensor."""
    first = check_list(entry)
    shapes = [[_NONE] * first.ndim if v is None else list(v.shape) for v in entry.value]
    return torch.tensor(shapes, dtype=torch.int64).view(len(shapes), first.ndim)


class Lists:
    """The tensors of one such entry, as flat bytes."""

    def __init__(
        self, entry: Entry, own: Tensor, sizes: Tensor, plan: GlobalPlan, wire: Wire
    ) -> None:
        """``own`` [n, ndim] and ``sizes`` [R, ndim]: the shapes of the tensors here and there."""
        self._like, self._sizes = check_list(entry), sizes
        sent = [entry.value[i] for i in plan.sent.tolist()]
        parts = [plain(v).reshape(-1) for v in sent if v is not None]
        data = torch.cat(parts) if parts else plain(self._like).new_empty(0)
        item = self._like.element_size()
        counts = [
            by_rank(shapes.clamp(min=0).prod(1) * item, ranks, wire.size)
            for shapes, ranks in ((own[plan.sent], plan.target), (sizes, plan.source))
        ]
        self._arriving: Arriving = wire.start(as_bytes(data), *counts)

    def wait(self) -> list[Any]:
        """The tensor of each partner that lies elsewhere, as the entry's type, or None."""
        flat = self._arriving.wait().view(self._like.dtype)
        made: list[Any] = []
        start = 0
        for shape in self._sizes.tolist():
            if shape[:1] == [_NONE]:
                made.append(None)
                continue
            size = int(torch.Size(shape).numel())
            made.append(wrap_like(flat[start : start + size].view(shape), self._like))
            start += size
        return made


def list_partners(value: Sequence[Any], plan: GlobalPlan, received: Sequence[Any]) -> list[Any]:
    """The partner of every sample, from ``value`` where it lies here."""
    found = [value[int(p)] if here else None for p, here in _places(plan)]
    for i, v in zip(plan.received.tolist(), received, strict=True):
        found[i] = v
    return found


def _places(plan: GlobalPlan) -> Any:
    local = (plan.partner - plan.start).tolist()
    return zip(local, plan.here.tolist(), strict=True)
