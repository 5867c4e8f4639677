"""Which entries of a batch are mixed, and how: their kinds, said or found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ..arguments import kind as shown
from ..arguments import names
from ..kinds import IMAGE_LIKE, KINDS, MAPS, OF_BOXES, check_kind, kind_of_name, kind_of_type
from .structure import (
    EACH,
    Key,
    Path,
    are_samples,
    batch_size,
    columns,
    first_of,
    is_record,
    is_structure,
    items,
    key_at,
)


class Entry(NamedTuple):
    """One entry: a tensor, a list with a value for each sample, or the labels of several heads."""

    path: Path
    kind: str
    value: Any
    said: bool  # whether its kind was said

    @property
    def name(self) -> str:
        """How an error names it."""
        role = "images" if self.kind in IMAGE_LIKE else "masks" if self.kind in MAPS else self.kind
        return role + "".join(f"[{key!r}]" for key in self.path)


def dotted(path: Path) -> str:
    """The name of an entry by which ``kinds=`` and ``follows=`` mean it."""
    return ".".join(str(key) for key in path if key is not EACH)


class Kinds:
    """The kinds that a caller says: ``kinds=``, and ``images=``, ``labels=`` and ``masks=``."""

    def __init__(self, kinds: Any, images: Any, labels: Any, masks: Any) -> None:
        if kinds is not None and not isinstance(kinds, Mapping):
            raise TypeError(f"kinds: expected a dict of keys and kinds, got {shown(kinds)}")
        self.said: dict[Any, str] = {}
        for key, kind in (kinds or {}).items():
            self.said[key] = check_kind(f"kinds[{shown(key)}]", kind)
        self.roles = {
            role: _keys(given)
            for role, given in (("images", images), ("labels", labels), ("masks", masks))
        }
        if self.roles["images"] == ():
            raise ValueError("images: expected at least one key or position, got none")

    @property
    def all_said(self) -> dict[Any, str]:
        """The kinds that are said in any way, by key."""
        roles = (("images", "image"), ("labels", "labels"), ("masks", "class_map"))
        by_role = {key: kind for role, kind in roles for key in self.roles[role] or ()}
        return by_role | self.said

    def find(self, batch: Any) -> list[Entry]:
        """The entries that have a kind, in their order; ValueError for one that fits no rule."""
        return _Search(self, batch).entries()


class _Search:
    def __init__(self, kinds: Kinds, batch: Any) -> None:
        self.roles, self.batch, self.size = kinds.roles, batch, batch_size(batch)
        self.said = dict(kinds.said)
        self.found: list[Entry] = []
        self.unknown: list[Path] = []
        # What is said that no entry has is a slip of the pen.
        self.kinds = {k for k in kinds.said if isinstance(k, str)}
        self.used: set[Any] = set()
        self.seen: list[Any] = []
        for role, kind in (("images", "image"), ("labels", "labels"), ("masks", "class_map")):
            for key in self.roles[role] or ():
                self.said[_key_in(role, key, batch)] = kind
        for key in kinds.said:
            if isinstance(key, int) and isinstance(batch, (tuple, list)):
                self.said[_key_in("kinds", key, batch)] = kinds.said[key]

    def entries(self) -> list[Entry]:
        if _are_records(self.batch):  # a list of samples, not collated
            for name, column in columns(self.batch).items():
                self._visit_column(name, column, (EACH, name))
        else:
            self._walk(self.batch, ())
        unused = [key for key in self.kinds if key not in self.used]
        if unused:
            raise ValueError(
                f"kinds: expected {shown(unused[0])} in the batch, got {names(self.seen)}; names "
                "of nested entries are joined by dots"
            )
        if self.unknown and self.roles["labels"] is None:
            self._refuse_unknown(self.unknown[0])
        if not any(entry.kind in IMAGE_LIKE for entry in self.found):
            got = names(self.batch) if isinstance(self.batch, Mapping) else "none of them"
            raise ValueError(
                f"images: expected one of the keys {list(KINDS['image'].names)}, got {got}; name "
                "it with BatchMix(…, images=…), or BatchMix(…, kinds={…: 'image'})"
            )
        return self.found

    def _walk(self, structure: Any, path: Path, other: str | None = None) -> None:
        """Visit the entries of a structure; those of no kind have the kind ``other``."""
        for key, value in items(structure) or ():
            self._visit(key, value, (*path, key), other)

    def _visit(self, key: Key, value: Any, path: Path, other: str | None) -> None:
        kind = self._said_kind(key, path)
        if value is None:
            return
        if kind is not None:
            self.found.append(Entry(path, kind, value, True))
            return
        kind = self._guess(key, value, path) or other
        by_sample = are_samples(value, self.size)
        if by_sample and kind in OF_BOXES and not is_record(first_of(value)):
            by_sample = False  # rows as Python objects
        if by_sample and not (kind == "labels" and self._are_heads(value)):
            for name, column in columns(value).items():
                self._visit_column(name, column, (*path, EACH, name))
            return
        if self._said_inside(path):
            self._walk(value, path)
            return
        if kind is not None and self._is_entry(value, kind):
            self.found.append(Entry(path, kind, value, False))
        elif kind == "labels" and isinstance(value, (tuple, list)):
            self._walk(value, path, "labels")  # labels beside a map, for example
        elif _holds_entries(value, kind):
            self._walk(value, path)
        elif _may_be_labels(value):
            self.unknown.append(path)

    def _visit_column(self, key: Key, values: list[Any], path: Path) -> None:
        """One entry of each sample's own structure; those without a kind may belong to boxes."""
        there = [value for value in values if value is not None]
        kind, said = self._said_kind(key, path), True
        if kind is None and there:
            kind, said = kind_of_type(there[0]) or kind_of_name(key), False
        if not there or kind == "keep":
            return
        nested = kind is None or (kind == "labels" and isinstance(there[0], Mapping))
        if nested and all(isinstance(value, (Mapping, tuple)) for value in there):
            for name, column in columns(values).items():
                self._visit_column(name, column, (*path, name))
        elif kind is not None or isinstance(there[0], (Tensor, list)):
            self.found.append(Entry(path, kind or "field", values, said))
        elif isinstance(key, int) and isinstance(there[0], int):  # a tuple of label and map
            self.found.append(Entry(path, "labels", values, said))

    def _said_kind(self, key: Key, path: Path) -> str | None:
        if not self.said:
            return None
        if len(path) > 1 and isinstance(key, int):  # positions are said of the batch itself
            key = None
        for name in (key, dotted(path)):
            self.seen.append(name)
            if name in self.said:
                self.used.add(name)
                return self.said[name]
        return None

    def _are_heads(self, value: Any) -> bool:
        """Whether structures under the name of labels hold labels [B] of heads, not rows."""
        for _, inner in items(value) or ():
            if isinstance(inner, Tensor):
                if inner.ndim == 0 or inner.shape[0] != self.size:
                    return False
            elif not is_structure(inner) or _holds_kinds(inner) or not self._are_heads(inner):
                return False
        return True

    def _said_inside(self, path: Path) -> bool:
        """Whether a kind is said of an entry below this one, by its dotted name."""
        if not self.said:
            return False
        start = dotted(path) + "."
        return any(isinstance(key, str) and key.startswith(start) for key in self.said)

    def _guess(self, key: Key, value: Any, path: Path) -> str | None:
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        kind = kind_of_type(first) or kind_of_name(key)
        at_top = len(path) == 1
        if kind is None and at_top:
            first, second = (key_at(self.batch, position) for position in (0, 1))
            kind = "image" if key == first else "labels" if key == second else None
        if not at_top:
            return kind
        # A role whose entries were named has no others.
        if kind in MAPS and self.roles["masks"] is not None:
            return "keep"
        if kind == "image" and self.roles["images"] is not None:
            return None
        if kind == "labels" and self.roles["labels"] is not None:
            return None
        return kind

    def _is_entry(self, value: Any, kind: str) -> bool:
        """Whether ``value`` is one entry of that kind, rather than a structure of entries."""
        if kind == "keep":
            return True
        if items(value) is None:
            return isinstance(value, Tensor) or kind not in IMAGE_LIKE
        if kind == "labels":  # perhaps of several heads
            return not _holds_kinds(value)
        return not is_record(value)

    def _refuse_unknown(self, path: Path) -> None:
        others = ("labels", *OF_BOXES, "class_map", "soft_map")
        if any(entry.kind in others for entry in self.found) and self.roles["masks"] is None:
            where = "".join(f"[{key!r}]" for key in path)
            name = path[0] if len(path) == 1 else dotted(path)
            raise ValueError(
                f"batch{where}: expected an entry of a known kind, as it would stay unmixed; say "
                f"it with BatchMix(…, kinds={{{name!r}: …}}), 'keep' to leave it as it is"
            )
        if isinstance(self.batch, Mapping):
            expected = f"one of the keys {list(KINDS['labels'].names)}, got {names(self.batch)}"
        else:
            expected = f"them at position 1, which is taken, got {len(self.batch)} entries"
        raise ValueError(
            f"labels: expected {expected}; name them with BatchMix(…, labels=…), or labels=() if "
            "there are none"
        )


