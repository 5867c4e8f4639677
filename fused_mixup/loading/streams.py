"""Copies to a CUDA device beside the consumer's work, one batch ahead of it.

Order, for batch k, all of it without waiting on the host:

1. The consumer's stream waits for the copies of batch k, and the caller does its own work there
   (the fused pass).
2. Batch k+1 is read. Its memory is allocated on the consumer's stream. The side stream waits for
   what the consumer has queued so far: the allocator may hand out memory that this work still
   uses. Then the side stream copies from pinned memory, while the consumer works on batch k.
3. Batch k is handed over.

All memory belongs to the consumer's stream, so it is free for anything there once it is dropped.
Only where the consumer changes its stream from one batch to the next does a batch belong to
another stream than the one it is used on; the allocator is told so (``record_stream``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..batch_mix.tv_tensors import plain, wrap_like
from .moving import as_tensor, is_plain_memory, map_leaves, move


def streams_of(device: torch.device) -> ModuleType | None:
    """What has the streams of ``device``: ``torch.cuda``, or None where copies are plain ones."""
    return torch.cuda if device.type == "cuda" else None


class Started(NamedTuple):
    """A batch whose copies are queued, the stream that owns their memory, and what is copied."""

    batch: Any
    owner: Any
    copies: list[Tensor]


class Copies:
    """A side stream for copies to one device, for the life of a loader."""

    def __init__(self, device: torch.device, streams: Any) -> None:
        self.device, self._streams = device, streams
        self._side = streams.Stream(device=device)

    def start(self, batch: Any) -> Started:
        """Queue the copies of all plain tensors of ``batch``."""
        owner = self._streams.current_stream(self.device)
        pairs: list[tuple[Tensor, Tensor]] = []

        def allocate(value: Any) -> Any:
            value = as_tensor(value)
            if not is_plain_memory(value) or is_there(value, self.device):
                return value
            source = pinned(once(plain(value)))
            copied = torch.empty_like(source, device=self.device, pin_memory=False)
            pairs.append((copied, source))
            return wrap_like(copied.expand(value.shape), value)

        moved = map_leaves(allocate, batch)
        self._side.wait_stream(owner)
        with self._streams.stream(self._side):
            for copied, source in pairs:
                copied.copy_(source, non_blocking=True)
        return Started(moved, owner, [copied for copied, _ in pairs])

    def wait(self, started: Started, drawn: Iterable[Tensor] = ()) -> Any:
        """The batch, for use on the stream that is current now, as is what was drawn for it."""
        consumer = self._streams.current_stream(self.device)
        consumer.wait_stream(self._side)
        if consumer != started.owner:
            consumer.wait_stream(started.owner)  # which drew for this batch, and for the one before
            for made in (*started.copies, *drawn):
                made.record_stream(consumer)
        return map_leaves(lambda value: move(value, self.device), started.batch)

    def drop(self, started: Started) -> None:
        """Let a batch go that nobody waits for: its memory is free after its copies."""
        started.owner.wait_stream(self._side)


def is_there(x: Tensor, device: torch.device) -> bool:
    return x.device == device


def pinned(x: Tensor) -> Tensor:
    """``x`` in memory that the device can read by itself."""
    return x if not x.is_cpu or x.is_pinned() else x.pin_memory()


def once(x: Tensor) -> Tensor:
    """``x`` without what an expanded view repeats, as size 1."""
    for dim, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True)):
        if stride == 0 and size > 1:
            x = x.narrow(dim, 0, 1)
    return x


class _End(NamedTuple):
    """Nothing follows, or the loader's exception."""

    error: Exception | None


def one_ahead(
    loader: Iterable[Any],
    start: Callable[[Any], Any],
    finish: Callable[[Any], Any],
    drop: Callable[[Any], None],
) -> Iterator[Any]:
    """``finish(start(batch))`` of each batch; the next one has been started when one is given.

    An exception of the loader comes where the loader alone would have raised it: after the batches
    before it.
    """
    batches = iter(loader)

    def begin() -> Any:
        try:
            return start(next(batches))
        except StopIteration:
            return _End(None)
        except Exception as error:
            return _End(error)

    ahead = [begin()]  # a list, so that this frame keeps no batch that has been handed out
    try:
        while not isinstance(ahead[0], _End):
            made = [finish(ahead.pop())]
            ahead.append(begin())
            yield made.pop()
        error = ahead.pop().error
        if error is not None:
            raise error
    finally:
        error = None  # whose traceback has this frame
        for started in ahead:
            if not isinstance(started, _End):
                drop(started)
