"""What all ranks must share, compared in one small exchange; an error names what differs."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..codes import SEED_WORD, STATE_VERSION, STEP_WORD
from ..target.heads import STRUCTURES, heads
from .wire import Wire

# What the values of an entry say of its dtype and dims: lists may hold empty tensors, or None.
NOTHING, EMPTY, DIMS, ALL = range(4)

_LAWS = ("mixup_alpha", "cutmix_alpha", "switch_prob", "prob", "cutmix_minmax", "mix", "weights")


class Form(NamedTuple):
    """An entry as all ranks must have it, but for its number of samples."""

    name: str
    what: str  # its kind, and what else has to be the same
    dtype: torch.dtype | None  # None of Python objects
    shape: tuple[int, ...]  # of a sample, or of a row where samples have lists of rows
    known: int = ALL

    def __str__(self) -> str:
        dtype = "objects" if self.dtype is None else f"{self.dtype} {list(self.shape)}"
        return f"{self.name} {self.what} {dtype}"


def form_of(name: str, what: str, value: Any) -> Form:
    """The form of a tensor, or of a list with one tensor for each sample."""
    if isinstance(value, Tensor):
        return Form(name, what, value.dtype, tuple(value.shape[1:]))
    return Form(name, f"{what} lists of", value[0].dtype, tuple(value[0].shape))


def forms_of_heads(name: str, labels: Any) -> list[Form]:
    """The form of the labels of each head, by its name."""
    if not isinstance(labels, STRUCTURES):
        return [form_of(name, "labels", labels)]
    by_head = heads("labels", labels).items()
    return [form for key, y in by_head for form in forms_of_heads(f"{name}[{key!r}]", y)]


def digest(text: str) -> int:
    """64 bits of a text, signed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def settings_of(mix: Any, neighbours: int | None) -> dict[str, Any]:
    """By name, what each rank must have alike."""
    state = mix.state.tolist()
    named: dict[str, Any] = {"version": STATE_VERSION, "seed": state[SEED_WORD]}
    named |= {"step": state[STEP_WORD], "neighbours": neighbours, **mix._rules}
    # Names of both laws, so that ranks of different ones compare equally many.
    named |= {name: mix._law.numbers.get(name) for name in _LAWS}
    named["settings"] = mix.settings.tolist()  # of an epoch
    named |= {"num_classes": mix.num_classes, "label_smoothing": mix.label_smoothing}
    named |= {"ignore_index": mix.ignore_index, "dense_targets": mix.dense_targets}
    named["kinds"] = sorted(map(str, mix._kinds.all_said.items()))
    options = mix._options
    named |= {"spatial_dims": options.spatial_dims, "cut": options.cut}
    named |= {"follows": sorted(map(str, options.follows.items()))}
    named |= {"min_visible": options.min_visible, "box_format": options.box_format}
    return named


def check_settings(wire: Wire, named: Mapping[str, Any]) -> None:
    """Raise ValueError on every rank where one has another setting than the first."""
    every = wire.gather([digest(repr(value)) for value in named.values()])
    for name, values in zip(named, zip(*every, strict=True), strict=True):
        for rank, value in enumerate(values):
            if value != values[0]:
                raise ValueError(
                    f"{name}: expected the same on every rank, got another on rank {rank} than on "
                    "rank 0; give all ranks one BatchMix(…), or load one checkpoint on all"
                )


def agreed_forms(wire: Wire, own: Sequence[Form], digests: Sequence[int]) -> list[Form]:
    """The forms of all ranks: that of the first that knows most, where lists hold no rows.

    ``digests``: those of the forms of each rank. Raises ValueError on every rank where they differ,
    with the entries of the first and of one that has others.
    """
    if len(set(digests)) == 1:
        return list(own)
    every: list[list[Form]] = [pickle.loads(b) for b in wire.gather_bytes(pickle.dumps([*own]))]
    for rank, forms in enumerate(every):
        if [f.name for f in forms] != [f.name for f in every[0]]:
            _refuse(every, rank)
    agreed = [max(forms, key=lambda f: f.known) for forms in zip(*every, strict=True)]
    for rank, forms in enumerate(every):
        pairs = zip(forms, agreed, strict=True)
        if any(form.known == ALL and form != best for form, best in pairs):
            _refuse(every, rank)
    return agreed


def _refuse(every: Sequence[Sequence[Form]], rank: int) -> None:
    first, other = every[0], every[rank]
    only = [[str(f) for f in a if f not in b] for a, b in ((first, other), (other, first))]
    got = ["; ".join(forms) or "no other" for forms in only]
    if only == [[], []]:
        got = [", ".join(f.name for f in forms) for forms in (first, other)]  # in another order
    raise ValueError(
        f"batch: expected the same entries on every rank, got on rank 0: {got[0]}; on rank {rank}: "
        f"{got[1]}"
    )
