"""Entries with a row for each instance of a sample: boxes, masks, keypoints, their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..boxes.follow import checked_boxes
from ..boxes.points import checked_points
from ..kinds import IMAGE_LIKE
from ..plan.mix_plan import MixPlan
from .entries import Entry
from .instance_masks import MaskLists, check_masks, cut_masks
from .structure import EACH, New, Path, at, first_of, items, may_have
from .tv_tensors import box_format, canvas_size, is_tv_tensor, plain, wrap_like

# The keys of what comes back beside boxes and keypoints.
WEIGHTS, COUNT, VISIBLE = "box_weights", "num_boxes", "_visible"

_LEADS = ("boxes", "instance_masks", "keypoints")  # the first of a structure counts the rows


class Instances:
    """The boxes of a structure (its masks or keypoints where it has none), with their fields."""

    def __init__(
        self, batch: Any, lead: Entry, rows: Sequence[Entry], min_visible: float, format: str
    ) -> None:
        self.lead, self.rows, self.group = lead, rows, lead.path[:-1]
        self.min_visible, self.format = min_visible, box_format(lead.value) or format
        structure = at(batch, self.group)
        self.count = dict(items(structure) or ()).get(COUNT)
        self.may_add = may_have(structure, WEIGHTS)
        self.padded = isinstance(lead.value, Tensor)
        self.checked: Any = None

    def check_device(self, device: torch.device) -> None:
        """Raise unless rows are where plans are drawn; lists have lengths for the host alone."""
        for entry in (self.lead, *self.rows):
            value = first_of(entry.value) if not self.padded else entry.value
            if not self.padded and device.type != "cpu":
                raise ValueError(
                    f"{entry.name}: expected a tensor [B, N, …] on {device}, where this BatchMix "
                    "draws, got lists, whose lengths only the host knows; pad them with "
                    f"torch.nn.utils.rnn.pad_sequence and give {COUNT!r}, or mix on the CPU"
                )
            if isinstance(value, Tensor) and value.device != device:
                raise ValueError(
                    f"{entry.name}: expected it on {device} like this BatchMix, got "
                    f"{value.device}; move one of them with .to()"
                )

    def check(self, batch_size: int, size: Sequence[int], blends: bool) -> None:
        """Check all values for images of ``size`` (H, W), before a step is taken."""
        for entry in (self.lead, *self.rows):
            canvas = canvas_size(entry.value)
            if canvas is not None and tuple(canvas) != tuple(size):
                raise ValueError(
                    f"{entry.name}: expected the canvas of the images, {list(size)}, got "
                    f"{list(canvas)}; resize both by one transform"
                )
        if blends and self.lead.kind != "keypoints" and not self.may_add:
            raise ValueError(
                f"{self.lead.name}: expected a dict, as boxes that are blended come back with an "
                f"entry {WEIGHTS!r}, got a structure that takes none; use a dict, or mixup_alpha=0"
            )
        fields = {entry.name: _values(entry) for entry in self.rows}
        for entry in self.rows:
            if entry.kind == "instance_masks":
                check_masks(entry.name, fields[entry.name], size)
        lead, name = _values(self.lead), self.lead.name
        points = [entry.name for entry in self.rows if entry.kind == "keypoints"]
        if self.lead.kind == "keypoints":
            options: dict[str, Any] = {"count": self.count, "name": name}
            self.checked = checked_points(lead, batch_size, size, **options)
        elif self.lead.kind == "boxes":
            options = {"format": self.format, "min_visible": self.min_visible, "points": points}
            options |= {"count": self.count, "name": name}
            self.checked = checked_boxes(lead, fields, batch_size, size, **options)
            self.checked.check_values()
        else:
            check_masks(name, lead, size)
            self.checked = MaskLists(lead, fields, batch_size, points, self.min_visible, name)

    # ---------------------------------------------------------------- mixing

    def mix(self, plan: MixPlan, blends: bool) -> dict[Path, New]:
        if self.lead.kind == "keypoints":
            mixed = self.checked.mix(plan)
        else:
            masks = any(entry.kind == "instance_masks" for entry in self.rows)
            weighed = blends or any(entry.path[-1] == WEIGHTS for entry in self.rows)
            mixed = self.checked.mix(plan, masks, weighed)
        news: dict[Path, New] = {}
        rows = {self.lead.name: mixed.rows, **mixed.fields}
        for entry in (self.lead, *self.rows):
            values = rows[entry.name]
            if entry.kind == "instance_masks" and entry is not self.lead:
                values = cut_masks(values, mixed.own, plan)
            if entry.kind == "keypoints":
                values = self._seen(entry, values, mixed.visible[entry.name], news)
            if entry.path[-1] == WEIGHTS:
                values = _scaled(values, mixed.weights)
            news[entry.path] = self._wrapped(entry, values)
        weights = (*self.group, WEIGHTS)
        if blends and self.lead.kind != "keypoints" and weights not in news:
            news[weights] = New(self._present(mixed.weights))
        if mixed.counts is not None:
            count = (*self.group, COUNT)
            news[count] = New(mixed.counts)
        return news

    def keep(self, blends: bool) -> dict[Path, New]:
        """In eval mode: weights of 1 where training adds weights."""
        path, value = (*self.group, WEIGHTS), self.lead.value
        has_weights = any(entry.path == path for entry in self.rows)
        if self.lead.kind == "keypoints" or not blends or has_weights or not self.may_add:
            return {}
        if isinstance(value, Tensor):
            return {
                path: New(torch.ones(value.shape[:2], dtype=torch.float32, device=value.device))
            }
        ones = [None if v is None else torch.ones(len(v), dtype=torch.float32) for v in value]
        return {path: New(ones)}

    def _seen(self, entry: Entry, points: Any, visible: Any, news: dict[Path, New]) -> Any:
        """Points whose third number is 0 where they are not seen; else bools in their own entry."""
        alone = isinstance(points, Tensor)
        first = points if alone else next(iter(points), None)
        if first is None or first.shape[-1] != 3:
            path = (*self.group, f"{entry.path[-1]}{VISIBLE}")
            news[path] = New(self._present(visible))
            return points
        if alone:
            points, visible = [points], [visible]
        for p, seen in zip(points, visible, strict=True):
            p[..., 2].mul_(seen)
        return points[0] if alone else points

    def _wrapped(self, entry: Entry, values: Any) -> New:
        if isinstance(values, Tensor):
            return New(wrap_like(values, entry.value))
        like = first_of(entry.value)
        if is_tv_tensor(like):
            values = [wrap_like(v, like) for v in values]
        return New(self._present(values))

    def _present(self, values: Any) -> Any:
        """None for a sample that had nothing and got nothing, so that it stays as it was."""
        if EACH not in self.group or isinstance(values, Tensor):
            return values
        return [
            None if old is None and len(new) == 0 else new
            for old, new in zip(self.lead.value, values, strict=True)
        ]


def instance_groups(
    batch: Any, entries: Sequence[Entry], min_visible: float, format: str
) -> tuple[list[Instances], list[Entry]]:
    """The instances of every structure, and the entries that belong to none."""
    leads: dict[Path, Entry] = {}
    for kind in _LEADS:
        for entry in entries:
            if entry.kind == kind and not _is_raw(entry):
                leads.setdefault(entry.path[:-1], entry)
    for entry in entries:  # masks of instances without boxes: as many as there are labels
        group = entry.path[:-1]
        if entry.kind == "class_map" and group not in leads and _are_instance_masks(entry, None):
            labels = [e for e in entries if e.path[:-1] == group and e.kind in ("labels", "field")]
            lists = [e for e in labels if isinstance(e.value, (list, tuple))]
            if any(_counts(e.value) == _counts(entry.value) for e in lists):
                leads[group] = entry._replace(kind="instance_masks")
    if not leads and not any(entry.kind == "field" for entry in entries):
        return [], list(entries)
    rows = {group: _objects(batch, lead, entries) for group, lead in leads.items()}
    rest: list[Entry] = []
    for entry in entries:
        lead = leads.get(entry.path[:-1])
        if lead is not None and lead.path == entry.path:
            continue
        member = None if lead is None else _row_of(lead, entry)
        if member is not None:
            rows[entry.path[:-1]].append(member)
        elif _is_raw(entry):
            continue
        elif entry.kind in ("field", *_LEADS):
            where = "".join(f"[{key!r}]" for key in entry.path)
            raise ValueError(
                f"batch{where}: expected an entry of a known kind, or a row for each box beside "
                f"it, got neither; say it with BatchMix(…, kinds={{{entry.path[-1]!r}: …}}), "
                "'keep' to leave it as it is"
            )
        else:
            rest.append(entry)
    for group, lead in leads.items():
        _check_labels(lead, rows[group])
    groups = [Instances(batch, lead, rows[g], min_visible, format) for g, lead in leads.items()]
    return groups, rest


def _objects(batch: Any, lead: Entry, entries: Sequence[Entry]) -> list[Entry]:
    """Lists of Python objects beside lists of boxes, an object for each box."""
    found = {entry.path for entry in entries}
    group = lead.path[:-1]
    if EACH in group or isinstance(lead.value, Tensor):  # columns are found as entries
        return []
    rows = []
    for key, value in items(at(batch, group)) or ():
        path = (*group, key)
        if path in found or not isinstance(value, (list, tuple)):
            continue
        if any(isinstance(v, list) for v in value) and _counts(value) == _counts(lead.value):
            rows.append(Entry(path, "field", value, False))
    return rows


def _row_of(lead: Entry, entry: Entry) -> Entry | None:
    """``entry`` with the kind that it has as rows of ``lead``; None where it is none."""
    if entry.kind == "keep" or entry.kind in IMAGE_LIKE:
        return None
    value, padded = entry.value, isinstance(lead.value, Tensor)
    if isinstance(value, Tensor) and entry.kind == "labels":
        rows = lead.value.shape[1] if padded else None
        own = value.shape[1] if value.ndim > 1 else None
        if own is None or (own != rows and (not padded or value.is_floating_point())):
            return None  # labels of the images, [B] or [B, K]
        return entry
    first = value if isinstance(value, Tensor) else first_of(value)
    has_rows = isinstance(first, list) or (isinstance(first, Tensor) and first.ndim > 0)
    if _is_raw(entry) and has_rows:
        return entry._replace(kind="field")
    if entry.kind in ("field", "keypoints", "instance_masks", "labels") and has_rows:
        return entry
    if entry.kind == "class_map" and _are_instance_masks(entry, lead):
        return entry._replace(kind="instance_masks")
    return None


def _is_raw(entry: Entry) -> bool:
    """Whether an entry holds a list of Python objects for each sample, as annotations are read."""
    raw = isinstance(entry.value, (list, tuple)) and isinstance(first_of(entry.value), list)
    return raw and entry.kind != "labels" and not entry.said


def _check_labels(lead: Entry, rows: Sequence[Entry]) -> None:
    if lead.kind != "boxes" or lead.said:
        return
    if not any(entry.kind in ("labels", "field") for entry in rows):
        raise ValueError(
            f"{lead.name}: expected labels beside them, one for each box, got none; say "
            f"BatchMix(…, kinds={{{lead.path[-1]!r}: 'boxes'}}) where all are of one class"
        )


def _counts(value: Sequence[Any]) -> list[int] | None:
    """How many rows each sample has; None where each has one value."""
    try:
        return [v.shape[0] if isinstance(v, Tensor) else 0 if v is None else len(v) for v in value]
    except (IndexError, TypeError):  # tensors without dims, or numbers
        return None


def _are_instance_masks(entry: Entry, lead: Entry | None) -> bool:
    """Whether class maps are rather a mask [H, W] for each instance, as many as ``lead`` has."""
    if entry.said or entry.path[-1] == "mask" or not isinstance(entry.value, (list, tuple)):
        return False
    first = first_of(entry.value)
    if not isinstance(first, Tensor) or first.ndim != 3:
        return False
    return lead is None or _counts(entry.value) == _counts(lead.value)


def _values(entry: Entry) -> Any:
    """The rows as plain tensors; empty ones for samples that lack the entry."""
    value = entry.value
    if isinstance(value, Tensor):
        return plain(value)
    first = first_of(value)
    if is_tv_tensor(first):
        value = [plain(v) for v in value]
    if any(v is None for v in value):
        none = plain(first)[:0] if isinstance(first, (Tensor, list)) else []
        value = [none if v is None else v for v in value]
    return value


def _scaled(values: Any, by: Any) -> Any:
    if isinstance(values, Tensor):
        return values * by
    return [v * w for v, w in zip(values, by, strict=True)]
