"""Images of different sizes against mixing by hand; a part of ``grid.py``."""

from __future__ import annotations

import random
from collections.abc import Callable

from cases import BLENDABLE
from ragged_cases import by_hand, random_call, room_for

from fused_mixup import ops


def check_ragged(check: Callable, count: int) -> None:
    rng = random.Random(6)
    for k in range(count):
        args = random_call(rng, BLENDABLE[k % len(BLENDABLE)])
        out = room_for(args[0], rng)
        ops.mix_ragged(*args, out)
        check("mix_ragged", out, by_hand(*args), k)
