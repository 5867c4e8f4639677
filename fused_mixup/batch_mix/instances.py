"""Entries with a row for each instance of a sample: boxes, masks, keypoints, their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..boxes.follow import checked_boxes
from ..boxes.points import checked_points
from ..plan.mix_plan import MixPlan
from .entries import Entry
from .instance_masks import MaskLists, check_masks, cut_masks
from .structure import EACH, New, Path, at, first_of, items, may_have
from .tv_tensors import box_formats, canvas_sizes, is_tv_tensor, plain, wrap_like

# The keys of what comes back beside boxes and keypoints.
WEIGHTS, COUNT, VISIBLE = "box_weights", "num_boxes", "_visible"


class Instances:
    """The boxes of a structure (its masks or keypoints where it has none), with their fields."""

    def __init__(
        self, batch: Any, lead: Entry, rows: Sequence[Entry], min_visible: float, format: str
    ) -> None:
        self.lead, self.rows, self.group = lead, rows, lead.path[:-1]
        self.min_visible = min_visible
        self.format = next(iter(box_formats(lead.value)), format)
        self.structure = at(batch, self.group)
        self.padded = isinstance(lead.value, Tensor)
        # Lists have their numbers in them.
        told = dict(items(self.structure) or ()).get(COUNT)
        self.count: Any = told if self.padded else None
        self.told: Any = None if self.padded else told
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
            for canvas in canvas_sizes(entry.value):
                if canvas != tuple(size):
                    raise ValueError(
                        f"{entry.name}: expected the canvas of the images, {list(size)}, got "
                        f"{list(canvas)}; resize both by one transform"
                    )
        formats = box_formats(self.lead.value)
        if len(formats) > 1:
            raise ValueError(
                f"{self.lead.name}: expected one format, got {sorted(formats)}; use torchvision's "
                "ConvertBoundingBoxFormat"
            )
        for key in self._added(blends):
            if not may_have(self.structure, key):
                raise ValueError(
                    f"{self.lead.name}: expected a dict, as they come back with an entry {key!r} "
                    "beside them, got a structure that takes none; use a dict"
                    + (", or mixup_alpha=0" if key == WEIGHTS else "")
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
        count = (*self.group, COUNT)
        if mixed.counts is not None:
            news[count] = New(mixed.counts)
        elif self.told is not None:  # beside lists it says again how long they are
            lengths = [len(v) for v in mixed.rows]
            as_tensor = isinstance(self.told, Tensor) and EACH not in self.group
            news[count] = New(torch.tensor(lengths) if as_tensor else lengths)
        return news

    def _added(self, blends: bool) -> list[str]:
        """The keys of what mixing adds beside the rows."""
        points = [e for e in (self.lead, *self.rows) if e.kind == "keypoints" and not _has_sight(e)]
        keys = [f"{entry.path[-1]}{VISIBLE}" for entry in points]
        keys += [WEIGHTS] if blends and self.lead.kind != "keypoints" else []
        return keys + ([COUNT] if self.padded else [])

    def keep(self, blends: bool) -> dict[Path, New]:
        """In eval mode: what training adds, for rows that are all there and seen."""
        news: dict[Path, New] = {}
        there = {entry.path for entry in self.rows}
        for key in self._added(blends):
            path = (*self.group, key)
            if path in there or (key == COUNT and self.count is not None):
                continue
            if not may_have(self.structure, key):
                continue
            if key == COUNT:
                b, n = self.lead.value.shape[:2]
                news[path] = New(torch.full((b,), n, device=self.lead.value.device))
                continue
            of = self.lead
            if key != WEIGHTS:
                points = (self.lead, *self.rows)
                of = next(e for e in points if f"{e.path[-1]}{VISIBLE}" == key)
            news[path] = New(_ones(of.value, torch.float32 if key == WEIGHTS else torch.bool))
        return news

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


def _has_sight(entry: Entry) -> bool:
    """Whether points have their visibility as a third number."""
    first = entry.value if isinstance(entry.value, Tensor) else first_of(entry.value)
    return isinstance(first, Tensor) and first.shape[-1:] == (3,)


def _ones(value: Any, dtype: torch.dtype) -> Any:
    """1 for each row of boxes [n, 4], for each of points […, 2]."""
    if not isinstance(value, Tensor):
        return [None if v is None else _ones(v, dtype) for v in value]
    return torch.ones(value.shape[:-1], dtype=dtype, device=value.device)


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
