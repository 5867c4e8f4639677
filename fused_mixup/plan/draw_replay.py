"""The draw, and its replay inside torch.utils.checkpoint, whose recompute must get the same plans.

A recompute runs the forward of a region again, in the backward, when the state has advanced. So
each draw in a region saves the state that it drew from, as long as PyTorch keeps that region, and
in a recompute the i-th draw uses the i-th saved state and advances nothing.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import ops
from ..schemas import NAMESPACE, SCHEMAS
from ..tracing import checkpoint_regions, in_backward, is_exporting, never_recompute

PlanTensors = tuple[Tensor, Tensor, Tensor, Tensor]  # partner, weight, blend, box

# For each region the states and settings drawn from; for each run of a region, its forward (whose
# key is the region itself) and every recompute, how many of them it has used.
_drawn: WeakKeyDictionary[Any, list[tuple[Tensor, Tensor]]] = WeakKeyDictionary()
_used: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def draw(state: Tensor, settings: Tensor, *rest: Any) -> PlanTensors:
    """Call ``ops.draw_plan``; in the recompute of a checkpoint, repeat the plan of its forward."""
    if torch.compiler.is_compiling():
        # An exported program runs without Python, and has no backward.
        op = ops.draw_plan if is_exporting() else _in_graph
        return op(state, settings, *rest)
    return _draw(state, settings, *rest)


def _draw(state: Tensor, settings: Tensor, *rest: Any) -> PlanTensors:
    regions = checkpoint_regions()
    if regions or in_backward():
        state, settings = _find_state(regions, state, settings)
    return ops.draw_plan(state, settings, *rest)


def _find_state(
    regions: list[tuple[Any, Any]], state: Tensor, settings: Tensor
) -> tuple[Tensor, Tensor]:
    """State and settings for this draw, the next one in each run of a region around it."""
    runs, before = [], None
    for frame, recompute in regions:
        drawn = _drawn.setdefault(frame, [])
        run = frame if recompute is None else recompute
        i = _used.get(run, 0)
        runs.append((drawn, run, i))
        if before is None and i < len(drawn):
            before = drawn[i]
        if recompute is not None:
            # A recompute may overtake its forward, where that asks for a gradient before its end.
            if before is None and getattr(frame, "forward_completed", True):
                raise RuntimeError(
                    f"draw_plan: expected {len(drawn)} plans in the recompute of a checkpoint, as "
                    "in its forward, got more; draw before the region and pass the plan in"
                )
            break  # regions around it count the draws of its forward
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

# The same draw as an op, which a graph calls at run time: a region that is not compiled may contain
# a compiled block. Inside a graph no draw is recomputed: the backward would read an advanced state.
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_NAME = "draw_plan_in_graph"
_library.define(_NAME + SCHEMAS["draw_plan"], tags=torch.Tag.pt2_compliant_tag)
_library.impl(_NAME, _draw, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAMESPACE}::{_NAME}", ops.fake_draw_plan, lib=_library)
never_recompute(f"{NAMESPACE}::{_NAME}", _library)
_in_graph = getattr(torch.ops.fused_mixup, _NAME).default
