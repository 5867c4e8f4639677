"""What the modules that mix text share: the call in training and evaluation, and their hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from ..batch_mix.epochs import PlanLaw, Schedule
from ..batch_mix.labels import Targets
from ..manifold.checks import check_labels
from ..manifold.model_mixup import ModelMixup
from ..plan.mix_plan import MixPlan
from .checks import check_inputs
from .hooks import Handles, Slot

if TYPE_CHECKING:
    from typing_extensions import Self


class TextBatch(NamedTuple):
    """What a call was given."""

    input_ids: Tensor  # [B, T]
    attention_mask: Tensor | None  # [B, T]
    labels: Any
    inputs: dict[str, Any]  # all others, by the model's names


class TextMixup(ModelMixup):
    """A model of text called with a mixed batch."""

    _own_inputs: tuple[str, ...] = ()  # of a call, which the model does not get

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
        super().__init__(model)
        targets = Targets(num_classes, label_smoothing, ignore_index, bool(dense_targets))
        law = PlanLaw(alpha, 0.0, 0.5, prob, None, schedule, off_after_epoch)
        rules = {"per": per, "pairing": pairing, "symmetric": bool(symmetric)}
        self._set_up(targets, law, rules, seed, rank)
        self.last_plan: MixPlan | None = None

    # ---------------------------------------------------------------- a step

    def forward(
        self,
        input_ids: Tensor | None = None,
        labels: Any = None,
        attention_mask: Tensor | None = None,
        **inputs: Any,
    ) -> tuple[Any, Any]:
        """What the model returns, and the target; see the class."""
        if not self._mixes:
            if input_ids is not None:
                inputs["input_ids"] = input_ids
            for name in self._own_inputs:
                inputs.pop(name, None)
            return self._run(attention_mask=attention_mask, **inputs), labels
        self._check_step()
        input_ids = check_inputs(self.inner, input_ids, attention_mask, inputs)
        size = check_labels(labels, self._targets)
        if size != len(input_ids):
            raise ValueError(
                f"labels: expected {len(input_ids)} of them, as there are sequences, got {size}"
            )
        batch = TextBatch(input_ids, attention_mask, labels, inputs)
        self._check(batch)
        plan = self._draw(batch)
        output, self.last_plan = self._call(plan, batch)
        return output, self._target(labels, self.last_plan, output)

    def _check(self, batch: TextBatch) -> None:
        """Raise where this way of mixing cannot take the batch, before anything is drawn."""

    def _call(self, plan: MixPlan, batch: TextBatch) -> tuple[Any, MixPlan]:
        """Call the model with the batch mixed; its output, and the plan that labels follow."""
        raise NotImplementedError

    def _run(self, *, attention_mask: Tensor | None, **inputs: Any) -> Any:
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        return self.model(**inputs)

    def _draw(self, batch: TextBatch) -> MixPlan:
        state, classes = self._state_on(batch.input_ids.device), self._classes(batch.labels)
        size, rules = len(batch.input_ids), self._rules
        plan = self._law.draw(state, self.settings, size, (), classes, rules)[0]
        self._stream.steps += 1
        return plan

    def extra_repr(self) -> str:
        shown = {"alpha": self._law.numbers["mixup_alpha"], "prob": self._law.numbers["prob"]}
        shown |= {**self._rules, "num_classes": self.num_classes, "rank": self.rank}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)


class HookedTextMixup(TextMixup):
    """One that mixes inside the model, by hooks that stay until :meth:`close`."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self._slot = Slot(type(self).__name__)
        self._handles = Handles()

    def _check(self, batch: TextBatch) -> None:
        if self._handles.closed:
            raise RuntimeError(f"{type(self).__name__}: expected it open, got a call after close()")
        if self._slot.plan is not None:
            raise RuntimeError(
                f"{type(self).__name__}: expected one call at a time, got a call inside another; "
                "call the inner model itself"
            )

    def _run_hooked(self, plan: MixPlan, layer: int, missing: str, **inputs: Any) -> Any:
        """What the model returns while a hook mixes ``layer``; raises ``missing`` if none did."""
        self._slot.start(plan, layer)
        try:
            output = self._run(**inputs)
            fired = self._slot.fired
        finally:
            self._slot.stop()
        if not fired:
            raise RuntimeError(f"{type(self).__name__}: expected {missing}")
        return output

    def close(self) -> None:
        """Remove the hooks. Then only the plain model can be called, in eval mode."""
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
