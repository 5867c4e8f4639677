"""Hooks that mix what passes a module in one forward of its model.

They are registered once, as torch.compile ignores hooks that are added later, and do nothing
without a plan.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from ..arguments import kind
from ..batch_mix.structure import New, replace
from ..dtypes import FLOATING
from ..mixing import mix
from ..plan.mix_plan import MixPlan
from ..tracing import in_backward

_numbers = itertools.count()
# The plans of the forwards that run, by the numbers of their slots. A graph finds them here, as the
# sizes of what it reaches through a module (a hook's slot) are constants to PyTorch.
_plans: dict[int, MixPlan] = {}


class Slot:
    """What all hooks of one model see: the plan of the forward that runs, and what it mixes."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.number = next(_numbers)
        self.wanted = 0  # the layer to mix, from 1; 0 is what enters the first
        self.calls = 0  # of layers so far: ALBERT calls one module many times
        self.fired = False
        self.used = False  # some forward has been mixed

    def start(self, plan: MixPlan, wanted: int) -> None:
        self.wanted, self.calls, self.fired = wanted, 0, False
        self.used = True
        _plans[self.number] = plan

    def stop(self) -> None:
        del _plans[self.number]

    @property
    def plan(self) -> MixPlan | None:
        return _plans.get(self.number)

    def __deepcopy__(self, memo: Any) -> Slot:
        return Slot(self.owner)  # a copied model is a plain one

    def __reduce__(self) -> tuple[Any, ...]:
        return Slot, (self.owner,)


class Handles:
    """The hooks of one model, which end with this object; its copies hold those of theirs."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.closed = False

    def close(self) -> None:
        self.closed = True
        while self.kept:
            self.kept.pop().remove()

    def __del__(self) -> None:
        self.close()


class Hook:
    """A hook of one module. Copies and pickles with its model, and then does nothing."""

    def __init__(self, slot: Slot, batch_dim: int) -> None:
        self.slot, self.batch_dim = slot, batch_dim

    def _refuse_recompute(self) -> None:
        if torch.compiler.is_compiling():  # it cannot tell
            return
        if self.slot.used and in_backward():
            raise RuntimeError(
                f"{self.slot.owner}: expected layers to run in the forward alone, got a run in the "
                "backward (torch.utils.checkpoint around a layer), which would not be mixed; use "
                "model.gradient_checkpointing_enable()"
            )

    def _mixed(self, hidden: Any) -> Tensor:
        slot = self.slot
        plan = slot.plan
        assert plan is not None
        slot.fired = True
        if not isinstance(hidden, Tensor) or hidden.dtype not in FLOATING:
            raise TypeError(
                f"{slot.owner}: expected a layer with a floating hidden state first, got "
                f"{kind(hidden)}; name other blocks"
            )
        dim, size = self.batch_dim, plan.batch_size
        if hidden.ndim <= dim or hidden.shape[dim] != size:
            raise ValueError(
                f"{slot.owner}: expected {size} samples in dim {dim} of the hidden state, got "
                f"shape {list(hidden.shape)}; set batch_dim (nn.DataParallel splits them: use "
                "DistributedDataParallel)"
            )
        if not plan.serves(hidden.device):
            plan = plan.to(hidden.device)  # a layer on another device than the input
        if dim:
            return mix(hidden.transpose(0, dim), plan).transpose(0, dim)
        return mix(hidden, plan)


class LayerHook(Hook):
    """A forward hook of an encoder layer: mixes the state after the layer that is wanted."""

    def __init__(self, slot: Slot, batch_dim: int, number: int | None) -> None:
        super().__init__(slot, batch_dim)
        self.number = number  # from 1; None where modules are shared and calls are counted

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        slot = self.slot
        if slot.plan is None:
            self._refuse_recompute()
            return None
        slot.calls += 1
        if slot.wanted != (slot.calls if self.number is None else self.number):
            return None
        if isinstance(output, Tensor):
            return self._mixed(output)
        if isinstance(output, (tuple, list)) and output:
            # T5's bias and others behind the state have no samples.
            return replace(output, {(0,): New(self._mixed(output[0]))})
        raise TypeError(
            f"{slot.owner}: expected a layer that returns a tensor, or a tuple of one and more, "
            f"got {kind(output)}; name other blocks"
        )


class InputHook(Hook):
    """A forward pre-hook: mixes the first argument of its module's first call, as layer 0."""

    def __call__(self, module: Any, args: Any, kwargs: Any) -> Any:
        slot = self.slot
        if slot.plan is None:
            self._refuse_recompute()
            return None
        if slot.wanted != 0 or slot.fired:
            return None
        if not args:
            raise TypeError(
                f"{slot.owner}: expected the hidden state as the first argument of a layer, got "
                "none; name other blocks"
            )
        return (self._mixed(args[0]), *args[1:]), kwargs
