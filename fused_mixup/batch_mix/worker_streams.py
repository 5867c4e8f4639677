"""The state that a :class:`fused_mixup.BatchMix` draws from inside a data loader's worker."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ..arguments import integer
from ..codes import SEED_WORD, STEP_WORD
from ..plan.plan_state import plan_state

# How the 48 bits of a worker's step are used. With set_epoch: the epoch, then the batches that the
# worker has made in it. Without: the top bit, the loader's base seed for this pass, the batches.
EPOCH_LIMIT = 1 << 15
_EPOCH_SHIFT = 32
_UNNUMBERED = 1 << 47
_PASS_BITS, _PASS_SHIFT = 31, 16
_NO_EPOCH = -1.0


def check_epoch(epoch: int) -> int:
    epoch = integer("epoch", epoch)
    if not 0 <= epoch < EPOCH_LIMIT:
        raise ValueError(f"epoch: expected 0 to {EPOCH_LIMIT - 1}, got {epoch}")
    return epoch


class WorkerStreams:
    """Settings and epoch in memory that all workers share, and in a worker its own stream.

    The stream is a function of seed, rank, worker and epoch alone, where each loader is iterated
    once per epoch, to its end. Then it does not matter whether workers persist, are forked or
    spawned, nor whether training was resumed in between. An epoch that is broken off may leave a
    persistent worker's next epoch with other plans; iterating twice in one epoch repeats plans in
    workers that are started anew.
    """

    def __init__(self, settings: list[float]) -> None:
        self._share(torch.tensor([*settings, _NO_EPOCH], dtype=torch.float64, device="cpu"))
        self._made_for: tuple[int, ...] = ()
        self._state: Tensor | None = None

    def share_settings(self, settings: list[float], epoch: int | None) -> None:
        """Write settings and epoch where workers see them, also those that are already running."""
        if not self.has_memory:
            return
        self._shared[:-1] = torch.tensor(settings, dtype=torch.float64, device="cpu")
        if epoch is not None:
            self._shared[-1] = epoch

    def worker_state(self, state: Tensor, rank: int) -> tuple[Tensor, Tensor] | None:
        """State and settings for a batch made in this worker; None outside workers."""
        worker = get_worker_info()
        if worker is None:
            return None
        if state.device.type != "cpu":
            raise ValueError(
                f"BatchMix: expected it on the CPU in a data loader's worker, got {state.device}; "
                "mix in the training process, or keep a BatchMix on the CPU for the loader"
            )
        epoch = int(self._shared[-1])
        seed = state.tolist()[SEED_WORD]
        made_for = (seed, rank, worker.id, worker.seed, epoch)
        if self._state is None or made_for != self._made_for:
            self._state = plan_state(seed, rank, worker.id, device="cpu")
            self._made_for = made_for
            if epoch == _NO_EPOCH:  # each pass has its own base seed, from PyTorch's generator
                base = (worker.seed - worker.id) % (1 << _PASS_BITS)
                self._state[STEP_WORD] = _UNNUMBERED | base << _PASS_SHIFT
            else:
                self._state[STEP_WORD] = epoch << _EPOCH_SHIFT
        return self._state, self._shared[:-1]

    def _share(self, shared: Tensor) -> None:
        # After copy.deepcopy or plain pickling the memory is private again; torch.multiprocessing
        # sends a worker a handle to the same memory.
        self._shared = shared
        if self.has_memory and not shared.is_shared():
            shared.share_memory_()

    @property
    def has_memory(self) -> bool:
        """Whether there is memory to share: not where this was made under fake tensors."""
        return type(self._shared) is Tensor

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share(state["_shared"])