def _holds_kinds(value: Any) -> bool:
    """Whether a structure under the name of labels holds masks, boxes and the like."""
    named = is_record(value)
    for key, inner in items(value) or ():
        if type(inner) is Tensor and not named:
            continue
        kind = kind_of_type(inner) or (kind_of_name(key) if named else None)
        if kind in MAPS or kind in OF_BOXES or kind in IMAGE_LIKE:
            return True
        if isinstance(inner, (list, tuple)) and inner and kind_of_type(inner[0]) is not None:
            return True
    return False


def _holds_entries(value: Any, kind: str | None) -> bool:
    """Whether a structure has entries of its own: names, or structures inside."""
    if isinstance(value, Mapping) or (is_record(value) and kind != "labels"):
        return True
    return isinstance(value, (list, tuple)) and any(items(v) is not None for v in value)


def _are_records(batch: Any) -> bool:
    """Whether a batch is a list of one mapping for each sample, all of the same keys."""
    if not isinstance(batch, list) or not batch or not isinstance(batch[0], Mapping):
        return False
    return all(isinstance(s, Mapping) and s.keys() == batch[0].keys() for s in batch)


def _may_be_labels(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_may_be_labels, value))
    return isinstance(value, (Tensor, Mapping)) or hasattr(value, "__array__")


def _keys(given: Any) -> tuple[Key, ...] | None:
    if given is None or isinstance(given, tuple):
        return given
    return tuple(given) if isinstance(given, list) else (given,)


def _key_in(role: str, key: Key, batch: Any) -> Key:
    """``key``, or the key at that position, as the batch has it; ValueError for one it lacks."""
    at_position = key_at(batch, key)
    there = {name for name, _ in items(batch) or ()}
    if at_position is not None:
        return at_position
    if key not in there:
        got = names(batch) if isinstance(batch, Mapping) else f"{len(there)} entries"
        raise ValueError(f"{role}: expected {shown(key)} in the batch, got {got}")
    return key
