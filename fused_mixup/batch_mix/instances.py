"""Entries with a row for each instance of a sample: boxes, their fields and masks, keypoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..boxes.follow import BoxRows
from ..boxes.keypoints import PointRows
from ..plan.mix_plan import MixPlan
from .entries import Entry
from .instance_masks import MaskRows, cut_masks
from .structure import EACH, New, Path, at, items, may_have
from .tv_tensors import box_format, canvas_size, plain, wrap_like

WEIGHTS, COUNT, VISIBLE = "box_weights", "num_boxes", "visible"

# Kinds that can have a row for each box of their sample.
_ROWS = ("field", "labels", "instance_masks", "keypoints", "class_map")


class Instances:
    """The boxes of a structure, or instance masks or keypoints alone, and what follows them."""

    def __init__(
        self, batch: Any, lead: Entry, rows: Sequence[Entry], min_visible: float, format: str
    ) -> None:
        self.lead, self.rows = lead, rows
        self.group = lead.path[:-1]
        structure = at(batch, self.group)
        self.min_visible, self.format = min_visible, format
        self.count = dict(items(structure) or ()).get(COUNT)
        self.may_add = may_have(structure, WEIGHTS)
        self.padded = isinstance(lead.value, Tensor)

    @property
    def entries(self) -> Iterable[Entry]:
        return (self.lead, *self.rows)

    def check(self, batch_size: int, size: Sequence[int], blends: bool) -> None:
        """Check all values, before a step is taken."""
        for entry in self.entries:
            first = next((v for v in entry.value if v is not None), None)
            canvas = canvas_size(first)
            if canvas is not None and tuple(canvas) != tuple(size):
                raise ValueError(
                    f"{entry.name}: expected the canvas of the images, {list(size)}, got "
                    f"{list(canvas)}; resize both by one transform"
                )
        if blends and self.lead.kind == "boxes" and not self.may_add:
            raise ValueError(
                f"{self.lead.name}: expected a dict, as boxes that are blended come back with an "
                f"entry {WEIGHTS!r}, got a structure without one; put them in a dict, or set "
                "mixup_alpha=0"
            )
        values = {entry.path: self._values(entry) for entry in self.entries}
        lead = values.pop(self.lead.path)
        fields = {entry.name: values[entry.path] for entry in self.rows}
        points = [entry.name for entry in self.rows if entry.kind == "keypoints"]
        options = {"count": self.count, "name": self.lead.name}
        if self.lead.kind == "keypoints":
            self.prepared: Any = PointRows(lead, batch_size, size, **options)
        elif self.lead.kind == "boxes":
            format = box_format(self.lead.value) or self.format
            options |= {"format": format, "min_visible": self.min_visible, "points": points}
            self.prepared = BoxRows(lead, fields, batch_size, size, **options)
        else:
            options |= {"min_visible": self.min_visible, "points": points}
            self.prepared = MaskRows(lead, fields, batch_size, size, **options)

    def _values(self, entry: Entry) -> Any:
        """Plain tensors; for samples that lack the entry, empty ones."""
        if isinstance(entry.value, Tensor):
            return plain(entry.value)
        first = plain(next(v for v in entry.value if v is not None))
        none = first[:0] if isinstance(first, (Tensor, list)) else []
        return [none if v is None else plain(v) for v in entry.value]

    # ---------------------------------------------------------------- mixing

    def mix(self, plan: MixPlan, blends: bool) -> dict[Path, New]:
        mixed = self.prepared.mix(plan)
        news = {self.lead.path: self._wrapped(self.lead, mixed.rows)}
        for entry in self.rows:
            values = mixed.fields[entry.name]
            if entry.kind == "instance_masks":
                values = cut_masks(values, mixed.own, plan)
            if entry.path[-1] == WEIGHTS:
                values = _scaled(values, mixed.weights)
            news[entry.path] = self._wrapped(entry, values)
            if entry.kind == "keypoints":
                news |= self._visible(entry, mixed.visible[entry.name])
        if self.lead.kind == "keypoints":
            news |= self._visible(self.lead, mixed.visible)
        elif blends and (*self.group, WEIGHTS) not in news:
            news[(*self.group, WEIGHTS)] = New(self._present(mixed.weights))
        if self.padded:
            news[(*self.group, COUNT)] = New(mixed.counts)
        return news

    def keep(self, blends: bool) -> dict[Path, New]:
        """Weights of 1 beside boxes that are not mixed, where training adds weights."""
        path = (*self.group, WEIGHTS)
        if self.lead.kind == "keypoints" or not blends or not self.may_add:
            return {}
        if any(entry.path == path for entry in self.rows):
            return {}
        value = self.lead.value
        if isinstance(value, Tensor):
            return {path: New(torch.ones(value.shape[:2], device=value.device))}
        return {path: New([None if v is None else torch.ones(len(v)) for v in value])}

    def _wrapped(self, entry: Entry, values: Any) -> New:
        if isinstance(values, Tensor):
            return New(wrap_like(values, entry.value))
        like = next(v for v in entry.value if v is not None)
        return New(self._present([wrap_like(v, like) for v in values]))

    def _present(self, values: Any) -> Any:
        """None for a sample that had no boxes and got none, so that it stays as it was."""
        if EACH not in self.group or isinstance(values, Tensor):
            return values
        return [
            None if old is None and len(new) == 0 else new
            for old, new in zip(self.lead.value, values, strict=True)
        ]

    def _visible(self, entry: Entry, visible: Any) -> dict[Path, New]:
        """Visibility as the third number of each point, or else as an entry of its own."""
        return {(*self.group, f"{entry.path[-1]}_{VISIBLE}"): New(self._present(visible))}
