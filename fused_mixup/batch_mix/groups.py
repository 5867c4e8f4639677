"""Which entries of a structure have a row for each box, mask or point beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..kinds import IMAGE_LIKE
from .entries import Entry
from .structure import EACH, Path, at, first_of, items

_LEADS = ("boxes", "instance_masks", "keypoints")  # the first of a structure counts the rows


def instance_groups(
    batch: Any, entries: Sequence[Entry]
) -> tuple[list[tuple[Entry, list[Entry]]], list[Entry]]:
    """The entry that counts the rows of each structure, with the others that have such rows.

    Also the entries that have none.
    """
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
    if not leads and not any(entry.kind in ("field", *_LEADS) for entry in entries):
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
        elif _is_raw(entry) and entry.kind not in _LEADS:
            continue
        elif _is_raw(entry):
            raise TypeError(
                f"{entry.name}: expected tensors, one for each sample, got lists; use "
                "torch.as_tensor"
            )
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
    return [(lead, rows[group]) for group, lead in leads.items()], rest


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
    if entry.said or entry.path[-1] == "mask":
        return False
    if isinstance(entry.value, Tensor):  # padded, [B, N, H, W]
        boxes: Any = None if lead is None else lead.value
        fits = isinstance(boxes, Tensor) and boxes.ndim == 3 and entry.value.ndim == 4
        return fits and entry.value.shape[1] == boxes.shape[1]
    if not isinstance(entry.value, (list, tuple)):
        return False
    first = first_of(entry.value)
    if not isinstance(first, Tensor) or not (
        first.ndim == 3 or (first.ndim == 4 and first.shape[1] == 1)
    ):
        return False
    return lead is None or _counts(entry.value) == _counts(lead.value)
