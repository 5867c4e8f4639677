"""What the modules that mix text share: draws, targets, the call in training and evaluation."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import check_choice, kind
from ..batch_mix.epochs import PlanLaw, Schedule
from ..batch_mix.labels import Targets, leaves
from ..batch_mix.state import StreamModule
from ..batch_mix.worker_streams import check_epoch
from ..codes import DRAWN_PAIRINGS, SEED_WORD, STEP_WORD
from ..manifold.layers import inner_model
from ..plan.mix_plan import MixPlan
from ..saliency.modes import logits_of
from ..tracing import in_backward
from .checks import check_inputs


class TextMixup(StreamModule):
    """A model of text called with a mixed batch. The model is no submodule: only the stream is."""

    def __init__(
        self,
        model: nn.Module,
        *,
        alpha: float = 1.0,
        num_classes: Any = None,
        prob: float = 1.0,
        per: str = "batch",
        pairing: str = "flip",
        symmetric: bool = False,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        dense_targets: bool = False,
        seed: int = 0,
        rank: int | None = None,
        schedule: Schedule | None = None,
        off_after_epoch: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected an nn.Module, got {kind(model)}")
        self._held = (model,)  # in a tuple: its parameters are not this module's
        self._inner = (inner_model(model)[0],)
        self._targets = Targets(num_classes, label_smoothing, ignore_index, bool(dense_targets))
        check_choice("pairing", pairing, DRAWN_PAIRINGS)
        self._rules: dict[str, Any] = {"per": per, "pairing": pairing, "symmetric": symmetric}
        self._law = PlanLaw(alpha, 0.0, 0.5, prob, None, schedule, off_after_epoch)
        self._start(seed, rank, self._law.settings(0))
        self._steps = 0  # draws so far, as in the state, which may lie on a device
        self.last_plan: MixPlan | None = None
        # A trial draw, so that it is refused here rather than in the first step.
        no_labels = torch.empty(0, dtype=torch.int64, device=self.state.device)
        self._law.draw(self.state.clone(), self.settings, 0, (), no_labels, self._rules)

    # ---------------------------------------------------------------- a step

    @property
    def model(self) -> nn.Module:
        """The model as it was given."""
        return self._held[0]

    @property
    def inner(self) -> nn.Module:
        """The model inside data-parallel wrappers and torch.compile."""
        return self._inner[0]

    def forward(
        self,
        input_ids: Tensor,
        labels: Any = None,
        attention_mask: Tensor | None = None,
        **inputs: Any,
    ) -> tuple[Any, Any]:
        """What the model returns, and the target; see the class."""
        if not (self.training and self.model.training):
            if attention_mask is not None:
                inputs["attention_mask"] = attention_mask
            return self.model(input_ids=input_ids, **inputs), labels
        name = type(self).__name__
        if in_backward():
            raise RuntimeError(
                f"{name}: expected a call before the backward, got one inside it, where "
                "torch.utils.checkpoint runs a region again; checkpoint parts of the model instead"
            )
        check_inputs(self.inner, input_ids, attention_mask, inputs)
        self._check_labels(labels, len(input_ids))
        self._check(input_ids, attention_mask, inputs)
        plan = self._draw(input_ids.device, len(input_ids), labels)
        output, plan = self._call(plan, input_ids, attention_mask, inputs, labels)
        self.last_plan = plan
        return output, self._target(labels, plan, output)

    def _check(self, input_ids: Tensor, attention_mask: Any, inputs: dict[str, Any]) -> None:
        """Raise where this way of mixing cannot take the inputs, before anything is drawn."""

    def _call(
        self,
        plan: MixPlan,
        input_ids: Tensor,  # [B, T]
        attention_mask: Tensor | None,  # [B, T]
        inputs: dict[str, Any],
        labels: Any,
    ) -> tuple[Any, MixPlan]:
        """Call the model with the batch mixed; its output, and the plan that labels follow."""
        raise NotImplementedError

    def _run(self, attention_mask: Tensor | None, inputs: dict[str, Any]) -> Any:
        if attention_mask is not None:
            inputs = {**inputs, "attention_mask": attention_mask}
        return self.model(**inputs)

    # ---------------------------------------------------------------- draws and labels

    def _check_labels(self, labels: Any, size: int) -> None:
        if labels is None:
            raise ValueError(
                "labels: expected labels [B], as the model is in training mode, got None; without "
                "labels call model.eval() first, or the model itself"
            )
        count = self._targets.num_classes
        if count is None:  # then the logits tell, and the labels are checked with them
            for y in leaves(labels):
                if not isinstance(y, Tensor) or y.ndim < 1:
                    raise TypeError(f"labels: expected a tensor [B], got {kind(y)}")
        else:
            self._targets.check("labels", labels, count)
        for y in leaves(labels):
            if y.shape[0] != size:
                raise ValueError(
                    f"labels: expected {size} of them, as there are sequences, got shape "
                    f"{list(y.shape)}"
                )

    def _draw(self, device: torch.device, size: int, labels: Any) -> MixPlan:
        if self.state.device != device:
            self._hold(self.state.to(device), self.settings.to(device))
        by_class = labels if self._rules["pairing"] == "cross_class" else None
        state, settings = self._own_state(), self.settings
        plan = self._law.draw(state, settings, size, (), by_class, self._rules)[0]
        self._steps += 1
        return plan

    def _host_random(self, purpose: str) -> random.Random:
        """Numbers on the host for the next step: a function of seed, rank and step."""
        return random.Random(f"{purpose} {self._values[0][SEED_WORD]} {self.rank} {self._steps}")

    def _target(self, labels: Any, plan: MixPlan, output: Any) -> Any:
        count = self._targets.num_classes
        if count is None and any(not y.is_floating_point() for y in leaves(labels)):
            count = _classes_of(output, type(self).__name__)
        return self._targets.mix(labels, plan, count)

    # ---------------------------------------------------------------- epochs and state

    def set_epoch(self, epoch: int) -> None:
        """Apply ``schedule`` and ``off_after_epoch`` for ``epoch`` (from 0)."""
        epoch = check_epoch(epoch)
        self._set_settings(self._law.settings(epoch), epoch)

    def _settings_error(self, name: str, settings: Tensor) -> str | None:
        return self._law.settings_error(name, settings)

    def _take(self, state: Any, settings: Any, name: str) -> str | None:
        error = super()._take(state, settings, name)
        if error is None:
            self._steps = self._values[0][STEP_WORD]
        return error

    def extra_repr(self) -> str:
        shown = {"alpha": self._law.numbers["mixup_alpha"], "prob": self._law.numbers["prob"]}
        shown |= {**self._rules, "num_classes": self._targets.num_classes, "rank": self.rank}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)


def _classes_of(output: Any, name: str) -> int:
    try:
        logits = logits_of(output)
    except TypeError:
        logits = None
    if logits is None or logits.ndim != 2:
        raise ValueError(
            f"num_classes: expected a number, as the model returns no logits [B, K]; give "
            f"{name}(…, num_classes=K)"
        )
    return logits.shape[1]
