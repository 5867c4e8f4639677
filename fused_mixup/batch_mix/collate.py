"""Samples made a batch, those with boxes too: ``default_collate`` where each entry can be stacked.

In a structure with boxes, instance masks or keypoints all entries but images and maps stay lists,
one value for each sample, also where their lengths happen to be equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kinds import IMAGE_LIKE, MAPS, OF_BOXES, kind_of_name, kind_of_type
from ..loading.shared_batch import collate
from .structure import Key, New, columns, first_of, is_record, items, replace
from .tv_tensors import is_tv_tensor, plain, wrap_like


def collate_samples(samples: list[Any], said: Mapping[Any, str]) -> Any:
    """A batch of ``samples``; stacked tv_tensors keep their type, by which their kind is found."""
    first = samples[0]
    if items(first) is None:
        return wrap_like(collate([plain(s) for s in samples]), first)
    if not any(_holds_instances(sample, said) for sample in samples):
        return _typed(collate(samples), first)
    has_rows = any(_has_rows(sample, said) for sample in samples)
    made = {
        (key,): New(_column(key, values, has_rows, said))
        for key, values in columns(samples).items()
    }
    return replace(first, made)


def _column(key: Key, values: list[Any], has_rows: bool, said: Mapping[Any, str]) -> Any:
    first = first_of(values)
    kind = _kind(key, first, said)
    if any(_holds_instances(value, said) for value in values if items(value) is not None):
        return tuple(values)  # each sample's own structure
    is_row = kind not in IMAGE_LIKE and (kind != "class_map" or key == "masks")
    has_length = isinstance(first, list) or getattr(first, "ndim", 0) > 0
    if kind in OF_BOXES or (has_rows and is_row and has_length):
        return list(values)
    if any(value is None for value in values):
        return list(values)
    return _typed(collate(values), first)


def _kind(key: Key, value: Any, said: Mapping[Any, str]) -> str | None:
    return said.get(key) or kind_of_type(value) or kind_of_name(key)


def _has_rows(sample: Any, said: Mapping[Any, str]) -> bool:
    """Whether a structure has boxes or the like among its own entries."""
    kinds = {
        key: _kind(key, value, said) for key, value in items(sample) or () if not is_record(value)
    }
    if any(kind in OF_BOXES for kind in kinds.values()):
        return True
    rows = dict(items(sample) or ())
    masks: Any = rows.get("masks")  # one for each label, without boxes
    return getattr(masks, "ndim", 0) in (3, 4) and any(
        kind == "labels" and getattr(rows[key], "shape", ())[:1] == masks.shape[:1]
        for key, kind in kinds.items()
    )


def _holds_instances(sample: Any, said: Mapping[Any, str]) -> bool:
    """Whether a structure has boxes or the like, at any depth."""
    if _has_rows(sample, said):
        return True
    return any(_holds_instances(v, said) for _, v in items(sample) or () if items(v) is not None)


def _typed(made: Any, like: Any) -> Any:
    """A collated batch with the tv_tensor types of one sample."""
    if is_tv_tensor(like):
        return wrap_like(made, like)
    if isinstance(made, dict) and isinstance(like, Mapping):
        return {key: _typed(value, like[key]) for key, value in made.items()}
    if isinstance(made, list) and isinstance(like, (tuple, list)) and len(made) == len(like):
        return [_typed(a, b) for a, b in zip(made, like, strict=True)]
    return made


def untyped(batch: Any) -> Any:
    """The batch with plain tensors in the places of stacked tv_tensors, as ``default_collate``."""
    if isinstance(batch, (list, tuple)) and any(map(_is_stacked, batch)):
        entries = items(batch) or ()
        return replace(batch, {(key,): New(plain(v)) for key, v in entries if _is_stacked(v)})
    if isinstance(batch, Mapping):
        return {key: untyped(value) for key, value in batch.items()}
    return plain(batch)


def _is_stacked(value: Any) -> bool:
    return is_tv_tensor(value) and kind_of_type(value) in (*IMAGE_LIKE, *MAPS)
