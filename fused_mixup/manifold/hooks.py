"""The hook that mixes what a layer returns, and which call of the model it mixes for.

A hook runs again where torch.utils.checkpoint recomputes its region, in the backward, when the call
is over and others may have begun. So the first run notes the call at each region around it, which
PyTorch keeps for the recompute, and the recompute finds it there.

In a compiled model a hook is part of the graph, which may write to nothing outside where it holds a
checkpoint, and cannot tell how often it ran. So the first call that draws a layer runs the model
without its graphs, which checks the layer; those that follow need to know only that the hook was
traced.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..mixing import mix
from ..plan.mix_plan import MixPlan
from ..tracing import checkpoint_regions, in_backward
from .errors import never_fired, untraced
from .hidden import Axes, check_hidden, get_hidden, hidden_key, replaced

INPUT = "input"

# Draws a plan for the sizes that boxes live in; again, for a recompute.
Draw = Callable[[tuple[int, ...], bool], MixPlan]


class Call:
    """One forward of the model: which layer is mixed, and by which plan."""

    def __init__(self, layer: str, size: int, draw: Draw) -> None:
        self.layer, self.size, self._draw = layer, size, draw
        self.plan: MixPlan | None = None  # drawn before the forward, or by the hook
        self.cuts = False  # there may be boxes, in the spatial dims of the hidden state
        self.draws = False  # the hook draws, as it knows the sizes for boxes
        self.sizes: tuple[int, ...] = ()  # in which it drew
        self.fired = False
        self.recomputes = False  # the hook ran where a checkpoint will run it again
        self.with_grad = torch.is_grad_enabled()
        self.removal: Removal | None = None  # of its hook, after close()

    def draw(self, sizes: tuple[int, ...]) -> MixPlan:
        self.plan = self._draw(sizes, self.plan is not None)
        return self.plan


class Removal:
    """Removes a hook when nothing holds this object."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __del__(self) -> None:
        self.handle.remove()


class Slot:
    """What all hooks of one model see: the call that is running, if any."""

    def __init__(self) -> None:
        # The calls whose layers fired in a region of torch.utils.checkpoint, by their names.
        self.regions: WeakKeyDictionary[Any, dict[str, Call]] = WeakKeyDictionary()
        self.reentrant: set[str] = set()  # layers mixed in a region that PyTorch does not show
        # After close(): their hooks stay up to the next forward, to refuse a recompute.
        self.removals: dict[str, Removal] = {}
        self.number = next(_numbers)

    @property
    def call(self) -> Call | None:
        return _running.get(self.number)


_numbers = itertools.count()
# The calls that run, by the numbers of their slots. A graph finds them here, as the sizes of what
# it reaches through a module (a hook's slot) are constants to PyTorch.
_running: dict[int, Call] = {}
_traced: set[tuple[int, str]] = set()  # slots and layers whose hooks are in some graph


def note_traced(number: int, name: str) -> bool:
    """Note that a compiler traces a hook; it runs this once and takes the result for a constant."""
    _traced.add((number, name))
    return True


class LayerHook:
    """A forward hook of one layer, which mixes its hidden state where the layer was drawn."""

    def __init__(self, slot: Slot, name: str, axes: Axes) -> None:
        self.slot, self.name, self.axes = slot, name, axes

    def __reduce__(self) -> tuple[Any, ...]:
        return _hook_of_copy, ()  # a copied or loaded model is the plain one

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        if torch.compiler.is_compiling():
            call = self.slot.call
            if call is None or call.layer != self.name:
                return None
            note_traced(self.slot.number, self.name)
            return self._mixed(output, call)
        call = self._call_in_region()
        if call is None:
            return None
        call.fired = True
        return self._mixed(output, call)

    def _call_in_region(self) -> Call | None:
        """The call that this layer is mixed for now, in a forward or in a recompute of it."""
        slot, name = self.slot, self.name
        regions = checkpoint_regions()
        if any(recompute is not None for _, recompute in regions):
            calls = (slot.regions.get(frame, {}).get(name) for frame, _ in regions)
            call = next((c for c in calls if c is not None), None)
        elif in_backward():
            if name in slot.reentrant:
                raise RuntimeError(
                    f"ManifoldMixup: expected {name!r} to run in the forward alone, got a run "
                    "inside the backward, where nothing tells which call it repeats; set "
                    "use_reentrant=False in torch.utils.checkpoint"
                )
            return None
        else:
            slot.removals.pop(name, None)
            call = slot.call
            if call is None or call.layer != name:
                return None
            self._check_first(call)
            if call.with_grad and not torch.is_grad_enabled():  # a reentrant region, or no_grad
                slot.reentrant.add(name)
                call.recomputes = True
        if call is not None:
            for frame, _ in regions:
                slot.regions.setdefault(frame, {})[name] = call
                call.recomputes = True
        return call

    def _check_first(self, call: Call) -> None:
        if call.fired:
            raise RuntimeError(
                f"ManifoldMixup: expected {self.name!r} to be called once in a forward, got a "
                "second call (a layer that shares its weights with others, as in ALBERT); hook "
                "modules that are called once, such as the embeddings"
            )

    def _mixed(self, output: Any, call: Call) -> Any:
        key = None if isinstance(output, Tensor) else hidden_key(self.name, output)
        hidden = output if key is None else get_hidden(output, key)
        batch_dim = self.axes.batch_dim
        hidden = check_hidden(self.name, hidden, call.size, batch_dim)
        spatial = self.axes.spatial(self.name, hidden) if call.cuts else []
        plan = call.plan
        if call.draws:
            # A recompute draws again too, which repeats the plan: draws in a region are counted.
            call.sizes = tuple(hidden.shape[d] for d in spatial)
            plan = call.draw(call.sizes)
        assert plan is not None
        order = self.axes.order(spatial, hidden) if spatial or batch_dim else None
        mixed = mix_along(hidden, plan, order)
        return mixed if key is None else replaced(output, key, mixed)


