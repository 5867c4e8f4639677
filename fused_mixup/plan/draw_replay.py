"""The draw itself, also inside torch.utils.checkpoint, whose recompute must get the same plans.

A recompute runs the forward of a region again, in the backward, when the state has moved on. So
each draw in a region keeps the state that it drew from, with what PyTorch keeps of that region, and
in a recompute the i-th draw draws from the i-th of them and moves nothing on.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import ops
from ..schemas import NAMESPACE, SCHEMAS
from ..tracing import checkpoint_regions, in_backward, is_exporting, never_recompute

Plan = tuple[Tensor, Tensor, Tensor, Tensor]

# Of each region the states and settings drawn from, and how many of them each run of it has used:
# its forward (by the region itself) and every recompute.
_drawn: WeakKeyDictionary[Any, list[tuple[Tensor, Tensor]]] = WeakKeyDictionary()
_used: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def draw(state: Tensor, settings: Tensor, *rest: Any) -> Plan:
    """``ops.draw_plan``, or in the recompute of a checkpoint the plan of its forward again."""
    if torch.compiler.is_compiling():
        # A program that is exported runs where there is no Python, and has no backward.
        op = ops.draw_plan if is_exporting() else _in_graph
        return op(state, settings, *rest)
    return _draw(state, settings, *rest)


def _draw(state: Tensor, settings: Tensor, *rest: Any) -> Plan:
    regions = checkpoint_regions()
    if regions or in_backward():
        state, settings = _drawn_from(regions, state, settings)
    return ops.draw_plan(state, settings, *rest)


def _drawn_from(
    regions: list[tuple[Any, Any]], state: Tensor, settings: Tensor
) -> tuple[Tensor, Tensor]:
    """State and settings for this draw, which is the next one of each run of a region around it."""
    runs, before = [], None
    for frame, recompute in regions:
        drawn = _drawn.setdefault(frame, [])
        run = frame if recompute is None else recompute
        i = _used.get(run, 0)
        runs.append((drawn, run, i))
        if before is None and i < len(drawn):
            before = drawn[i]
        if recompute is not None:
            # Ahead of its forward it may be, where that asks for a gradient before its end.
            if before is None and getattr(frame, "forward_completed", True):
                raise RuntimeError(
                    f"draw_plan: expected {len(drawn)} plans in the recompute of a checkpoint, as "
                    "in its forward, got more; draw before the region and pass the plan in"
                )
            break  # what is around it counts the draws of its forward
    else:
        if in_backward():
            raise RuntimeError(
                "draw_plan: expected to draw before the backward, got a call inside it, where "
                "torch.utils.checkpoint runs a region again and another plan would give wrong "
                "gradients; draw before the region and pass the plan in, or set "
                "use_reentrant=False"
            )
    kept = (state.clone(), settings.clone()) if before is None else before
    for drawn, run, i in runs:
        if i == len(drawn):
            drawn.append(kept)
        _used[run] = i + 1
    return (state, settings) if before is None else (kept[0].clone(), kept[1])


# ------------------------------------------------------------------ in a compiled step

# The same as an op, which a graph calls as it runs: a compiled block may stand in a region that is
# not compiled. Inside a graph no draw is recomputed: the backward would read a state moved on.
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_NAME = "draw_plan_in_graph"
_library.define(_NAME + SCHEMAS["draw_plan"], tags=torch.Tag.pt2_compliant_tag)
_library.impl(_NAME, _draw, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAMESPACE}::{_NAME}", ops.fake_draw_plan, lib=_library)
never_recompute(f"{NAMESPACE}::{_NAME}", _library)
_in_graph = getattr(torch.ops.fused_mixup, _NAME).default
