"""Batches as structures: mappings, dataclasses, tuples and lists, nested as deep as they like.

A list or tuple that holds one structure for each sample, as detection loaders give them, is read by
columns: the boxes of all samples are one entry.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Key = Any  # a key of a mapping, the name of a field, a position in a tuple or list
Path = tuple[Key, ...]


class _Each:
    """The step of a path from a list of samples into the structure of each."""

    def __repr__(self) -> str:
        return "…"


EACH = _Each()


def items(value: Any) -> Iterable[tuple[Key, Any]] | None:
    """The keys and values of a structure; None for what is none."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (tuple, list)):
        named = getattr(value, "_fields", None)
        # Lists, as callers ask for their truth, which PyTorch 2.10's Dynamo cannot of an iterator.
        return list(enumerate(value) if named is None else zip(named, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return None


def is_structure(value: Any) -> bool:
    return isinstance(value, (Mapping, tuple, list)) or is_record(value)


def first_of(values: Sequence[Any]) -> Any:
    """The first value that is not None, if any."""
    return next((v for v in values if v is not None), None)


def key_at(value: Any, position: Any) -> Key | None:
    """The key of the entry at a position of a tuple or list, from its end if negative."""
    if not isinstance(value, (tuple, list)) or not isinstance(position, int):
        return None
    if not -len(value) <= position < len(value):
        return None
    named = getattr(value, "_fields", None)
    position %= len(value)
    return position if named is None else named[position]


def is_record(value: Any) -> bool:
    """Whether ``value`` has named entries: a mapping, a dataclass or a named tuple."""
    return isinstance(value, Mapping) or (
        not isinstance(value, type)
        and (dataclasses.is_dataclass(value) or hasattr(value, "_fields"))
    )


def batch_size(batch: Any) -> int | None:
    """B, by the first entry of a batch that is a tensor, or a list of tensors."""
    for _, value in items(batch) or ():
        if isinstance(value, Tensor) and value.ndim:
            return value.shape[0]
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
            return len(value)
    return None


def are_samples(value: Any, size: int | None) -> bool:
    """Whether ``value`` is a list or tuple of one structure (or None) for each of ``size``."""
    if not isinstance(value, (list, tuple)) or len(value) != size or is_record(value):
        return False
    first = first_of(value)
    # Most lists hold tensors: one look is enough.
    return is_structure(first) and all(v is None or is_structure(v) for v in value)


def columns(samples: Sequence[Any]) -> dict[Key, list[Any]]:
    """For each key of any sample, the values of all; None where a sample has none."""
    rows = [dict(items(sample) or ()) for sample in samples]
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


class New(NamedTuple):
    """What an entry becomes; below :data:`EACH` a value for each sample, None for none."""

    value: Any


def replace(structure: Any, news: Mapping[Path, New]) -> Any:
    """``structure`` with new entries, as its type (a dict for a mapping that is read-only)."""
    if not news:
        return structure
    here: dict[Key, dict[Path, New]] = {}
    for path, new in news.items():
        here.setdefault(path[0], {})[path[1:]] = new
    if EACH in here:
        made = [replace(s, _of_sample(here[EACH], i)) for i, s in enumerate(structure)]
        return type(structure)(made)
    old = dict(items(structure) or ())
    entries = {
        key: below[()].value if () in below else replace(old[key], below)
        for key, below in here.items()
    }
    return _filled(structure, entries)


def _of_sample(news: Mapping[Path, New], i: int) -> dict[Path, New]:
    out = {}
    for path, new in news.items():
        rows = isinstance(new.value, (list, tuple, Tensor))  # a target has no single rows
        value = new.value[i] if rows else new.value[i : i + 1]
        if value is not None:
            out[path] = New(value)
    return out


def _filled(structure: Any, entries: Mapping[Key, Any]) -> Any:
    if isinstance(structure, (tuple, list)):
        out = list(structure)
        named = getattr(structure, "_fields", None)
        for key, value in entries.items():
            out[named.index(key) if named else key] = value
        if isinstance(structure, list):
            return out
        return type(structure)(*out) if named else tuple(out)
    if isinstance(structure, Mapping):
        if type(structure) is dict or not isinstance(structure, MutableMapping):
            return {**structure, **entries}
        copied = copy.copy(structure)
        for key, value in entries.items():
            copied[key] = value
        return copied
    if structure is None:  # a sample that had nothing
        return dict(entries)
    changed = copy.copy(structure)  # a dataclass, perhaps frozen
    for key, value in entries.items():
        object.__setattr__(changed, key, value)
    return changed


def may_have(structure: Any, key: Key) -> bool:
    """Whether an entry ``key`` can be added to ``structure``."""
    return isinstance(structure, Mapping) or key in dict(items(structure) or ())


def at(batch: Any, path: Path) -> Any:
    """The structure at ``path``; of the first sample, where each has its own."""
    for key in path:
        if key is EACH:
            batch = first_of(batch)
        else:
            batch = dict(items(batch) or ()).get(key)
    return batch


def same_memory(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    alike = a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
    if not alike or torch.compiler.is_compiling():  # traced tensors have no address
        return False
    return a.data_ptr() == b.data_ptr() != 0
