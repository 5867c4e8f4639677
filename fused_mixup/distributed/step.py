"""One step of :class:`GlobalMix`: entries checked as BatchMix does, mixed with those of ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..batch_mix.entries import Entry, dotted
from ..batch_mix.instances import COUNT, Instances
from ..batch_mix.places import Place
from ..batch_mix.resized import Resized
from ..batch_mix.step import Step, holds_classes
from ..batch_mix.structure import New, Path
from ..batch_mix.tv_tensors import plain, wrap_like
from ..kinds import IMAGE_LIKE, MAPS
from ..plan.mix_plan import MixPlan
from ..target.heads import STRUCTURES, heads, leaves, restore_structure
from .global_plan import GlobalPlan
from .lists import ListEntry
from .parts import Parcel, Part, Records, Rows
from .rows import BOX, WHOLE, regions, twice
from .values import Mixing, Own, Reads
from .wire import Wire


class Sending(NamedTuple):
    """How a step is exchanged."""

    wire: Wire
    overlap: bool
    last: list[bool]  # of each entry that is mixed: channels lie last on every rank


class GlobalStep(Step):
    """A step whose partners may lie on other ranks."""

    batch: Any  # set by the module that makes it

    # ---------------------------------------------------------------- what the ranks must share

    def describe(self) -> str:
        """The entries, for a comparison of all ranks."""
        parts = [f"{e.name} {e.kind} {_form(e)}" for e in self.values]
        for entry in self.labels:
            forms = [f"{y.dtype} {list(y.shape[1:])}" for y in leaves(entry.value)]
            parts.append(f"{entry.name} {', '.join(forms)}")
        for group in self.groups:
            parts += [f"{e.name} {e.kind} {_form(e)}" for e in (group.lead, *group.rows)]
        return "; ".join(parts)

    def check_travel(self) -> None:
        """Raise for entries that no rank can send."""
        for entry in self.values:
            for x in entry.value if isinstance(entry.value, (list, tuple)) else (entry.value,):
                if torch.is_grad_enabled() and x.requires_grad:
                    raise ValueError(
                        f"{entry.name}: expected no gradient, as none comes back from other ranks, "
                        "got a tensor that requires grad; use .detach()"
                    )

    def device(self) -> torch.device:
        """Where the batch lies, by its first image."""
        x = self.values[0].value
        return (x if isinstance(x, Tensor) else x[0]).device

    def bytes(self) -> int:
        """The bytes of images, maps and labels."""
        found = [y for entry in self.labels for y in leaves(entry.value)]
        for entry in self.values:
            found += [entry.value] if isinstance(entry.value, Tensor) else entry.value
        return sum(t.nbytes for t in found)

    def plan_at(self, place: Place, plan: MixPlan) -> MixPlan:
        """The plan by which an entry at ``place`` is mixed."""
        return self.scene.plan_at(place, plan, self.options.correct_lam)

    def channels_last(self) -> list[bool]:
        """For each entry that is mixed, whether its channels lie last in memory."""
        return [_is_channels_last(e.value) for e in self.values]

    # ---------------------------------------------------------------- mixing

    def mix_across(
        self, plan: GlobalPlan, sending: Sending, inplace: bool, reads: Callable[[Place], Reads]
    ) -> tuple[dict[Path, New], dict[str, MixPlan]]:
        """As ``mix``; ``reads`` says what the rows of any rank may read of an entry."""
        self.plan, self.sending = plan, sending
        plans: dict[str, MixPlan] = {}
        owns: dict[Path, Own] = {}
        for entry in self.values:
            place = self.places[entry.path]
            own, taken = (self.plan_at(place, p) for p in (plan.rows, plan.taken))
            owns[entry.path] = Own(own, taken, place, holds_classes(entry))
            plans[dotted(entry.path)] = own
        halves: dict[Path, Mixing | _Doubled] = {}
        small = _Small(self, plan)
        unique = [e for k, e in enumerate(self.values) if self._twin(e, self.values[:k]) is None]
        for entry in unique:
            how, last = owns[entry.path], sending.last[self.values.index(entry)]
            x = _stacked(entry.value)
            if entry.path in self.maps or self.options.resizes:
                halves[entry.path] = _Doubled(x, how, plan, last)
            else:
                halves[entry.path] = Mixing(x, how, plan, reads(how.place), last)
        in_place = {e.path: inplace or not isinstance(e.value, Tensor) for e in unique}
        parts = [part for half in halves.values() for part in half.parts]
        most = self.bytes() + 64 * len(parts) * sending.wire.size
        parcel = Parcel([*parts, *small.parts], sending.wire, self.device(), most)
        if not sending.overlap:
            parcel.wait()
        for entry in unique:
            half = halves[entry.path]
            if isinstance(half, Mixing):
                half.mix_local(in_place[entry.path])
        if sending.overlap:
            parcel.wait()
        received = small.received(sending.wire)
        news: dict[Path, New] = {}
        for entry in unique:
            half = halves[entry.path]
            if isinstance(half, Mixing):
                news[entry.path] = New(_as_entry(half.mix_remote(), entry, inplace))
            else:
                news[entry.path] = New(self._mix_doubled(entry, half, inplace))
        for entry in self.values:
            if entry.path not in news:
                twin = self._twin(entry, unique)
                assert twin is not None
                news[entry.path] = news[twin.path]
        for entry in self.labels:
            followed = self.follows.get(entry.path)
            by = plan.rows if followed is None else plans[followed]
            news[entry.path] = New(self._mix_labels(entry, received.labels[entry.path], by))
        for group, rows in zip(self.groups, received.groups, strict=True):
            news |= self._mix_group(group, rows, owns)
        return news, plans

    def _mix_labels(self, entry: Entry, partners: Any, by: MixPlan) -> Any:
        both = _heads(lambda y, other: torch.cat((y, other)), entry.value, partners)
        y = next(leaves(entry.value))
        made = self.targets.mix(both, twice(by).to(y.device), self.counts[entry.path])
        return _heads(lambda t: t[: by.batch_size], made)

    def _mix_doubled(self, entry: Entry, half: _Doubled, inplace: bool) -> Any:
        """Mix a batch of the samples and, behind them, their partners; the first half is kept."""
        x, plan, n = half.both(), twice(half.own.rows), self.size
        self.paste = None
        if self.plan.places is not None:
            places = torch.cat((self.plan.places, torch.zeros_like(self.plan.places)))
            whole = twice(self.plan.rows).to(x.device)
            self.paste = Resized(places.to(x.device), whole, self.scene.sizes).paste
        made = self._mixed(entry._replace(value=x), plan.to(x.device), False)[:n]
        if entry.path in self.maps:
            return made
        if inplace and isinstance(entry.value, Tensor):
            plain(entry.value).copy_(plain(made))
            return entry.value
        return _as_entry(plain(made), entry, False)

    def _mix_group(
        self, group: Instances, partners: dict[Path, Any], owns: dict[Path, Own]
    ) -> dict[Path, New]:
        """Boxes and the like, with those of the partners behind them."""
        image, n = self._image_of(group), self.size
        count = partners.pop((*group.group, COUNT), None)
        lead, *rows = (
            entry._replace(value=_joined(entry.value, partners[entry.path]))
            for entry in (group.lead, *group.rows)
        )
        o = self.options
        both = Instances(self.batch, lead, rows, o.min_visible, o.box_format)
        if count is not None:
            both.count = torch.cat((group.count, count))
        size = _stacked(image.value).shape[-2:]
        both.check(2 * n, size, o.blends)
        device = partners_device(lead.value)
        news = both.mix(twice(owns[image.path].rows).to(device), o.blends)
        return {path: New(new.value[:n]) for path, new in news.items()}


class _Doubled:
    """An entry whose partners are all needed whole."""

    def __init__(self, x: Tensor, own: Own, plan: GlobalPlan, last: bool) -> None:
        self.x, self.own, self.plan = x, own, plan
        self.rows = Rows(x, plan.send_by_rank, plan.rows_by_rank, last)

    @property
    def parts(self) -> list[Part]:
        """What travels."""
        return [self.rows]

    def both(self) -> Tensor:
        return torch.cat((self.x, self.rows.partners(self.plan)))


class _Received(NamedTuple):
    labels: dict[Path, Any]  # the labels of every partner
    groups: list[dict[Path, Any]]  # the rows of boxes of every partner, by entry


class _Small:
    """Labels, and entries with a row for each box: one record a sample, and the lists' rows."""

    def __init__(self, step: GlobalStep, plan: GlobalPlan) -> None:
        self._step, self._plan = step, plan
        fixed = [y for entry in step.labels for y in leaves(entry.value)]
        self._lists: dict[Path, ListEntry] = {}
        for group in step.groups:
            for entry in (group.lead, *group.rows):
                if isinstance(entry.value, Tensor):
                    fixed.append(plain(entry.value))
                else:
                    self._lists[entry.path] = ListEntry(entry)
            if isinstance(group.count, Tensor):
                fixed.append(group.count)
        every = [*fixed, *(entry.shapes for entry in self._lists.values())]
        self.parts: list[Records] = []
        if every:
            self.parts = [Records(every, plan.send_by_rank, plan.rows_by_rank)]

    def received(self, wire: Wire) -> _Received:
        """What belongs to the partner of every sample; the rows of lists travel now."""
        step, plan = self._step, self._plan
        every = [t for part in self.parts for t in part.all_partners(plan)]
        fixed = iter(every[: len(every) - len(self._lists)])
        labels = {e.path: _heads(lambda _: next(fixed), e.value) for e in step.labels}
        if self._lists:
            shapes = every[len(every) - len(self._lists) :]
            pairs = zip(self._lists.values(), shapes, strict=True)
            lists = [entry.expect(of, plan) for entry, of in pairs]
            Parcel(lists, wire, torch.device("cpu")).wait()
        groups = []
        for group in step.groups:
            found: dict[Path, Any] = {}
            for entry in (group.lead, *group.rows):
                here = self._lists.get(entry.path)
                found[entry.path] = next(fixed) if here is None else here.partners(plan)
            if isinstance(group.count, Tensor):
                count = (*group.group, COUNT)
                found[count] = next(fixed)
            groups.append(found)
        return _Received(labels, groups)


