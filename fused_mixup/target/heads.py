"""Labels, logits and numbers of classes of several heads: dicts, lists, tuples and named tuples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..arguments import names

STRUCTURES = (Mapping, list, tuple)


def leaves(values: Any) -> Iterator[Any]:
    """The values of each head."""
    if isinstance(values, STRUCTURES):
        for head in values.values() if isinstance(values, Mapping) else values:
            yield from leaves(head)
    else:
        yield values


def heads(name: str, values: Any, like_name: str = "", like: Any = None) -> dict[Any, Any]:
    """The heads of a dict, list or tuple by key or index; those of ``like``, or ValueError."""
    found = dict(values.items() if isinstance(values, Mapping) else enumerate(values))
    if like is not None:
        keys = heads(like_name, like).keys()
        if found.keys() != keys or isinstance(values, Mapping) != isinstance(like, Mapping):
            raise ValueError(
                f"{name}: expected the heads of {like_name}, {names(keys)}, got {names(found)}"
            )
    return found


def class_counts(num_classes: Any, name: str, labels: Any) -> dict[Any, Any]:
    """num_classes of each head of ``labels`` (``name`` in errors): one for all, or one for each."""
    if not isinstance(num_classes, STRUCTURES):
        return dict.fromkeys(heads(name, labels), num_classes)
    fields = getattr(labels, "_fields", None)
    if fields is not None and isinstance(num_classes, Mapping):  # keys are names, else positions
        by_name = heads("num_classes", num_classes, name, dict.fromkeys(fields))
        return dict(enumerate(by_name[field] for field in fields))
    return heads("num_classes", num_classes, name, labels)


def restore_structure(labels: Any, by_head: dict[Any, Any]) -> Any:
    """The values of ``by_head`` in the structure of ``labels``."""
    if isinstance(labels, Mapping):
        return by_head
    made = by_head.values()
    return type(labels)(*made) if hasattr(labels, "_fields") else type(labels)(made)