def mix_along(hidden: Tensor, plan: MixPlan, order: list[int] | None) -> Tensor:
    """``mix`` of a hidden state whose dims are permuted to ``order`` for it, and back."""
    if not torch.compiler.is_compiling() and not plan.serves(hidden.device):
        plan = plan.to(hidden.device)  # a layer on another device than the input
    if order is None:
        return mix(hidden, plan)
    back = [order.index(d) for d in range(len(order))]
    return mix(hidden.permute(order), plan).permute(back)


def leave_output(module: Any, args: Any, output: Any) -> None:
    """The hook of a copied model: it does nothing."""


def _hook_of_copy() -> Callable[..., None]:
    return leave_output


class Hooks:
    """The hooks of one model: those of a call, and those that stay until :meth:`close`.

    Hooks hold the slot alone, so that they end with this object.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], axes: Axes, compiled: set[str], whole: bool
    ) -> None:
        self.layers, self.axes = layers, axes
        self.compiled = compiled  # names of the layers inside a compiled module
        self.whole = whole  # which is the whole model
        self.closed = False
        self._open()

    def _open(self) -> None:
        self._slot = Slot()
        self._handles: dict[str, Any] = {}
        self._known: dict[Any, tuple[int, ...]] = {}  # checked layers: sizes of boxes
        if self.compiled and not self.closed:
            torch.compiler.assume_constant_result(note_traced)  # imports the compiler
            self._handles = {name: self._register(name) for name in self.compiled}

    def keep(self) -> None:
        """Set all hooks now, as the whole model is compiled and has not been called."""
        if not (self.whole or self.closed):
            self.close()
            self.compiled, self.whole, self.closed = set(self.layers), True, False
            self._open()

    def _register(self, name: str) -> Any:
        hook = LayerHook(self._slot, name, self.axes)
        # In front of the hooks by which transformers records hidden states.
        return self.layers[name].register_forward_hook(hook, prepend=True)

    def known_sizes(self, layer: str, shapes: Any) -> tuple[int, ...] | None:
        """Sizes of boxes in a layer of a compiled model, once a call has shown them."""
        return self._known.get((layer, shapes))

    def run(self, call: Call, shapes: Any, forward: Callable[[], Any]) -> Any:
        """What ``forward`` returns while the drawn layer's hook mixes; raises unless it did.

        ``shapes`` are those of all inputs, on which the sizes of a feature map depend.
        """
        name, handle, slot = call.layer, None, self._slot
        hooked = name != INPUT
        if hooked and name not in self._handles:
            handle = self._register(name)
        compiled = name in self.compiled
        key = name, shapes if call.cuts else None
        checks = compiled and key not in self._known
        _running[slot.number] = call
        try:
            if checks:
                with torch.compiler.set_stance("force_eager"):
                    output = forward()
            else:
                output = forward()
        finally:
            del _running[slot.number]
            if handle is not None:
                if call.recomputes:
                    self._handles[name] = handle
                else:
                    handle.remove()
        if hooked:
            self._check_fired(call, compiled and not checks)
        if checks:
            self._known[key] = call.sizes
        return output

    def _check_fired(self, call: Call, traced: bool) -> None:
        name = call.layer
        if traced:
            if not call.fired and (self._slot.number, name) not in _traced:
                untraced(name)
        elif not call.fired:
            never_fired(name)
        elif call.recomputes and name in self.compiled and not self.whole:
            raise RuntimeError(
                f"ManifoldMixup: expected {name!r}, inside a compiled block, outside regions of "
                "torch.utils.checkpoint, whose recompute would run the block's graph of another "
                "call; name the compiled block itself, or compile the whole model"
            )

    def check_idle(self) -> None:
        if self.closed:
            raise RuntimeError("ManifoldMixup: expected it open, got a call after close()")
        if self._slot.call is not None:
            raise RuntimeError(
                "ManifoldMixup: expected one call at a time, got a call inside another; call the "
                "inner model itself"
            )

    def close(self) -> None:
        self.closed = True
        slot = self._slot
        while self._handles:
            name, handle = self._handles.popitem()
            removal = Removal(handle)
            for calls in slot.regions.values():
                if name in calls:
                    calls[name].removal = removal  # a recompute still needs the hook
            if name in slot.reentrant:
                slot.removals[name] = removal

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_slot"], state["_handles"], state["_known"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
