"""What mixes that call a model share: the model, draws where the batch lives, the host's draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import kind
from ..batch_mix.state import StreamModule
from ..codes import SEED_WORD, STEP_WORD
from ..plan.mix_plan import MixPlan
from ..tracing import in_backward
from .checks import classes_of
from .layers import inner_model
from .stream import LayerStream


class ModelMixup(StreamModule):
    """A model called with a mixed batch. It is no submodule: only the streams are this module's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected an nn.Module, got {kind(model)}")
        self._held = (model,)  # in a tuple: its parameters are not this module's
        self._inner = (inner_model(model)[0],)
        self._stream = LayerStream()

    @property
    def model(self) -> nn.Module:
        """The model as it was given."""
        return self._held[0]

    @property
    def inner(self) -> nn.Module:
        """The model inside data-parallel wrappers and torch.compile."""
        return self._inner[0]

    @property
    def _mixes(self) -> bool:
        """Whether this, the model and what it wraps are in training mode."""
        return self.training and self.model.training and self.inner.training

    def call_through(self, model: nn.Module) -> None:
        """Call the model as ``model`` from now on, which wraps it (DistributedDataParallel)."""
        self._held = (model,)

    def _check_step(self) -> None:
        if in_backward():
            raise RuntimeError(
                f"{type(self).__name__}: expected a call before the backward, got one inside it, "
                "where torch.utils.checkpoint runs a region again and another mix would be drawn; "
                "checkpoint parts of the model instead"
            )

    def _state_on(self, device: torch.device) -> Tensor:
        """The state, moved to where the batch lives, with the current rank in it."""
        if self.state.device != device:
            self.to(device)
        return self._own_state()

    def _draw_layer(self) -> Any:
        """The layer of this step; after :meth:`_state_on`, and before the plan, which ends it."""
        return self._stream.draw(self._values[0][SEED_WORD], self._stream_rank)

    def _make(self, device: torch.device) -> None:
        super()._make(device)
        self._stream.steps = self._values[0][STEP_WORD]  # steps on the meta device do not count

    def _target(self, labels: Any, plan: MixPlan, output: Any) -> Any:
        count = self.num_classes
        if count is None:
            count = classes_of(output, labels, type(self).__name__)
        return self._targets.mix(labels, plan, count)

    def _take(self, state: Any, settings: Any, name: str) -> str | None:
        error = super()._take(state, settings, name)
        if error is None:
            self._stream.steps = self._values[0][STEP_WORD]
        return error
