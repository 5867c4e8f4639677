"""One entry of images or maps whose partners may lie on other ranks, mixed in two halves."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..batch_mix.places import Place
from ..batch_mix.values import mix_at
from ..mixing import mask_arguments, paste_
from ..plan.mix_plan import MixPlan
from ..reference.masks import paste_rows
from .global_plan import GlobalPlan
from .parts import Boxes, Rows
from .rows import BOX, WHOLE, only, regions, runs, with_partners
from .wire import Wire


class Own(NamedTuple):
    """How an entry is mixed: the plans of its own rows and of those that take them."""

    rows: MixPlan
    taken: MixPlan
    place: Place
    pastes: bool  # a class map, whose values are never blended


class Reads(NamedTuple):
    """Whether any rank may read whole samples, and boxes: the same on all ranks."""

    whole: bool
    boxes: bool


class Mixing:
    """What is mixed here while the rest is on its way."""

    def __init__(
        self, x: Tensor, own: Own, plan: GlobalPlan, wire: Wire, reads: Reads, last: bool
    ) -> None:
        self.x, self.own, self.plan = x, own, plan
        send = regions(own.taken, plan.taken_places)[plan.sent]
        receive = regions(own.rows if plan.blended is None else plan.blended, plan.places)[
            plan.received
        ]
        self.whole = self.boxes = None
        if reads.whole:
            self.whole = Rows(x, plan, wire, send == WHOLE, receive == WHOLE, last)
        if reads.boxes:
            rest = own.taken, own.rows, own.place
            self.boxes = Boxes(x, plan, wire, send == BOX, receive == BOX, *rest)

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
        """Wait for the other partners, mix them in, and return all rows."""
        if self.boxes is not None:
            self.boxes.paste(self.y)
        if self.whole is not None:
            self._mix_whole(self.whole)
        return self.y

    def _mix_whole(self, whole: Rows) -> None:
        bank = whole.wait()
        order = whole.rows.argsort()  # where the partner of each row lies in the bank
        rows = whole.rows[order]
        for start, stop in runs(rows):
            first = int(rows[start])
            there = slice(first, first + stop - start)
            part, at = self.y[there], order[start:stop]
            plan = with_partners(self.own.rows, there, at, len(bank)).to(bank.device)
            if self.own.pastes:
                partners = bank.index_select(0, at.to(bank.device))
                part.copy_(paste_rows(part, partners, plan.box, mask_arguments(plan)))
            else:
                mix_at(part, plan, self.own.place, True, other=bank)
