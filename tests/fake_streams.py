"""Streams of a device that is not there, and a detector of races between what is queued on them.

Ops run on the CPU at once. What is recorded is what a device would know of their order: each stream
counts its ops, and ``wait_stream`` takes over the counts of the other. Two ops on the same memory,
one of them a write, must be ordered by these; and memory that is dropped must be free for the next
op of the stream that it was allocated on, as PyTorch's allocator hands it out again there.
"""

from __future__ import annotations

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RaceError(AssertionError):
    """Two ops whose order is not known use the same memory."""


class Stream:
    def __init__(self, watch: Streams, name: str) -> None:
        self.watch, self.name, self.ops = watch, name, 0
        self.seen: dict[Stream, int] = {}  # of each stream, how many of its ops are done before

    def wait_stream(self, other: Stream) -> None:
        self.watch.look_for_dropped()
        self.watch.log.append(f"{self.name} waits for {other.name}")
        for stream, count in (*other.seen.items(), (other, other.ops)):
            if stream is not self:
                self.seen[stream] = max(self.seen.get(stream, 0), count)

    def is_after(self, stream: Stream, op: int) -> bool:
        return stream is self or self.seen.get(stream, 0) >= op

    def __repr__(self) -> str:
        return self.name


class Memory:
    """One allocation: its owner, and the last read and write of each stream.

    The owner may have got memory back that its op number ``earlier`` still uses.
    """

    def __init__(self, storage, owner: Stream, earlier: int) -> None:
        self.storage, self.owner, self.earlier = storage, owner, earlier
        self.writes: dict[Stream, int] = {}
        self.reads: dict[Stream, int] = {}
        self.recorded: set[Stream] = set()


class Streams(TorchDispatchMode):
    """Stands in for ``torch.cuda``."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.memory: dict[int, Memory] = {}
        self.reused: dict[Stream, int] = {}  # the last op on memory that a stream got back
        self.now = Stream(self, "consumer")
        self.made: list[Stream] = []

    # What torch.cuda has.

    def Stream(self, device=None) -> Stream:
        self.made.append(Stream(self, f"side {len(self.made)}"))
        return self.made[-1]

    def current_stream(self, device=None) -> Stream:
        return self.now

    @contextlib.contextmanager
    def stream(self, stream: Stream):
        before, self.now = self.now, stream
        try:
            yield
        finally:
            self.now = before

    # What the detector sees.

    def record_stream(self, tensor: torch.Tensor, stream: Stream) -> None:
        self.log.append(f"recorded on {stream.name}")
        memory = self.memory.get(tensor.untyped_storage()._cdata)
        if memory is not None:
            memory.recorded.add(stream)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.look_for_dropped()
        stream = self.now
        stream.ops += 1
        written = set()
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written |= {id(t) for t in tree_leaves(value)}
        for t in tree_leaves((args, kwargs)):
            if isinstance(t, torch.Tensor):
                self._use(t, stream, id(t) in written)
        for t in tree_leaves(made):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in self.memory:
                storage = t.untyped_storage()
                self.memory[storage._cdata] = Memory(storage, stream, self.reused.get(stream, 0))
        return made

    def _use(self, t: torch.Tensor, stream: Stream, writes: bool) -> None:
        memory = self.memory.get(t.untyped_storage()._cdata)
        if memory is None:  # memory of the host
            return
        if not stream.is_after(memory.owner, memory.earlier):
            raise RaceError(f"{stream} uses memory that {memory.owner} may still use")
        for other, op in (memory.writes | (memory.reads if writes else {})).items():
            if not stream.is_after(other, op):
                raise RaceError(f"{stream} does not wait for {other}")
        (memory.writes if writes else memory.reads)[stream] = stream.ops

    def look_for_dropped(self) -> None:
        """Find the memory to which nothing refers any more."""
        for key, memory in list(self.memory.items()):
            if torch._C._storage_Use_Count(key) > 1:
                continue
            del self.memory[key]
            for stream, op in (*memory.writes.items(), *memory.reads.items()):
                # The allocator waits for the streams that are recorded, and what they waited for.
                if not any(s.is_after(stream, op) for s in (memory.owner, *memory.recorded)):
                    raise RaceError(f"memory of {memory.owner} is dropped while {stream} uses it")
                if stream is memory.owner:
                    self.reused[stream] = max(self.reused.get(stream, 0), op)
