"""A callback of Lightning that mixes the batches of training: :class:`MixupCallback`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, MutableMapping
from typing import Any

from torch import nn

from ..arguments import kind
from ..loops.clock import Clock
from ..manifold.model_mixup import ModelMixup

try:
    from lightning.pytorch import Callback  # type: ignore[import-not-found,unused-ignore]
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "lightning":
        raise
    raise ModuleNotFoundError(
        "fused_mixup.lightning.MixupCallback needs Lightning; pip install lightning",
        name=error.name,
    ) from None


class MixupCallback(Callback):  # type: ignore[misc,unused-ignore]
    """Mix the batches of a Lightning training; the module stays as it is.

    Each training batch becomes ``mix(batch)`` before ``training_step`` sees it. Validation, testing
    and prediction get their batches as the data set gives them::

        mix = BatchMix(num_classes=10, mixup_alpha=0.8, cutmix_alpha=1.0, dense_targets=True)
        trainer = lightning.Trainer(max_epochs=90, callbacks=[MixupCallback(mix)])
        trainer.fit(model, train_loader, val_loader)  # F.cross_entropy(self(x), y) as before

    Equivalent to (in a loop of one's own)::

        for epoch in range(epochs):
            mix.set_epoch(epoch)
            for batch in train_loader:
                loss = training_step(mix(batch))

    Args:
        mix: a :class:`fused_mixup.BatchMix`, or another module that takes a batch and returns one
            of the same structure. With ``dense_targets=True`` labels become floats [B, K], which
            ``F.cross_entropy`` takes in place of class indices; without it a
            :class:`~fused_mixup.MixedTarget`, for the losses of this package. Its ``set_epoch``,
            where it has one, is called with the epoch, from 0: ``schedule=`` gives α or
            probabilities by epoch, ``off_after_epoch=`` the epochs at the end without mixing.
        interval: what ``set_epoch`` is called with: ``"epoch"``, or ``"step"`` for optimizer steps
            (``trainer.global_step``), which ``schedule`` and ``off_after_epoch`` then count.

    Shapes:
        batch: a list, a mapping that can be written (a dict), or a dataclass that is not frozen,
        with the entries that ``mix`` takes, nested too. Lightning ignores what a callback returns,
        so the entries are replaced where they stand; a tuple, or a tensor alone, is refused.

    Raises:
        ModuleNotFoundError: Lightning is missing.
        TypeError: no module for ``mix``, or one that calls the model; in training, a batch that
            cannot be written.
        ValueError: another ``interval``; ``"step"`` for a mix without ``set_epoch``.

    Notes:
        The state of ``mix`` is a part of Lightning's checkpoints: a training that is interrupted
        and resumed draws what the uninterrupted one draws, in the middle of an epoch as well if the
        data loader resumes there. A ``mix`` that is also a part of the module is saved twice, which
        does no harm.

        Other callbacks see the mixed batch too, those before this one in ``on_train_batch_end``.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def __init__(self, mix: nn.Module, interval: str = "epoch") -> None:
        super().__init__()
        self._clock = Clock("mix", mix, interval)
        if isinstance(mix, ModelMixup):
            raise TypeError(
                f"mix: expected one that returns a batch, got a {type(mix).__name__}, which calls "
                "the model itself; call it in training_step"
            )
        self.mix = mix

    @property
    def interval(self) -> str:
        return self._clock.interval

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.mix.to(pl_module.device)
        # Lightning does not call on_train_epoch_start where it resumes within an epoch.
        self._clock.epoch(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._clock.epoch(trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        put = _writer(batch)
        self._clock.step(trainer.global_step)
        put(self.mix(batch))

    def state_dict(self) -> dict[str, Any]:
        return {"mix": self.mix.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mix.load_state_dict(state_dict["mix"])
        self._clock.forget()


def _writer(batch: Any) -> Callable[[Any], None]:
    """A function that puts the entries of a mixed batch in the place of those of ``batch``."""
    if isinstance(batch, list):
        return lambda mixed: batch.__setitem__(slice(None), mixed)
    if isinstance(batch, MutableMapping):
        return batch.update
    if _is_writable_dataclass(batch):
        return lambda mixed: vars(batch).update(
            {field.name: getattr(mixed, field.name) for field in dataclasses.fields(batch)}
        )
    raise TypeError(
        f"batch: expected a list, a dict or a dataclass that is not frozen, whose entries can be "
        f"replaced, got {kind(batch)}; return a list from collate_fn, as default_collate does, or "
        "call BatchMix in training_step"
    )


def _is_writable_dataclass(batch: Any) -> bool:
    parameters = getattr(type(batch), "__dataclass_params__", None)
    return parameters is not None and not parameters.frozen and hasattr(batch, "__dict__")
