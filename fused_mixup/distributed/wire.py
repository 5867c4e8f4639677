"""What ranks send each other: a few words from all to all, and bytes to those that need them.

Measured of gloo (PyTorch 2.13): the exchange checks neither counts nor dtypes nor the layout of
what it writes, so that each rank must know both counts, and buffers are flat and contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..tracing import group_timeout


@contextmanager
def _lost_ranks_named() -> Iterator[None]:
    """Say what an error of the group means."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "GlobalMix: expected every rank to answer within the group's timeout, got an error: "
            "one has failed, or did not call GlobalMix; its own log says why, and all ranks have "
            f"to start anew. The group says: {error}"
        ) from error


class Arriving:
    """Bytes on their way, and the buffer that keeps those sent alive."""

    def __init__(self, received: Tensor, sent: Tensor, work: Any, device: torch.device) -> None:
        self._received, self._sent, self._work, self._device = received, sent, work, device

    def wait(self) -> Tensor:
        """uint8, all that was received, by rank."""
        with _lost_ranks_named():
            self._work.wait()
        return self._received.to(self._device)


class Wire:
    """The exchange within one process group; ``sent`` counts the bytes that left this rank."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.sent = 0
        # "cpu:gloo,cuda:nccl", for example. Gloo exchanges nothing on a GPU.
        backends = (part.split(":") for part in dist.get_backend_config(group).split(","))
        self._places = {place for place, name in backends if place == "cpu" or name != "gloo"}
        self._words = torch.device("cpu" if "cpu" in self._places else "cuda")

    def of_ranks(self, ranks: Sequence[int]) -> Wire:
        """A new group of some of these ranks, with the backends and the timeout of this one."""
        every = dist.get_process_group_ranks(self.group or dist.group.WORLD)
        own, backend = [every[r] for r in ranks], dist.get_backend_config(self.group)
        timeout = group_timeout(self.group or dist.group.WORLD, self._words)
        made = dist.new_group(own, timeout, backend, use_local_synchronization=True)
        return Wire(made)

    def gather(self, words: Sequence[int]) -> list[list[int]]:
        """These words of every rank, by rank."""
        own = torch.tensor(words, dtype=torch.int64, device=self._words)
        return self.gather_rows(own[None], [1] * self.size).tolist()

    def gather_rows(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows [sum(counts), …] of every rank, ``own`` [counts[rank], …] among them, by rank.

        One round of messages; an all-gather of gloo takes as many as there are ranks, and more
        bytes.
        """
        own = own.to(self._words)
        every = own.new_empty((sum(counts), *own.shape[1:]))
        data = own.repeat(self.size, *[1] * (own.ndim - 1))
        sizes = list(counts), [len(own)] * self.size
        with _lost_ranks_named():
            dist.all_to_all_single(every, data, *sizes, group=self.group)
        self.sent += own.nbytes * (self.size - 1)
        return every

    def gather_bytes(self, own: bytes) -> list[bytes]:
        """The bytes of every rank, which may differ in number, by rank."""
        counts = [n for (n,) in self.gather([len(own)])]
        rows = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        every = self.gather_rows(rows, counts).cpu().split(counts)
        return [bytes(part.tolist()) for part in every]

    def start(
        self, data: Tensor, send: Sequence[int], room: Tensor, receive: Sequence[int]
    ) -> Arriving:
        """Send ``send[r]`` bytes of ``data`` to rank r, and receive ``receive[r]`` into ``room``.

        Both are flat uint8 on one device, with the bytes of each rank in the order of ranks.
        """
        device = data.device
        if device.type not in self._places:
            data, room = data.to(self._words), room.to(self._words)
        sizes = list(receive), list(send)
        with _lost_ranks_named():
            work = dist.all_to_all_single(room, data, *sizes, group=self.group, async_op=True)
        self.sent += data.nbytes
        return Arriving(room, data, work, device)
