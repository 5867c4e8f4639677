"""A mix-in for Hugging Face's Trainer: :class:`MixupTrainerMixin`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import kind, names
from ..loops.clock import Clock
from ..losses.functional import soft_target_binary_cross_entropy, soft_target_cross_entropy
from ..manifold.layers import inner_model
from ..saliency.modes import find_logits
from ..target.heads import leaves
from ..target.mixed_target import MixedTarget
from .state import state_callback


class MixupTrainerMixin:
    """Mix the batches of a ``transformers.Trainer``; model, collator and evaluation stay.

    In training the loss is that of ``model(**mixed inputs)`` and the mixed labels; ``evaluate`` and
    ``predict`` are the Trainer's own::

        class MixupTrainer(MixupTrainerMixin, Trainer):
            pass

        mixing = BatchMix(num_classes=10, mixup_alpha=0.8, cutmix_alpha=1.0)
        trainer = MixupTrainer(model, args, train_dataset=…, eval_dataset=…, mixing=mixing)
        trainer.train()

    Equivalent to (in a loop of one's own)::

        mixed = mixing(inputs)
        target = mixed.pop("labels")
        loss = soft_target_cross_entropy(model(**mixed).logits, target)
        (loss / gradient_accumulation_steps).backward()

    Args:
        mixing: a :class:`fused_mixup.BatchMix`, which mixes what the model takes (images,
            spectrograms), or a module that calls the model itself and gives its outputs and the
            target: ``fused_mixup.manifold.ManifoldMixup`` of the model, or one of
            ``fused_mixup.text``. Its ``set_epoch`` is called with the epoch, from 0:
            ``schedule=`` gives α or probabilities by epoch, ``off_after_epoch=`` the epochs at the
            end without mixing.
        mixing_loss: a function of (outputs, target) that gives the mean loss of a micro-batch. By
            default :func:`soft_target_cross_entropy` for class indices; for float labels the rule
            of Transformers' heads: by ``config.problem_type``, else squared error for one logit,
            and binary cross-entropy for more.
        mixing_interval: what ``set_epoch`` is called with: ``"epoch"``, or ``"step"`` for optimizer
            steps (``state.global_step``), which ``schedule`` and ``off_after_epoch`` then count.
        others: those of the Trainer.

    Raises:
        TypeError: no module for ``mixing``.
        ValueError: another ``mixing_interval``; ``label_smoothing_factor`` or ``compute_loss_func``
            of the Trainer, which know no mixed labels; in training, a batch without labels.

    Notes:
        The loss is a mean over the micro-batch, which the Trainer divides by the number of
        micro-batches (``loss_is_scaled_for_ga = False``): a model's own loss with ``**kwargs`` is
        not divided, and its gradients are as many times too large.

        Labels are those under the Trainer's ``label_names``, which is ``["labels"]`` for most
        models; without them ``evaluate()`` returns no ``eval_loss``.

        The state of ``mixing`` is a part of ``trainer_state.json``: a training that is resumed with
        ``resume_from_checkpoint`` draws what the uninterrupted one draws, also with
        ``restore_callback_states_from_checkpoint``.

        Override :meth:`mixed_outputs` for other ways to mix.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    loss_is_scaled_for_ga: bool | None = False  # a mean of a micro-batch: the Trainer divides it

    # Of the Trainer, which comes after this class.
    accelerator: Any
    args: Any
    model: Any
    label_names: list[str]
    label_smoother: Any
    compute_loss_func: Any
    add_callback: Callable[[Any], None]

    def __init__(
        self,
        *args: Any,
        mixing: nn.Module,
        mixing_loss: Callable[[Any, Any], Tensor] | None = None,
        mixing_interval: str = "epoch",
        **kwargs: Any,
    ) -> None:
        clock = Clock("mixing", mixing, mixing_interval, "mixing_interval")
        if mixing_loss is not None and not callable(mixing_loss):
            raise TypeError(
                f"mixing_loss: expected a function of (outputs, target), got {kind(mixing_loss)}"
            )
        super().__init__(*args, **kwargs)
        if self.label_smoother is not None:
            raise ValueError(
                "label_smoothing_factor: expected 0, as it knows no mixed labels, got "
                f"{self.args.label_smoothing_factor}; use label_smoothing= of "
                f"{type(mixing).__name__}"
            )
        if self.compute_loss_func is not None:
            raise ValueError(
                "compute_loss_func: expected None, as it knows no mixed labels, got "
                f"{kind(self.compute_loss_func)}; use mixing_loss=, a function of (outputs, target)"
            )
        self.mixing, self.mixing_loss = mixing.to(self.args.device), mixing_loss
        self.add_callback(state_callback(mixing, clock))

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """In training the loss of the mixed batch, else the Trainer's own."""
        if not model.training:  # evaluation, which the same collator serves
            trainer: Any = super()
            return trainer.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = self._labels(inputs)
        indices = not any(y.is_floating_point() for y in leaves(labels))
        outputs, target = self.mixed_outputs(model, dict(inputs))
        if self.mixing_loss is not None:
            loss = self.mixing_loss(outputs, target)
        else:
            problem = getattr(getattr(self.model, "config", None), "problem_type", None)
            loss = mixed_loss(outputs, target, indices, problem)
        return (loss, outputs) if return_outputs else loss

    def mixed_outputs(self, model: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """What the model returns for a mixed batch, and its target.

        Args:
            model: the model, as the Trainer has wrapped it.
            inputs: a batch with its labels; a dict of its own, whose tensors are the batch's.

        Returns:
            The outputs, and labels mixed as the values were, for the loss.
        """
        if getattr(self.mixing, "model", None) is None:  # it mixes what the model takes
            inputs = self.mixing(inputs)
            target = self._labels(inputs, take=True)
            return model(**inputs), target
        self._follow_wrapper(model)
        labels = self._labels(inputs, take=True)
        main = getattr(self.model, "main_input_name", "")
        x = inputs.get(main)
        if isinstance(x, Tensor) and x.is_floating_point():
            return self.mixing(inputs.pop(main), labels=labels, **inputs)
        return self.mixing(labels=labels, **inputs)  # ids go by their names

    def _follow_wrapper(self, model: Any) -> None:
        """Let a mix call the model as the Trainer has wrapped it: DDP counts on its own call."""
        mixing: Any = self.mixing
        own = mixing.model
        if own is model:
            return
        models = (inner_model(self.accelerator.unwrap_model(m))[0] for m in (own, model))
        if next(models) is not next(models):
            raise ValueError(
                f"mixing: expected a {type(mixing).__name__} of the Trainer's model, got one of "
                f"another {kind(own)}; make it with trainer.model"
            )
        mixing.call_through(model)

    def _labels(self, inputs: Mapping[str, Any], take: bool = False) -> Any:
        """The labels of a batch, several heads as a dict; removed from it with ``take``."""
        found = {name: inputs[name] for name in self.label_names if inputs.get(name) is not None}
        if not found:
            raise ValueError(
                f"inputs: expected labels under {names(self.label_names)} (label_names of "
                f"TrainingArguments), got {names(inputs)}"
            )
        if take:
            for name in self.label_names:
                inputs.pop(name, None)  # type: ignore[attr-defined]
        return next(iter(found.values())) if len(found) == 1 else found


def mixed_loss(outputs: Any, target: Any, indices: bool, problem: str | None) -> Tensor:
    """The mean loss of a mixed batch.

    Args:
        outputs: what the model returned.
        target: a :class:`MixedTarget`, or floats [B], [B, K].
        indices: the labels were class indices before they were mixed.
        problem: the model's ``config.problem_type``.
    """
    logits = find_logits(outputs)
    if logits is None:
        raise TypeError(
            f"outputs: expected a model that returns logits, got {kind(outputs)} without; give "
            "mixing_loss=, a function of (outputs, target)"
        )
    if isinstance(target, MixedTarget):
        return soft_target_cross_entropy(logits, target)
    if not isinstance(target, Tensor):
        raise TypeError(
            f"labels: expected one tensor of them, got {kind(target)}; give mixing_loss=, a "
            "function of (outputs, target), for a model of several heads"
        )
    if indices or problem == "single_label_classification":
        return soft_target_cross_entropy(logits, target)
    if problem == "regression" or (problem is None and logits.shape[1:].numel() == 1):
        return F.mse_loss(logits.reshape(target.shape), target.to(logits.dtype))
    return soft_target_binary_cross_entropy(logits, target)