def reads_of(common: MixPlan, places: Tensor | None) -> Reads:
    """What the one row reads that a batch shares."""
    region = int(regions(common, places)[0])
    return Reads(region == WHOLE, region == BOX)


def partners_device(value: Any) -> torch.device:
    return value.device if isinstance(value, Tensor) else torch.device("cpu")


def _heads(apply: Callable[..., Any], values: Any, *others: Any) -> Any:
    """``apply`` on the labels of each head, in their structure."""
    if not isinstance(values, STRUCTURES):
        return apply(values, *others)
    by_head = [heads("labels", v) for v in (values, *others)]
    made = {head: _heads(apply, *(of[head] for of in by_head)) for head in by_head[0]}
    return restore_structure(values, made)


def _joined(value: Any, partners: Any) -> Any:
    if isinstance(value, Tensor):
        return wrap_like(torch.cat((plain(value), partners)), value)
    return [*value, *partners]


def _stacked(value: Any) -> Tensor:
    """An entry as one tensor [n, …]."""
    return plain(value) if isinstance(value, Tensor) else torch.stack([plain(v) for v in value])


def _as_entry(made: Tensor, entry: Entry, inplace: bool) -> Any:
    """Mixed values as the entry's type."""
    like = entry.value
    if isinstance(like, Tensor):
        return like if inplace else wrap_like(made, like)
    rows = [wrap_like(x, old) for x, old in zip(made.unbind(), like, strict=True)]
    return type(like)(rows)


def _form(entry: Entry) -> str:
    x = entry.value
    if isinstance(x, Tensor):
        return f"{x.dtype} {list(x.shape[1:])}"
    if entry.kind in (*IMAGE_LIKE, *MAPS):
        return f"lists of {x[0].dtype} {list(x[0].shape)}"
    return ListEntry(entry).form


def _is_channels_last(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.ndim not in (4, 5):
        return False
    form = torch.channels_last if value.ndim == 4 else torch.channels_last_3d
    return len(value) == 0 or (
        value.is_contiguous(memory_format=form) and not value.is_contiguous()
    )
