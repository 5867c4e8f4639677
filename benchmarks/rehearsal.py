"""Rehearses `make gpu` on a machine without a GPU: the same code on tiny cases.

FUSED_MIXUP_REHEARSAL=1 turns it on. Its times say nothing about speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from .registry import FLOOR, Case

OPS = (FLOOR, "mix_", "soft_target_cross_entropy")
MOST = 8  # length of any dimension


def is_rehearsal() -> bool:
    return os.environ.get("FUSED_MIXUP_REHEARSAL") == "1"


def shrink(cases: Iterable[Case]) -> list[Case]:
    """The cases whose tensors follow from their shape alone, made tiny."""
    found: dict[str, Case] = {}
    for case in cases:
        if case.op in OPS and case.sweep is None and case.clock == "device":
            small = replace(case, shape=tuple(min(n, MOST) for n in case.shape))
            found.setdefault(small.name, small)  # several sizes become one
    return list(found.values())
