"""One entry of images or maps whose partners may lie on other ranks, mixed in two halves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..batch_mix.places import Place
from ..batch_mix.values import mix_at
from ..mixing import mask_arguments, paste_
from ..plan.mix_plan import MixPlan
from ..reference.masks import paste_rows
from .global_plan import GlobalPlan
from .parts import Boxes, Part, Rows, movable
from .rows import BOX, WHOLE, only, regions, runs, with_partners


class EntryPlans(NamedTuple):
    """How an entry is mixed: the plans of its own rows and of those that take them."""

    rows: MixPlan
    taken: MixPlan
    sent_by: MixPlan  # as ``rows``, where the ranks of the partners know it
    place: Place
    pastes: bool  # a class map, whose values are never blended


class Reads(NamedTuple):
    """Whether any rank may read whole samples, and boxes: the same on all ranks."""

    whole: bool
    boxes: bool


class Mixing:
    """What is mixed here while the rest is on its way."""

    def __init__(
        self, x: Tensor, own: EntryPlans, plan: GlobalPlan, reads: Reads, last: bool
    ) -> None:
        self.dtype, x = x.dtype, movable(x)
        self.x, self.own, self.plan = x, own, plan
        send = regions(own.taken, plan.taken_places)
        read = regions(own.sent_by, plan.places)
        self.whole = self.boxes = None
        if reads.whole:
            rows = plan.send_where(send == WHOLE), plan.rows_where(read == WHOLE)
            self.whole = Rows(x, *rows, last)
        if reads.boxes:
            rows = plan.send_where(send == BOX), plan.rows_where(read == BOX)
            self.boxes = Boxes(x, *rows, own.taken, own.rows, own.place)

    @property
    def parts(self) -> list[Part]:
        """What travels."""
        return [part for part in (self.whole, self.boxes) if part is not None]

    def mix_local(self, inplace: bool) -> None:
        """Mix the rows whose partner lies here; all of ``x`` that others take has been copied."""
        x, plan, own = self.x, self.plan, self.own
        self.y = x
        if plan.here.any():
            partner = plan.partner - plan.start
            local = only(own.rows, plan.here, partner).to(x.device)
            if own.pastes:
                self.y = paste_(x if inplace else x.clone(), local)
            else:
                self.y = mix_at(x, local, own.place, inplace)
        elif not inplace:
            self.y = x.clone()

    def mix_remote(self) -> Tensor:
        """Mix in the partners that have come, and return all rows."""
        if self.boxes is not None:
            self.boxes.paste(self.y)
        if self.whole is not None:
            for rank, bank in self.whole.banks.items():
                self._mix_with(bank, self.whole.rows[rank])
        return self.y.view(self.dtype)

    def _mix_with(self, bank: Tensor, rows: Tensor) -> None:
        """Mix ``rows``, which ascend, with their partners [R, …]."""
        for start, stop in runs(rows):
            first = int(rows[start])
            there = slice(first, first + stop - start)
            part, others = self.y[there], bank[start:stop]
            plan = with_partners(self.own.rows, there, torch.arange(stop - start), stop - start)
            plan = plan.to(bank.device)
            if self.own.pastes:
                part.copy_(paste_rows(part, others, plan.box, mask_arguments(plan)))
            else:
                mix_at(part, plan, self.own.place, True, other=others)
