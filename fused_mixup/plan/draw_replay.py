"""Draws, and their replay inside torch.utils.checkpoint, whose recompute must draw the same again.

A recompute runs the forward of a region again, in the backward, when the state has advanced. So
each draw in a region saves the state that it drew from, as long as PyTorch keeps that region, and
in a recompute the i-th draw uses the i-th saved state and advances nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import ops
from ..names import NAMESPACE
from ..schemas import SCHEMAS
from ..tracing import checkpoint_regions, in_backward, is_exporting, never_recompute

PlanTensors = tuple[Tensor, Tensor, Tensor, Tensor]  # partner, weight, blend, box
ErasingTensors = tuple[Tensor, Tensor, Tensor]  # box, value, noise

_REMEDY = "draw before the region and pass the plan in"

# For each region the states and settings drawn from; for each run of a region, its forward (whose
# key is the region itself) and every recompute, how many of them it has used.
_drawn: WeakKeyDictionary[Any, list[tuple[Tensor, Tensor]]] = WeakKeyDictionary()
_used: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def draw(state: Tensor, settings: Tensor, *rest: Any) -> PlanTensors:
    """Call ``ops.draw_plan``; in the recompute of a checkpoint, repeat the plan of its forward."""
    if torch.compiler.is_compiling():
        # An exported program runs without Python, and has no backward.
        op = ops.draw_plan if is_exporting() else _plan_in_graph
        return op(state, settings, *rest)
    return _draw_plan(state, settings, *rest)


def draw_boxes(state: Tensor, settings: Tensor, *rest: Any) -> ErasingTensors:
    """Call ``ops.draw_erasing`` likewise."""
    if torch.compiler.is_compiling():
        op = ops.draw_erasing if is_exporting() else _erasing_in_graph
        return op(state, settings, *rest)
    return _draw_erasing(state, settings, *rest)


def draw_parts(state: Tensor, settings: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Call ``ops.draw_variants`` likewise."""
    if torch.compiler.is_compiling():
        op = ops.draw_variants if is_exporting() else _variants_in_graph
        return op(state, settings, *rest)
    return _draw_variants(state, settings, *rest)


def draw_partners(state: Tensor, settings: Tensor, *rest: Any) -> Tensor:
    """Call ``ops.draw_neighbors`` likewise."""
    if torch.compiler.is_compiling():
        op = ops.draw_neighbors if is_exporting() else _neighbors_in_graph
        return op(state, settings, *rest)
    return _draw_neighbors(state, settings, *rest)


def _draw_plan(state: Tensor, settings: Tensor, *rest: Any) -> PlanTensors:
    return ops.draw_plan(*_replayed("draw_plan", state, settings), *rest)


def _draw_erasing(state: Tensor, settings: Tensor, *rest: Any) -> ErasingTensors:
    return ops.draw_erasing(*_replayed("draw_erasing", state, settings), *rest)


def _draw_variants(state: Tensor, settings: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return ops.draw_variants(*_replayed("draw_variants", state, settings), *rest)


def _draw_neighbors(state: Tensor, settings: Tensor, *rest: Any) -> Tensor:
    return ops.draw_neighbors(*_replayed("draw_neighbors", state, settings), *rest)


def _replayed(op: str, state: Tensor, settings: Tensor) -> tuple[Tensor, Tensor]:
    regions = checkpoint_regions()
    if regions or in_backward():
        return _find_state(op, regions, state, settings)
    return state, settings


def _find_state(
    op: str, regions: list[tuple[Any, Any]], state: Tensor, settings: Tensor
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
                    f"{op}: expected {len(drawn)} draws in the recompute of a checkpoint, as in "
                    f"its forward, got more; {_REMEDY}"
                )
            break  # regions around it count the draws of its forward
    else:
        if in_backward():
            raise RuntimeError(
                f"{op}: expected to draw before the backward, got a call inside it, where "
                "torch.utils.checkpoint runs a region again and another draw would give wrong "
                f"gradients; {_REMEDY}, or set use_reentrant=False"
            )
    kept = (state.clone(), settings.clone()) if before is None else before
    for drawn, run, i in runs:
        if i == len(drawn):
            drawn.append(kept)
        _used[run] = i + 1
    return (state, settings) if before is None else (kept[0].clone(), kept[1])


# ------------------------------------------------------------------ in a compiled step

# The same draws as ops, which a graph calls at run time: a region that is not compiled may contain
# a compiled block. Inside a graph no draw is recomputed: the backward would read an advanced state.
_library = torch.library.Library(NAMESPACE, "FRAGMENT")


def _in_graph(op: str, call: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    name = f"{op}_in_graph"
    _library.define(name + SCHEMAS[op], tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, call, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    never_recompute(f"{NAMESPACE}::{name}", _library)
    return getattr(getattr(torch.ops, NAMESPACE), name).default


_plan_in_graph = _in_graph("draw_plan", _draw_plan, ops.checked_fakes["draw_plan"])
_erasing_in_graph = _in_graph("draw_erasing", _draw_erasing, ops.checked_fakes["draw_erasing"])
_variants_in_graph = _in_graph("draw_variants", _draw_variants, ops.checked_fakes["draw_variants"])
_neighbors_in_graph = _in_graph(
    "draw_neighbors", _draw_neighbors, ops.checked_fakes["draw_neighbors"]
)
