"""One step of :class:`GlobalMix`: entries checked as BatchMix does, mixed with those of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from ..batch_mix.values import shape_of
from ..plan.mix_plan import MixPlan
from ..target.heads import STRUCTURES, heads, leaves, restore_structure
from .agree import Form, form_of, forms_of_heads
from .global_plan import GlobalPlan
from .lists import ListEntry
from .parts import Parcel, Part, Records, Rows, movable
from .rows import BOX, WHOLE, regions, twice
from .values import EntryPlans, Mixing, Reads
from .wire import Wire


class Sending(NamedTuple):
    """How a step is exchanged."""

    wire: Wire
    overlap: bool
    last: list[bool]  # of each entry that is mixed: channels lie last on every rank


class GlobalStep(Step):
    """A step whose partners may lie on other ranks."""

    batch: Any  # set by the module that makes it, as are the others
    guides: Tensor | None  # [n, h, w], the maps of a variant of maps
    lists: dict[Path, ListEntry]  # entries with rows for each sample in a list

    # ---------------------------------------------------------------- what the ranks must share

    def describe(self) -> list[Form]:
        """The entries, for a comparison of all ranks; lists are made ready to be sent."""
        forms = [form_of(e.name, e.kind, e.value) for e in self.values]
        for entry in self.labels:
            forms += forms_of_heads(entry.name, entry.value)
        self.lists = {}
        for group in self.groups:
            for entry in (group.lead, *group.rows):
                what = f"{entry.kind} {group.format}" if entry is group.lead else entry.kind
                if isinstance(entry.value, Tensor):
                    forms.append(form_of(entry.name, what, entry.value))
                else:
                    self.lists[entry.path] = ListEntry(entry)
                    forms.append(self.lists[entry.path].form(entry.name, f"{what} lists of"))
            if isinstance(group.count, Tensor):
                forms.append(form_of(f"{group.lead.name} {COUNT}", "count", group.count))
        if self.guides is not None:
            forms.append(form_of("maps", "maps", self.guides))
        return forms

    def take_forms(self, forms: Sequence[Form]) -> None:
        """Give lists the forms on which all ranks agree."""
        by_name = {form.name: form for form in forms}
        for group in self.groups:
            for entry in (group.lead, *group.rows):
                if entry.path in self.lists:
                    self.lists[entry.path].take_form(by_name[entry.name])

    def check_travel(self) -> None:
        """Raise for entries that no rank can send."""
        others = [e for group in self.groups for e in (group.lead, *group.rows)]
        held = [(entry, list(leaves(entry.value))) for entry in self.labels]
        for entry in (*self.values, *others):
            alone = isinstance(entry.value, Tensor)
            held.append((entry, [entry.value] if alone else entry.value))
        for entry, values in held:
            for x in values:
                if torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad:
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
        self.plan = plan
        plans: dict[str, MixPlan] = {}
        by_entry: dict[Path, EntryPlans] = {}
        for entry in self.values:
            place = self.places[entry.path]
            own, taken = (self.plan_at(place, p) for p in (plan.rows, plan.taken))
            sent_by = own if plan.blended is None else self.plan_at(place, plan.blended)
            by_entry[entry.path] = EntryPlans(own, taken, sent_by, place, holds_classes(entry))
            plans[dotted(entry.path)] = own
        halves: dict[Path, Mixing | _Doubled] = {}
        small = _Small(self, plan)
        for entry, last in zip(self.values, sending.last, strict=True):
            how, x = by_entry[entry.path], _stacked(entry.value)
            if entry.path in self.maps or self.options.resizes:
                halves[entry.path] = _Doubled(x, how, plan, last)
            else:
                halves[entry.path] = Mixing(x, how, plan, reads(how.place), last)
        # A tensor that a batch contains twice is sent twice, as other ranks may have two, and is
        # mixed in place once.
        firsts = self.values if inplace else []
        twins = {e.path: self._twin(e, firsts[:k]) for k, e in enumerate(self.values)}
        unique = [e for e in self.values if twins[e.path] is None]
        parts = [part for half in halves.values() for part in half.parts]
        most = self.bytes() + 64 * len(parts) * sending.wire.size
        parcel = Parcel([*parts, *small.parts], sending.wire, self.device(), most)
        if not sending.overlap:
            parcel.wait()
        for entry in unique:
            half = halves[entry.path]
            if isinstance(half, Mixing):
                half.mix_local(inplace or not isinstance(entry.value, Tensor))
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
        for path, twin in twins.items():
            if twin is not None:
                news[path] = news[twin.path]
        for entry in self.labels:
            followed = self.follows.get(entry.path)
            by = plan.rows if followed is None else plans[followed]
            news[entry.path] = New(self._mix_labels(entry, received.labels[entry.path], by))
        for group, rows in zip(self.groups, received.groups, strict=True):
            news |= self._mix_group(group, rows, by_entry)
        return news, plans

    def _mix_labels(self, entry: Entry, partners: Any, by: MixPlan) -> Any:
        both = _heads(lambda y, other: torch.cat((y, other)), entry.value, partners)
        y = next(leaves(entry.value))
        made = self.targets.mix(
            both, twice(by, self.plan.itself).to(y.device), self.counts[entry.path]
        )
        return _heads(lambda t: t[: by.batch_size], made)

    def _mix_doubled(self, entry: Entry, half: _Doubled, inplace: bool) -> Any:
        """Mix a batch of the samples and, behind them, their partners; the first half is kept."""
        x, plan, n = half.both(), twice(half.own.rows, self.plan.itself), self.size
        self.paste = None
        if self.plan.places is not None:
            places = torch.cat((self.plan.places, torch.zeros_like(self.plan.places)))
            whole = twice(self.plan.rows, self.plan.itself).to(x.device)
            self.paste = Resized(places.to(x.device), whole, self.scene.sizes).paste
        made = self._mixed(entry._replace(value=x), plan.to(x.device), False)[:n]
        if entry.path in self.maps:
            return made
        if inplace and isinstance(entry.value, Tensor):
            plain(entry.value).copy_(plain(made))
            return entry.value
        return _as_entry(plain(made), entry, False)

    def _mix_group(
        self, group: Instances, received: dict[Path, Any], by_entry: dict[Path, EntryPlans]
    ) -> dict[Path, New]:
        """Boxes and the like, with those of the partners behind them."""
        image, n = self._image_of(group), self.size
        entries = group.lead, *group.rows
        lead, *rows = (entry._replace(value=received[entry.path]) for entry in entries)
        o, count = self.options, (*group.group, COUNT)
        both = Instances(self.batch, lead, rows, o.min_visible, o.box_format)
        both.count = received.get(count)
        both.check(2 * n, shape_of(image.value)[-2:], o.blends)
        device = lead.value.device if isinstance(lead.value, Tensor) else "cpu"
        news = both.mix(twice(by_entry[image.path].rows, self.plan.itself).to(device), o.blends)
        return {path: New(new.value[:n]) for path, new in news.items()}


class _Doubled:
    """An entry whose partners are all needed whole."""

    def __init__(self, x: Tensor, own: EntryPlans, plan: GlobalPlan, last: bool) -> None:
        self.x, self.own, self.plan = x, own, plan
        self.rows = Rows(movable(x), plan.send_by_rank, plan.rows_by_rank, last)

    @property
    def parts(self) -> list[Part]:
        """What travels."""
        return [self.rows]

    def both(self) -> Tensor:
        return torch.cat((self.x, self.rows.partners(self.plan).view(self.x.dtype)))


class _Received(NamedTuple):
    labels: dict[Path, Any]  # the labels of every partner
    groups: list[dict[Path, Any]]  # rows of boxes, and behind them those of the partners


class _Small:
    """Labels, and entries with a row for each box: one record a sample, and the lists' rows."""

    def __init__(self, step: GlobalStep, plan: GlobalPlan) -> None:
        self._step, self._plan = step, plan
        fixed = [y for entry in step.labels for y in leaves(entry.value)]
        for group in step.groups:
            for entry in (group.lead, *group.rows):
                if isinstance(entry.value, Tensor):
                    fixed.append(plain(entry.value))
            if isinstance(group.count, Tensor):
                fixed.append(group.count)
        every = [*fixed, *(entry.counts for entry in step.lists.values())]
        self.parts: list[Records] = []
        if every:
            self.parts = [Records(every, plan.send_by_rank, plan.rows_by_rank)]

    def received(self, wire: Wire) -> _Received:
        """What belongs to the partner of every sample; the rows of lists travel now."""
        step, plan = self._step, self._plan
        every = [t for part in self.parts for t in part.all_partners(plan)]
        fixed = iter(every[: len(every) - len(step.lists)])
        labels = {e.path: _heads(lambda _: next(fixed), e.value) for e in step.labels}
        if step.lists:
            counts = every[len(every) - len(step.lists) :]
            pairs = zip(step.lists.values(), counts, strict=True)
            lists = [entry.expect(of, plan) for entry, of in pairs]
            Parcel(lists, wire, torch.device("cpu")).wait()
        groups = []
        for group in step.groups:
            found: dict[Path, Any] = {}
            for entry in (group.lead, *group.rows):
                here = step.lists.get(entry.path)
                value = entry.value
                found[entry.path] = _joined(value, next(fixed)) if here is None else here.both(plan)
            if isinstance(group.count, Tensor):
                count = (*group.group, COUNT)
                found[count] = torch.cat((group.count, next(fixed)))
            groups.append(found)
        return _Received(labels, groups)


def reads_of(common: MixPlan, places: Tensor | None) -> Reads:
    """What the one row reads that a batch shares."""
    region = int(regions(common, places)[0])
    return Reads(region == WHOLE, region == BOX)


def _heads(apply: Callable[..., Any], values: Any, *others: Any) -> Any:
    """``apply`` on the labels of each head, in their structure."""
    if not isinstance(values, STRUCTURES):
        return apply(values, *others)
    by_head = [heads("labels", v) for v in (values, *others)]
    made = {head: _heads(apply, *(of[head] for of in by_head)) for head in by_head[0]}
    return restore_structure(values, made)


def _joined(value: Tensor, partners: Tensor) -> Tensor:
    return wrap_like(torch.cat((plain(value), partners)), value)


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


def _is_channels_last(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.ndim not in (4, 5):
        return False
    form = torch.channels_last if value.ndim == 4 else torch.channels_last_3d
    return len(value) == 0 or (
        value.is_contiguous(memory_format=form) and not value.is_contiguous()
    )
