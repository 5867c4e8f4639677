"""What all ranks must share, compared in one small exchange; an error names what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from ..codes import SEED_WORD, STATE_VERSION, STEP_WORD
from .wire import Wire

_TEXT = 1024  # bytes of a description that ranks show each other


def digest(text: str) -> int:
    """64 bits of a text, signed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def settings_of(mix: Any, neighbours: int | None) -> dict[str, Any]:
    """By name, what each rank must have alike."""
    state = mix.state.tolist()
    named: dict[str, Any] = {"version": STATE_VERSION, "seed": state[SEED_WORD]}
    named |= {"step": state[STEP_WORD], "settings": mix.settings.tolist(), "neighbours": neighbours}
    named |= dict(mix._rules)
    named |= {"num_classes": mix.num_classes, "label_smoothing": mix.label_smoothing}
    named |= {"ignore_index": mix.ignore_index, "dense_targets": mix.dense_targets}
    named["kinds"] = sorted(map(str, mix._kinds.all_said.items()))
    options = mix._options
    named |= {"spatial_dims": options.spatial_dims, "cut": options.cut}
    named |= {"follows": sorted(map(str, options.follows.items()))}
    named |= {"min_visible": options.min_visible, "box_format": options.box_format}
    named["mix"] = sorted(map(str, mix._law.numbers.items()))
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


def check_entries(wire: Wire, own: str, digests: list[int]) -> None:
    """Raise ValueError on every rank, with the entries of the first and of one that differs."""
    other = next((r for r, d in enumerate(digests) if d != digests[0]), None)
    if other is None:
        return
    text = own.encode()[:_TEXT]
    padded = torch.zeros(_TEXT, dtype=torch.uint8)
    padded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    every = wire.gather(padded.view(torch.int64).tolist())
    first, differs = (
        bytes(torch.tensor(every[r]).view(torch.uint8).tolist())
        .rstrip(b"\0")
        .decode(errors="replace")
        for r in (0, other)
    )
    raise ValueError(
        f"batch: expected the same entries on every rank, got on rank 0: {first}; on rank {other}: "
        f"{differs}"
    )
