"""The stream of plans of a module that mixes: how it is drawn, moved and saved."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from ..arguments import check_choice, integer
from ..codes import DRAWN_PAIRINGS, STATE_WORDS, STREAM_WORD
from ..plan.draw_checks import saved_state_error
from ..plan.plan_state import state_words
from ..tracing import keep_in_place, process_rank
from .worker_streams import WorkerStreams, check_epoch

_EXTRA, _STATE, _SETTINGS = "_extra_state", "state", "settings"


class StreamModule(nn.Module):
    """A module that draws plans by a law and mixes labels by them.

    It holds the state and settings of a stream of plans. Both are plain attributes, no buffers:
    buffers are averaged (EMA, SWA), broadcast from rank 0 (DistributedDataParallel), cast and
    emptied (``to_empty``). A checkpoint holds both, without the rank, as the extra state of the
    module: one tensor, int64 [4 + settings], a copy.
    """

    state: Tensor
    settings: Tensor
    _law: Any  # what is drawn, a Law of epochs.py
    _rules: dict[str, Any]  # for whom, as draw_plan takes it
    _targets: Any  # what labels become, Targets of labels.py

    def _set_up(
        self, targets: Any, law: Any, rules: dict[str, Any], seed: int, rank: int | None
    ) -> None:
        check_choice("pairing", rules["pairing"], DRAWN_PAIRINGS)
        self._targets, self._law, self._rules = targets, law, rules
        self._start(seed, rank, law.settings(0))
        # A trial draw, so that it is refused here rather than in the first step.
        no_labels = torch.empty(0, dtype=torch.int64, device=self.state.device)
        no_maps = torch.empty(0, 1, 1, device=self.state.device)
        classes, state = self._classes(no_labels), self.state.clone()
        law.draw(state, self.settings, 0, (1, 1), classes, rules, no_maps)

    def _classes(self, labels: Any) -> Any:
        """What the law is told of the labels: those by which partners are chosen."""
        return labels if self._rules["pairing"] == "cross_class" else None

    def _start(self, seed: int, rank: int | None, numbers: list[float]) -> None:
        self._given_rank = None if rank is None else integer("rank", rank)
        self._parents_rank: int | None = None  # rank of the process that started the worker
        self._stream_rank = self.rank  # the rank in the state
        # These values stand in for a state on the meta device or a fake one, which has none.
        self._values = state_words(seed, self._stream_rank), numbers
        self._workers = WorkerStreams(numbers)
        self._make(torch.get_default_device())

    def _make(self, device: torch.device) -> None:
        """Make state and settings of ``_values`` on ``device``."""
        words, numbers = self._values
        self._hold(
            torch.tensor(words, dtype=torch.int64, device=device),
            _settings_on(torch.tensor(numbers, dtype=torch.float64, device="cpu"), device),
        )
        if not self._workers.has_memory:
            self._workers = WorkerStreams(numbers)

    def _hold(self, state: Tensor, settings: Tensor) -> None:
        keep_in_place(state)
        keep_in_place(settings)
        self.state, self.settings = state, settings

    # ---------------------------------------------------------------- what it says

    @property
    def num_classes(self) -> Any:
        return self._targets.num_classes

    @property
    def label_smoothing(self) -> float:
        return self._targets.label_smoothing

    @property
    def ignore_index(self) -> int | None:
        return self._targets.ignore_index

    @property
    def dense_targets(self) -> bool:
        return self._targets.dense

    @dense_targets.setter
    def dense_targets(self, dense: bool) -> None:
        self._targets.dense = bool(dense)

    def set_epoch(self, epoch: int) -> None:
        """Apply ``schedule`` and ``off_after_epoch`` for ``epoch`` (from 0), in workers too.

        This makes one small copy to the device; compiled and captured steps read it when they run.
        """
        epoch = check_epoch(epoch)
        self._set_settings(self._law.settings(epoch), epoch)

    def extra_repr(self) -> str:
        shown = {"num_classes": self.num_classes, **self._law.numbers, **self._rules}
        shown |= {"label_smoothing": self.label_smoothing, "ignore_index": self.ignore_index}
        shown["rank"] = self.rank
        return ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)

    # ---------------------------------------------------------------- rank

    @property
    def rank(self) -> int:
        """The rank of the stream: the one given, else torch.distributed's, else ``RANK``, or 0.

        A data loader's worker without a process group has the rank of the process that started it.
        """
        if self._given_rank is not None:
            return self._given_rank
        rank = process_rank()
        if rank is not None:
            return rank
        parents = self._parents_rank
        if parents is not None and not torch.compiler.is_compiling() and get_worker_info():
            return parents
        rank_text = os.environ.get("RANK", "")
        return int(rank_text) if rank_text.isdecimal() else 0

    def _own_state(self) -> Tensor:
        """The state, with the current rank in it."""
        rank = self.rank
        if rank != self._stream_rank:
            self.state[STREAM_WORD].fill_(rank)
            if not torch.compiler.is_compiling():  # a graph that sets it would recompile
                self._stream_rank = rank
        return self.state

    # ---------------------------------------------------------------- moving

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        state, settings = self.state, self.settings
        try:
            device = fn(torch.empty(0, dtype=torch.int64, device=state.device)).device
        except NotImplementedError:  # .to() of a meta tensor, which has nothing to copy
            device = fn(torch.empty(0, dtype=torch.int64, device="cpu")).device
        if not _is_real(state):
            self._make(device)
        elif device != state.device:
            if device.type == "meta":
                self._values = state.tolist(), settings.tolist()
            self._hold(state.to(device), _settings_on(settings, device))
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parents_rank": self.rank}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._hold(self.state, self.settings)

    def _set_settings(self, numbers: list[float], epoch: int | None) -> None:
        self._values = self._values[0], numbers
        if _is_real(self.settings):
            self.settings.copy_(torch.tensor(numbers, dtype=torch.float64, device="cpu"))
        self._workers.share_settings(numbers, epoch)

    # ---------------------------------------------------------------- saving

    def get_extra_state(self) -> Tensor:
        state, settings = self.state, self.settings
        if not _is_real(state):
            words, numbers = self._values
            state = torch.tensor(words, device="cpu")
            settings = torch.tensor(numbers, dtype=torch.float64, device="cpu")
        saved = torch.cat((state, settings.view(torch.int64).to(state.device)))
        saved[STREAM_WORD] = 0  # ranks share one checkpoint
        return saved

    def set_extra_state(self, saved: Any) -> None:
        """Resume from what :meth:`get_extra_state` returned, with this process's own rank."""
        error = self._take(*_unpack(saved), _EXTRA)
        if error:
            raise ValueError(error)

    def _take(self, state: Any, settings: Any, name: str) -> str | None:
        """Load both, or neither and return the reason."""
        for what, t, like in ((_STATE, state, self.state), (_SETTINGS, settings, self.settings)):
            if not isinstance(t, Tensor) or t.dtype != like.dtype or t.shape != like.shape:
                got = f"{t.dtype} {list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
                return f"{name}: expected a {what} {like.dtype} {list(like.shape)}, got {got}"
        error = saved_state_error(name, state) or self._law.settings_error(name, settings)
        if error:
            return error
        words, numbers = state.tolist(), settings.tolist()
        words[STREAM_WORD] = self._stream_rank
        self._values = words, numbers
        if _is_real(self.state):
            self.state.copy_(torch.tensor(words, device="cpu"))
        self._set_settings(numbers, None)
        return None

    def _load_from_state_dict(
        self,
        state_dict: dict[Any, Any],
        prefix: str,
        local: dict[Any, Any],
        strict: bool,
        missing: list[Any],
        *rest: list[Any],
    ) -> None:
        unexpected, errors = rest
        error = None
        if prefix + _EXTRA in state_dict:
            saved = state_dict.pop(prefix + _EXTRA)
            error = self._take(*_unpack(saved), prefix + _EXTRA)
        elif prefix + _STATE in state_dict and prefix + _SETTINGS in state_dict:
            # Earlier versions saved both as buffers.
            state, settings = (state_dict.pop(prefix + key) for key in (_STATE, _SETTINGS))
            error = self._take(state, settings, prefix + _STATE)
        else:
            missing += [prefix + _EXTRA] if strict else []
        if error:
            errors.append(error)
        if strict:
            unexpected += [key for key in state_dict if key.startswith(prefix)]


def _unpack(saved: Any) -> tuple[Any, Any]:
    if not isinstance(saved, Tensor) or saved.dtype != torch.int64 or saved.ndim != 1:
        return saved, None
    if saved.shape[0] <= STATE_WORDS:
        return saved, None
    state, bits = saved[:STATE_WORDS], saved[STATE_WORDS:]
    return state, bits.clone().view(torch.float64)


def _is_real(t: Tensor) -> bool:
    """Whether ``t`` has values: neither on the meta device nor fake."""
    return type(t) is Tensor and not t.is_meta


def _settings_on(settings: Tensor, device: torch.device) -> Tensor:
    """A copy on ``device``, or on the CPU where the device has no float64 (Apple's)."""
    try:
        return settings.to(device, copy=True)
    except (TypeError, RuntimeError) as error:
        if not any(name in str(error) for name in ("float64", "fp64", "double")):
            raise
        return settings
