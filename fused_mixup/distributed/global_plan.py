"""One rank's part of the plan of a batch that lies on several ranks: :class:`GlobalPlan`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import integer, integer_tuple, kind
from ..batch_mix.state import StreamModule
from ..codes import DRAWN_PAIRINGS, STEP_WORD, STREAM_WORD
from ..plan.draw_checks import check_drawn_labels
from ..plan.mix_plan import MixPlan
from .pairing import pairs_of
from .rows import BOX, WHOLE, regions


class Traffic(NamedTuple):
    """What one rank sends in a step, and what it would send to gather whole batches."""

    samples: int  # that are sent, whole or as boxes
    ranks: int  # that they are sent to
    sent: int  # bytes
    all_gather: int  # bytes


class GlobalPlan:
    """How the samples of one rank are mixed with partners on any rank.

    Attributes:
        rank, sizes: this rank, and the number of samples of each rank that it may mix with.
        partner: int64 [n], for each sample of this rank the index of its partner in the whole
            batch, where the samples of rank 0 come first.
        taker: int64 [n], the sample whose partner it is.
        rows: a :class:`MixPlan` of n samples with weights, blends, boxes and masks of this rank's
            samples. Its own pairing is "self"; ``partner`` has the partners.
        received: int64 [R], the samples of this rank whose partner lies elsewhere, by its rank.
        sent: int64 [S], those that other ranks take, by that rank.
    """

    rows: MixPlan
    taken: MixPlan  # the rows of the takers
    places: Tensor | None  # [n, 4], of resized partners
    taken_places: Tensor | None  # [n, 4]
    blended: MixPlan | None = None  # the rows by which samples are sent, where they are others

    def __init__(
        self,
        mix: StreamModule,
        state: Tensor,  # [4], on the CPU
        sizes: Sequence[int],
        rank: int,
        spatial: Sequence[int],
        labels: Tensor | None = None,  # [sum(sizes)], for "cross_class"
    ) -> None:
        self.rank, self.sizes = rank, tuple(sizes)
        self.start, n = sum(self.sizes[:rank]), self.sizes[rank]
        self._mix, self._state, self._spatial = mix, state, tuple(spatial)
        rules = mix._rules
        by = rules["pairing"], rules["per"], self.start, self.start + n, sum(self.sizes)
        self.partner, self.taker = pairs_of(*by, state, labels)
        own = torch.arange(self.start, self.start + n)
        self.itself = self.partner == own
        self.rows, self.places = self._draw(own, self.partner)
        self.taken, self.taken_places = self._draw(self.taker, own)

        ends = torch.tensor(self.sizes).cumsum(0)
        source, target = (
            torch.searchsorted(ends, t, right=True) for t in (self.partner, self.taker)
        )
        self.here = source == rank
        # Both ends order what one sends the other by the sample that takes it.
        order = source.argsort(stable=True)
        self.received = order[~self.here[order]]
        order = self.taker.argsort()
        self.sent = order[target[order] != rank]
        self._source, self._target = source[self.received], target[self.sent]

    def _draw(
        self, samples: Tensor, partner: Tensor, maps: tuple[Tensor, Tensor] | None = None
    ) -> tuple[MixPlan, Tensor | None]:
        mix = self._mix
        rest = self._spatial, self._state.clone(), mix.settings.cpu(), mix._rules
        return mix._law.draw_rows(samples, partner, *rest, maps)

    def draw_by_maps(self, own: Tensor, other: Tensor) -> None:
        """Draw the rows of a variant of maps anew, by those of the samples and their partners.

        Senders do not know them: they send whole samples, by the rows of MixUp.
        """
        self.blended = self.rows
        samples = torch.arange(self.start, self.start + len(own))
        self.rows, self.places = self._draw(samples, self.partner, (own, other))

    def common(self) -> tuple[MixPlan, Tensor | None]:
        """The one row that all samples share where a batch does, as a plan of one sample."""
        return self._draw(torch.zeros(1).long(), torch.ones(1).long())

    def send_where(self, flags: Tensor) -> list[Tensor]:
        """By rank, the samples that it takes and that are flagged, bool [n]."""
        return _by_rank(self.sent, self._target, flags, len(self.sizes))

    def rows_where(self, flags: Tensor) -> list[Tensor]:
        """By rank, the samples whose partners it has and that are flagged, bool [n]."""
        return _by_rank(self.received, self._source, flags, len(self.sizes))

    @property
    def send_by_rank(self) -> list[Tensor]:
        return self.send_where(torch.ones(len(self.partner), dtype=torch.bool))

    @property
    def rows_by_rank(self) -> list[Tensor]:
        return self.rows_where(torch.ones(len(self.partner), dtype=torch.bool))

    def traffic(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Traffic:
        """What this rank sends of an entry whose samples have this ``shape`` and ``dtype``.

        Equivalent to::

            sum of the bytes of each sample that is blended elsewhere, and of each box cut elsewhere

        Args:
            shape: one sample's, e.g. ``(3, 224, 224)``; boxes lie in its last dims.
            dtype: of the entry.

        Returns:
            Samples, ranks, and bytes beside those of an all-gather; labels (8 bytes a sample) and
            some 64 bytes of sizes and checks come on top of both.

        Raises:
            TypeError, ValueError: a shape that is no sequence of ints, or too short for the boxes.
        """
        shape = integer_tuple("shape", shape)
        d = self.taken.spatial_dims
        if len(shape) < d:
            raise ValueError(f"shape: expected {d} dims or more, as boxes have, got {list(shape)}")
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype: expected a torch.dtype, got {kind(dtype)}")
        plan = self.taken
        if d and self._spatial != shape[len(shape) - d :]:
            plan = plan.resize(self._spatial, shape[len(shape) - d :])
        reads = regions(plan, self.taken_places)[self.sent]
        box = plan.box[self.sent]
        area = (box[:, d:] - box[:, :d]).long().prod(1)
        size = math.prod(shape)
        channels = math.prod(shape[: len(shape) - d])
        numbers = torch.where(reads == WHOLE, size, torch.where(reads == BOX, area * channels, 0))
        ranks = len(self._target[reads != 0].unique())
        gathered = (len(self.sizes) - 1) * self.sizes[self.rank] * size * dtype.itemsize
        sent = int(numbers.sum()) * dtype.itemsize
        return Traffic(int((reads != 0).sum()), ranks, sent, gathered)


def _by_rank(index: Tensor, ranks: Tensor, flags: Tensor, size: int) -> list[Tensor]:
    chosen = flags[index]
    counts = torch.bincount(ranks[chosen], minlength=size)
    return list(index[chosen].split(counts.tolist()))


def block_of(rank: int, size: int, neighbours: int | None) -> range:
    """The ranks that ``rank`` mixes with: all, or a block of ``neighbours`` that follow each other.

    The last block has fewer where they do not divide ``size``.
    """
    if neighbours is None:
        return range(size)
    if integer("neighbours", neighbours) < 1:
        raise ValueError(f"neighbours: expected 1 rank or more, got {neighbours}")
    first = rank // neighbours * neighbours
    return range(first, min(first + neighbours, size))


def stream_of(mix: StreamModule, block: int, step: int | None = None) -> Tensor:
    """The state from which a block of ranks draws, on the CPU: that of the rank ``block``."""
    state = mix.state.detach().cpu().clone()
    state[STREAM_WORD] = block
    if step is not None:
        state[STEP_WORD] = step
    return state


def global_plan(
    mix: StreamModule,
    sizes: Sequence[int],
    rank: int,
    spatial: Sequence[int] = (),
    *,
    labels: Tensor | None = None,  # [sum(sizes)]
    neighbours: int | None = None,
    step: int | None = None,
) -> GlobalPlan:
    """The part of one rank in the plan of a batch over several ranks; nothing is sent for it.

    :class:`GlobalMix` mixes by it. Alone it says before a training what would be sent, for any
    number of ranks: :meth:`GlobalPlan.traffic`.

    Equivalent to (the rows of one rank)::

        plan = draw_plan(sum(sizes), spatial, state=plan_state(seed), …)  # as mix, of rank 0
        start = sum(sizes[:rank])
        plan.partner[start : start + sizes[rank]], plan.weight[…], plan.blend[…], plan.box[…]

    Args:
        mix: the :class:`BatchMix` whose seed, step, settings and rules count. It takes no step.
        sizes: the number of samples of each rank.
        rank: whose part.
        spatial: the sizes that boxes live in.
        labels: int64 of the samples of all ranks, for ``pairing="cross_class"``.
        neighbours: partners come from a block of so many ranks; None for all. A rank that is alone
            in its block has the stream of its own :class:`BatchMix`.
        step: of the stream; by default the next one of ``mix``.

    Returns:
        A :class:`GlobalPlan`; of a variant of maps the rows of MixUp, by which samples are sent.
        Its memory grows with this rank's samples (and one number for each rank); pairings that
        sort take 4 bytes for each sample of the block while they do.

    Raises:
        TypeError, ValueError: arguments that are not as described, more than 65,536 samples in a
            block for a pairing that sorts.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """
    if not isinstance(mix, StreamModule):
        raise TypeError(f"mix: expected a BatchMix, got {kind(mix)}")
    sizes = integer_tuple("sizes", sizes)
    if not 0 <= integer("rank", rank) < len(sizes) or min(sizes) < 0:
        raise ValueError(f"rank: expected one of {len(sizes)} sizes of 0 and more, got {rank}")
    block = block_of(rank, len(sizes), neighbours)
    number = 0 if neighbours is None else rank // neighbours
    if len(block) == 1:
        number = rank  # alone: the stream of its BatchMix
    if step is not None and integer("step", step) < 0:
        raise ValueError(f"step: expected 0 or more, got {step}")
    state, own = stream_of(mix, number, step), sizes[block.start : block.stop]
    rule = DRAWN_PAIRINGS[mix._rules["pairing"]]
    labels = check_drawn_labels(labels, rule, sum(sizes), state)
    if labels is not None:
        start = sum(sizes[: block.start])
        labels = labels[start : start + sum(own)]
    spatial = integer_tuple("spatial", spatial)
    return GlobalPlan(mix, state, own, rank - block.start, spatial, labels)
