"""The state of a stream of plans: who draws, and how often so far."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import integer
from ..codes import STATE_VERSION

_RANK_LIMIT = 1 << 20
_WORKER_LIMIT = (1 << 12) - 1  # word 0 stands for the main process


def plan_state(
    seed: int,
    rank: int = 0,
    worker: int | None = None,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """The state of a stream of plans, which :func:`draw_plan` draws from and advances.

    Equivalent to::

        stream = (0 if worker is None else worker + 1) << 20 | rank
        torch.tensor([VERSION, seed, stream, 0], device=device)  # the last: steps drawn so far

    Args:
        seed: 64 bits, signed or unsigned; the same on every rank.
        rank: rank of this process, in [0, 2^20). Each rank has its own stream.
        worker: id of the data-loader worker that draws, in [0, 4095); None outside workers.
        device: where the batches live.

    Returns:
        int64 [4]. Saved and restored as it is, it resumes the stream to the bit.

    Raises:
        TypeError, ValueError: an argument that is not as described.

    Notes:
        No two of (seed, rank, worker, step) share a counter of the generator, for 2^48 steps.

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011 (Philox).
    """
    return torch.tensor(state_words(seed, rank, worker), dtype=torch.int64, device=device)


def state_words(seed: int, rank: int = 0, worker: int | None = None) -> list[int]:
    """The words of :func:`plan_state`, checked."""
    seed, rank = integer("seed", seed), integer("rank", rank)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed: expected 64 bits, got {seed}")
    if not 0 <= rank < _RANK_LIMIT:
        raise ValueError(f"rank: expected 0 to {_RANK_LIMIT - 1}, got {rank}")
    lane = 0 if worker is None else integer("worker", worker) + 1
    if worker is not None and not 1 <= lane <= _WORKER_LIMIT:
        raise ValueError(f"worker: expected 0 to {_WORKER_LIMIT - 1} or None, got {worker}")
    signed = seed - 2**64 if seed >= 2**63 else seed
    return [STATE_VERSION, signed, lane << 20 | rank, 0]
