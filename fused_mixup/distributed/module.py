"""MixUp and CutMix with partners on other ranks: :class:`GlobalMix`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..arguments import kind
from ..batch_mix.map_law import check_maps, check_needed
from ..batch_mix.module import BatchMix
from ..batch_mix.places import Place
from ..batch_mix.structure import replace
from ..codes import SEED_WORD, STEP_WORD
from ..plan.mix_plan import MixPlan
from ..tracing import checkpoint_regions, in_backward
from .agree import Form, agreed_forms, check_settings, digest, settings_of
from .global_plan import GlobalPlan, block_of, stream_of
from .parts import Parcel, Rows
from .step import GlobalStep, Sending, reads_of
from .values import Reads
from .wire import Wire

# The first word of a rank: samples, whether it failed, and the layouts of so many entries.
_HALF, _FAILED, _LAYOUTS = (1 << 32) - 1, 1 << 32, 29


class GlobalMix(nn.Module):
    r"""Mix each sample with a partner of any rank, and send only what is needed for it.

    ``x_i ← λ x_i + (1-λ) x_j``, or a box of x_j, with i and j in the batch of all ranks. Every rank
    draws the same plan from seed and step, so that nothing is sent for it. A sample travels where
    its partner lies elsewhere: whole for a blend, its box alone for CutMix, in the dtype of the
    batch, with its labels. The rest is mixed meanwhile::

        mix = GlobalMix(BatchMix(num_classes=1000, cutmix_alpha=1.0))  # on every rank
        for epoch in range(epochs):
            mix.set_epoch(epoch)
            for x, labels in loader:
                x, target = mix(x, labels)
                loss = soft_target_cross_entropy(ddp_model(x), target)

    Equivalent to (bit for bit)::

        batch = concatenate the batches of all ranks, rank 0 first
        mixed = BatchMix(…, rank=0)(batch)  # in one process
        return the samples of this rank

    Args:
        batch_mix: what is drawn and mixed, and how. It is moved to the CPU, where the plan is
            drawn; batches may lie on any device.
        group: the ranks that mix; None for all. An error on one reaches the others within the
            timeout of the group.
        overlap: mix what is here while the rest travels.
        neighbours: partners come from a block of so many ranks that follow each other, those of one
            node, say; each block has a stream of its own. A rank that is alone in its block, as
            all are with 1, sends nothing and mixes as its ``BatchMix`` does.

    Called as :class:`BatchMix` is, by every rank of the group at every step; a rank may have any
    number of samples, none as well (of lists one, and ``torch.zeros(0, 4)`` in place of None where
    it has no boxes at all). In eval mode nothing is sent.

    Attributes:
        bytes_sent, bytes_of_all_gather: of all steps so far, what this rank has sent, and what it
            would have sent to give its batches to all.

    Shapes:
        as :class:`BatchMix`; all but the first dim are the same on every rank.

    Returns:
        As :class:`BatchMix`, for the samples of this rank.

    Raises:
        ValueError: when it is made, on every rank: a setting that differs, by its name. At a step,
            on every rank: other entries on one rank than on the first, or in another order, or
            another step or epoch.
        RuntimeError: a batch that another rank refused (it raises why; the next step works); a
            rank that has failed, or sends nothing within the timeout of the group; a step after
            one that was broken off while it sent, as memory ran out, say: start all ranks anew.
        TypeError, ValueError, IndexError: as :class:`BatchMix`, before anything is sent; entries
            that require grad, as no gradient comes back from another rank.

    Notes:
        Sizes are exchanged once a step, in 24 bytes for each rank. ``shuffle``, ``derangement`` and
        ``cross_class`` sort, up to 65,536 samples in a block; ``cross_class`` exchanges the labels
        of the block first. On a GPU that NCCL alone serves, sizes wait for the device. Gloo takes
        batches from the CPU: those on a GPU pass through it. Not for compiled code: call it
        before the compiled model.

        ``state_dict`` is that of ``batch_mix``: load one checkpoint on every rank.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def __init__(
        self,
        batch_mix: BatchMix,
        group: dist.ProcessGroup | None = None,
        overlap: bool = True,
        *,
        neighbours: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(batch_mix, BatchMix):
            raise TypeError(f"batch_mix: expected a BatchMix, got {kind(batch_mix)}")
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "GlobalMix: expected a process group, got none; call "
                "torch.distributed.init_process_group first, or use BatchMix"
            )
        if dist.get_rank(group) < 0:
            raise ValueError("group: expected one that this rank belongs to, got another")
        everyone = Wire(group)
        self.batch_mix, self.overlap = batch_mix.to("cpu"), bool(overlap)
        check_settings(everyone, settings_of(batch_mix, neighbours))
        block = block_of(everyone.rank, everyone.size, neighbours)
        self._block = 0 if neighbours is None else everyone.rank // neighbours
        self._wire = everyone.of_ranks(block) if len(block) < everyone.size else everyone
        self._unfinished = False  # whether a step has begun to send, and not ended
        self.bytes_of_all_gather = 0

    @property
    def bytes_sent(self) -> int:
        """The bytes that this rank has sent so far."""
        return self._wire.sent

    def set_epoch(self, epoch: int) -> None:
        """Apply the schedule of ``batch_mix``; call it on every rank."""
        self.batch_mix.set_epoch(epoch)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GlobalMix:
        return self  # plans are drawn on the CPU, wherever the model lives

    def __reduce__(self) -> Any:
        raise TypeError("GlobalMix: expected no pickling, as a process group cannot be; make anew")

    def __deepcopy__(self, memo: Any) -> GlobalMix:
        return self  # it is one with those of the other ranks: copies of a model share it

    # ---------------------------------------------------------------- a step

    def forward(self, *inputs: Any, maps: Tensor | None = None) -> Any:
        """The batch mixed across ranks; see the class."""
        return self.with_plans(*inputs, maps=maps)[0]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def with_plans(
        self, *inputs: Any, maps: Tensor | None = None
    ) -> tuple[Any, dict[str, MixPlan]]:
        """The mixed batch, and the plan of each entry as :meth:`BatchMix.with_plans` gives it.

        The plans hold weights, blends, boxes and masks of this rank's samples; their pairing is
        "self", as partners may lie elsewhere.
        """
        if checkpoint_regions() or in_backward():
            raise RuntimeError(
                "GlobalMix: expected a call outside of torch.utils.checkpoint, whose recompute "
                "would exchange samples again, got one inside; mix before the region"
            )
        if not self.training or self._wire.size == 1:
            return self.batch_mix.with_plans(*inputs, maps=maps)
        if self._unfinished:
            raise RuntimeError(
                "GlobalMix: expected the last step to have ended, got one that an error has "
                "interrupted while it sent, so that other ranks wait; all have to start anew"
            )
        batch = inputs[0] if len(inputs) == 1 else inputs
        alone = isinstance(batch, Tensor)
        if alone:
            batch = (batch,)
        try:
            step, forms = self._checked(batch, maps)
        except Exception:
            self._wire.gather([_FAILED, 0, 0])
            raise
        sizes, last = self._exchange_sizes(step, forms)
        plan = self._plan(step, sizes)
        self._unfinished = True
        self._draw_by_maps(plan, step)
        mix, sending = self.batch_mix, Sending(self._wire, self.overlap, last)
        news, plans = step.mix_across(plan, sending, mix.inplace, self._reads(plan, step))
        self._unfinished = False
        self.bytes_of_all_gather += step.bytes() * (self._wire.size - 1)
        mix.state[STEP_WORD] += 1
        made = replace(batch, news)
        return made[0] if alone else made, plans

    def _checked(self, batch: Any, maps: Tensor | None) -> tuple[GlobalStep, list[Form]]:
        """The step of this rank and the forms of its entries; raises for what BatchMix refuses."""
        mix = self.batch_mix
        check_needed(maps, mix._law.map_variant, True)
        step = mix._step(batch, GlobalStep)
        step.batch, step.guides = batch, None
        device = step.device()
        mix._warned = step.check(mix.state.new_empty(0, device=device), mix.inplace, mix._warned)
        step.check_travel()
        if maps is not None:
            step.guides = check_maps(maps, step.size, step.scene.sizes, device)
        if mix._rules["pairing"] == "cross_class":
            step.pairing_labels()
        return step, step.describe()

    def _exchange_sizes(self, step: GlobalStep, forms: list[Form]) -> tuple[list[int], list[bool]]:
        """The number of samples of each rank, once all have said that they are ready.

        Also for each entry that is mixed whether its channels lie last on every rank.
        """
        mix, last = self.batch_mix, step.channels_last()[:_LAYOUTS]
        settings = repr((int(mix.state[SEED_WORD]), mix.settings.tolist()))
        layout = sum(is_last << k for k, is_last in enumerate(last))
        checks = digest(repr(forms)) & _HALF | (digest(settings) >> 32) << 32
        words = [step.size | layout << 33, int(mix.state[STEP_WORD]), checks]
        first, steps, digests = map(list, zip(*self._wire.gather(words), strict=True))
        failed = next((r for r, word in enumerate(first) if word & _FAILED), None)
        if failed is not None:
            raise RuntimeError(
                f"GlobalMix: expected a batch of every rank, got none of rank {failed}, which "
                "refused its own and raises why"
            )
        alike = {"step": steps, "seed or settings": [d >> 32 for d in digests]}
        for name, values in alike.items():
            other = next((r for r, v in enumerate(values) if v != values[0]), None)
            if other is not None:
                raise ValueError(
                    f"{name}: expected the same on every rank, got another on rank {other} than on "
                    "rank 0; call set_epoch and load checkpoints on every rank alike"
                )
        step.take_forms(agreed_forms(self._wire, forms, [d & _HALF for d in digests]))
        lasts = [all(word >> 33 + k & 1 for word in first) for k in range(len(last))]
        return [word & _HALF for word in first], lasts + [False] * len(step.values[_LAYOUTS:])

    def _plan(self, step: GlobalStep, sizes: list[int]) -> GlobalPlan:
        mix, wire = self.batch_mix, self._wire
        labels = None
        if mix._rules["pairing"] == "cross_class":
            labels = wire.gather_rows(step.pairing_labels().cpu(), sizes)
        state = stream_of(mix, self._block)
        return GlobalPlan(mix, state, sizes, wire.rank, step.scene.sizes, labels)

    def _draw_by_maps(self, plan: GlobalPlan, step: GlobalStep) -> None:
        """Draw the rows of a variant of maps anew, by those of samples and partners."""
        own = step.guides
        if own is None:
            return
        rows = Rows(own, plan.send_by_rank, plan.rows_by_rank)
        Parcel([rows], self._wire, own.device).wait()
        plan.draw_by_maps(own.cpu(), rows.partners(plan).cpu())

    def _reads(self, plan: GlobalPlan, step: GlobalStep) -> Callable[[Place], Reads]:
        """What rows of any rank may read of the entry at a place: every rank knows the same."""
        law, by_batch = self.batch_mix._law, self.batch_mix._rules["per"] == "batch"
        if law.map_variant is not None:
            return lambda place: Reads(True, False)
        if by_batch:
            row, places = plan.common()
            return lambda place: reads_of(step.plan_at(place, row), places)
        blends = law.blends or law.masks
        return lambda place: Reads(blends or not place.sizes, law.cuts and bool(place.sizes))
