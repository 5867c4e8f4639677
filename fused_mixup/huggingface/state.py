"""A callback that tells a mix the epoch, and saves its state in the Trainer's checkpoints."""

from __future__ import annotations

import warnings
from typing import Any

from ..loops.saved import from_json, to_json

NAME = "MixupState"  # the key in trainer_state.json


def state_callback(mixing: Any, clock: Any) -> Any:
    """The callback of a trainer with this mix.

    The class is made here, around ``mixing``: a Trainer that restores callbacks makes new ones
    from their class and what JSON can hold.
    """
    from transformers import TrainerCallback  # type: ignore[import-not-found,unused-ignore]
    from transformers.trainer_callback import (  # type: ignore[import-not-found,unused-ignore]
        ExportableState,
    )

    class MixupState(TrainerCallback, ExportableState):  # type: ignore[misc,unused-ignore]
        def state(self) -> dict[str, Any]:
            return {"args": {}, "attributes": {"mixing": to_json(mixing.state_dict())}}

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # The Trainer restores callbacks on request alone, so this reads what it has loaded.
            saved = state.stateful_callbacks.get(NAME)
            if saved is None:
                warnings.warn(
                    "fused_mixup: this checkpoint has no state of the mix, as it was saved without "
                    "MixupTrainerMixin; the draws go on from the mix's present state",
                    stacklevel=2,
                )
                state.stateful_callbacks[NAME] = self.state()  # without it, saving would fail
            else:
                mixing.load_state_dict(from_json(saved["attributes"]["mixing"]))
            clock.forget()
            self.epoch = int(state.epoch or 0)  # the one that begins next

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Counted: data without a length leave state.epoch in the middle of an epoch.
            clock.epoch(self.epoch)
            self.epoch += 1

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.step(state.global_step)

    return MixupState()
