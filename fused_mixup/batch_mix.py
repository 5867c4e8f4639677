"""MixUp and CutMix as a module of the training step: :class:`BatchMix`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .batch_parts import (
    Parts,
    check_device,
    check_images,
    check_masks,
    filled,
    same_memory,
    writable_copy,
)
from .batch_workers import EPOCH_LIMIT, WorkerStreams
from .checks import check_writable
from .draw import draw_plan, plan_settings, plan_state
from .draw_checks import (
    DRAWN_PAIRINGS,
    check_choice,
    check_minmax,
    saved_settings_error,
    saved_state_error,
)
from .functional import mix, mix_, mix_targets, paste_
from .plan import MixPlan
from .plan_checks import integer
from .reference_draw import STREAM_WORD
from .target import MixedTarget, check_label_smoothing, check_labels, check_num_classes

Schedule = Callable[[int], float | Mapping[str, float]]

_SCHEDULED = ("mixup_alpha", "cutmix_alpha", "switch_prob", "prob")


class BatchMix(nn.Module):
    r"""Mix each batch of a training loop with a plan drawn on its own device.

    ``x_i ← λ x_i + (1-λ) x_j``, or a box of x_j pasted in x_i, with ``λ ~ Beta(α, α)`` and the
    partners j of ``pairing``; targets are ``λ y_i + (1-λ) y_j``. One launch draws the plan, one
    mixes the images; nothing is read back, and torch.compile compiles a step once (another
    batch size once more)::

        mix = BatchMix(num_classes=1000, mixup_alpha=0.8, cutmix_alpha=1.0).to(device)
        for epoch in range(epochs):
            mix.set_epoch(epoch)
            for x, labels in loader:
                x, target = mix(x, labels)  # x [B, C, H, W], labels [B]
                loss = soft_target_cross_entropy(model(x), target)

    Equivalent to::

        plan = draw_plan(len(x), x.shape[2:], state=mix.state, settings=mix.settings, labels=labels,
                         per=per, pairing=pairing, correct_lam=correct_lam, symmetric=symmetric)
        mix_(x, plan)
        target = MixedTarget.from_labels(labels, plan, num_classes, label_smoothing)

    Args:
        num_classes: K.
        mixup_alpha, cutmix_alpha, switch_prob, prob, per, pairing, cutmix_minmax, correct_lam,
            symmetric: as in :func:`draw_plan`; ``pairing`` by name.
        label_smoothing: ε in [0, 1] of the targets, while training.
        dense_targets: give targets [B, K] float32 in place of a :class:`MixedTarget`.
        inplace: write the images where they lie. False: a mixed copy, through which gradients flow.
        spatial_dims: how many of the last dims boxes live in. By default all behind [B, C]; 1 for
            audio [B, T], 2 for video [B, T, C, H, W] whose frames are cut alike.
        seed: 64 bits; the same on every rank.
        rank: of this process, for a stream of its own. By default that of torch.distributed where
            it is initialised by now, else 0.
        schedule: called by :meth:`set_epoch` with the epoch; returns an α for the modes that are
            on, or a dict of any of mixup_alpha, cutmix_alpha, switch_prob and prob. A mode whose α
            is 0 above stays off. Spawned workers need one that pickles: a ``def``, no lambda.
        off_after_epoch: epochs, counted from 0, from this one on are not mixed.
        images, labels, masks: keys (or, in tuples and lists, positions) in a batch given as one
            object; several images or masks as a tuple. By default the usual names in a dict
            ("image", "label", "mask" and the like), positions 0 and 1 elsewhere, no masks there.
            Masks need ``mixup_alpha=0``: the boxes are pasted in them, in place.

    Called with ``(x, labels)``, with more tensors behind them, or with one dict, tuple or list.
    images: float16, bfloat16, float32, float64 or uint8 [B, …]; labels: int64 [B].

    Returns:
        The same structure (a dict for a mapping that is read-only) with images mixed and, in place
        of the labels, the target. In eval mode (``.eval()``) the images as they came and the target
        of weights (1, 0) without smoothing; no step is taken.

    Raises:
        TypeError, ValueError: arguments or batches that are not as described, before a step is
            taken or anything is written.
        IndexError: labels outside [0, K), on the CPU.

    Notes:
        ``state`` and ``settings`` are buffers: a checkpoint resumes the stream to the bit. Seed and
        step come from it, the rank stays this process's own, so one checkpoint serves all ranks.
        Settings that were loaded count until :meth:`set_epoch`. Those with a mode that is off here
        are refused, and then nothing of the checkpoint is taken.
        Keep the module beside the model that DistributedDataParallel wraps, not inside: there rank
        0's buffers, and so its draws, would be sent to all.

        In a data loader, ``collate_fn=lambda s: mix(default_collate(s))`` mixes in the workers,
        with a stream for each. Call :meth:`set_epoch` before every epoch; it reaches workers that
        persist. Their draws then depend on seed, rank, worker and epoch alone, where each loader is
        iterated once per epoch, to its end. An epoch that is broken off may leave a persistent
        worker's next epoch with other plans; iterating twice in one epoch repeats plans in workers
        that are started anew. Without set_epoch draws depend on PyTorch's generator, as the
        loader's order does.

        Casting the module (``.half()``) leaves its buffers as they are.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    state: Tensor
    settings: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        switch_prob: float = 0.5,
        prob: float = 1.0,
        per: str = "batch",
        pairing: str = "flip",
        cutmix_minmax: Sequence[float] | None = None,
        correct_lam: bool = True,
        symmetric: bool = False,
        label_smoothing: float = 0.0,
        dense_targets: bool = False,
        inplace: bool = True,
        spatial_dims: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        schedule: Schedule | None = None,
        off_after_epoch: int | None = None,
        images: Any = None,
        labels: Any = None,
        masks: Any = None,
    ) -> None:
        super().__init__()
        self.num_classes = check_num_classes(num_classes)
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.dense_targets, self.inplace = bool(dense_targets), bool(inplace)
        self.spatial_dims = None if spatial_dims is None else integer("spatial_dims", spatial_dims)
        if self.spatial_dims not in (None, 1, 2, 3):
            raise ValueError(f"spatial_dims: expected 1, 2, 3 or None, got {spatial_dims}")
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule: expected a function of the epoch, got {schedule!r}")
        self.schedule = schedule
        self.off_after_epoch = (
            None if off_after_epoch is None else integer("off_after_epoch", off_after_epoch)
        )
        if self.off_after_epoch is not None and self.off_after_epoch < 0:
            raise ValueError(f"off_after_epoch: expected an epoch >= 0, got {off_after_epoch}")
        self.rank = _own_rank() if rank is None else integer("rank", rank)
        self._parts = Parts.of(images, labels, masks)
        check_choice("pairing", pairing, DRAWN_PAIRINGS)
        self._rules: dict[str, Any] = {
            "per": per,
            "pairing": pairing,
            "correct_lam": bool(correct_lam),
            "symmetric": bool(symmetric),
        }
        self._numbers: dict[str, Any] = {
            "mixup_alpha": mixup_alpha,
            "cutmix_alpha": cutmix_alpha,
            "switch_prob": switch_prob,
            "prob": prob,
            "cutmix_minmax": None if cutmix_minmax is None else check_minmax(cutmix_minmax),
        }
        plan_settings(**self._numbers, device="cpu")
        self._blends, self._cuts = mixup_alpha > 0, cutmix_alpha > 0
        self.register_buffer("state", plan_state(seed, self.rank))
        settings = self._settings_of(0)
        self.register_buffer("settings", settings.to(self.state.device, copy=True))
        self._workers = WorkerStreams(settings)
        # What draw_plan refuses, it refuses here rather than in the first step.
        nobody = torch.empty(0, dtype=torch.int64, device=self.state.device)
        self._draw(self.state.clone(), self.settings, 0, (1,), nobody)

    # ---------------------------------------------------------------- epochs

    def set_epoch(self, epoch: int) -> None:
        """Take the settings of ``epoch`` (from 0): ``schedule``, ``off_after_epoch``, workers.

        One small copy to the device; what is compiled or captured reads it at the next step.
        """
        epoch = integer("epoch", epoch)
        if not 0 <= epoch < EPOCH_LIMIT:
            raise ValueError(f"epoch: expected 0 to {EPOCH_LIMIT - 1}, got {epoch}")
        settings = self._settings_of(epoch)
        self.settings.copy_(settings)
        self._workers.tell(settings, epoch)

    def _settings_of(self, epoch: int) -> Tensor:
        numbers = dict(self._numbers)
        if self.schedule is not None:
            scheduled = self.schedule(epoch)
            if not isinstance(scheduled, Mapping):
                names = [name for name in _SCHEDULED[:2] if numbers[name] > 0]
                scheduled = dict.fromkeys(names, scheduled)
            for name, value in scheduled.items():
                if name not in _SCHEDULED:
                    raise ValueError(f"schedule: expected keys of {_SCHEDULED}, got {name!r}")
                if name.endswith("alpha") and value and not numbers[name]:
                    raise ValueError(
                        f"schedule: expected 0 for {name}, which is off, got {value}; give "
                        f"BatchMix a {name} above 0 (any: the schedule's counts)"
                    )
                numbers[name] = value
        off = self.off_after_epoch is not None and epoch >= self.off_after_epoch
        if off or (numbers["mixup_alpha"] == 0 and numbers["cutmix_alpha"] == 0):
            numbers["prob"] = 0.0
        if numbers["cutmix_alpha"] == 0:
            numbers["cutmix_minmax"] = None  # bounds of a mode that is off for now
        return plan_settings(**numbers, device="cpu")

    # ---------------------------------------------------------------- a step

    def forward(self, *inputs: Any) -> Any:
        """The batch with its images mixed and its labels made a target; see the class."""
        batch = inputs[0] if len(inputs) == 1 else inputs
        if not isinstance(batch, (tuple, list, Mapping)) or not inputs:
            got = type(batch).__name__ if inputs else "nothing"
            raise TypeError(
                f"BatchMix: expected images and labels, or one dict, tuple or list, got {got}; "
                "labels must be mixed with the images: mix(x, labels)"
            )
        images, labels_key, masks = self._parts.find(batch)
        labels = batch[labels_key]
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else labels
            raise TypeError(f"labels: expected int64 class indices [B], got {got}")
        check_labels(labels, self.num_classes)
        out = writable_copy(batch)
        if not self.training:
            return filled(batch, out, {labels_key: self._unmixed(labels)})
        check_device("labels", labels, self.state)
        named = [(f"images[{key!r}]", batch[key]) for key in images]
        named_masks = [(f"masks[{key!r}]", batch[key]) for key in masks]
        batch_size = labels.shape[0]
        spatial = check_images(named, self.state, batch_size, self.spatial_dims)
        check_masks(named_masks, self.state, batch_size, spatial, self._blends)
        if self.inplace:
            for name, x in named:
                check_writable(name, x, "use inplace=False, which is differentiable")
        plan = self.draw(batch_size, spatial, labels)
        entries: dict[Any, Any] = {labels_key: self._target(labels, plan)}
        for keys, apply in ((images, mix_ if self.inplace else mix), (masks, paste_)):
            for key in keys:
                # One tensor may stand in a batch twice: what is mixed in place is mixed once.
                twin = next((k for k in entries if same_memory(batch[k], batch[key])), None)
                entries[key] = apply(batch[key], plan) if twin is None else entries[twin]
        return filled(batch, out, entries)

    def draw(
        self, batch_size: int, spatial: Sequence[int] = (), labels: Tensor | None = None
    ) -> MixPlan:
        """The plan of the next step, for what :meth:`forward` does not cover.

        Args:
            batch_size: B.
            spatial: the sizes that boxes live in; CutMix needs them.
            labels: int64 [B], for ``pairing="cross_class"``.

        Returns:
            A :class:`MixPlan` on the device of this module; its step is taken.
        """
        state, settings = self.state, self.settings
        if not torch.compiler.is_compiling():
            state, settings = self._workers.here(state, self.rank) or (state, settings)
        return self._draw(state, settings, batch_size, spatial, labels)

    def _draw(
        self,
        state: Tensor,
        settings: Tensor,
        batch_size: int,
        spatial: Sequence[int],
        labels: Tensor | None,
    ) -> MixPlan:
        if self._cuts and not spatial:
            raise ValueError(
                "images: expected sizes for the boxes of CutMix behind [B, C], got none; set "
                "spatial_dims=1 for [B, T], or cutmix_alpha=0 for MixUp alone"
            )
        # Plans without boxes are mixed faster.
        spatial = tuple(spatial) if self._cuts else ()
        return draw_plan(
            batch_size,
            spatial,
            state=state,
            settings=settings,
            labels=labels if self._rules["pairing"] == "cross_class" else None,
            **self._rules,
        )

    def _target(self, labels: Tensor, plan: MixPlan) -> Tensor | MixedTarget:
        make = mix_targets if self.dense_targets else MixedTarget.from_labels
        return make(labels, plan, self.num_classes, self.label_smoothing)

    def _unmixed(self, labels: Tensor) -> Tensor | MixedTarget:
        row = torch.tensor([[1.0, 0.0]], device="cpu").expand(labels.shape[0], 2)
        target = MixedTarget(labels, labels, row, self.num_classes)
        return target.dense() if self.dense_targets else target

    # ---------------------------------------------------------------- as a module

    def extra_repr(self) -> str:
        shown = {"num_classes": self.num_classes, **self._numbers, **self._rules}
        shown |= {"label_smoothing": self.label_smoothing, "rank": self.rank}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BatchMix:
        settings = self.settings
        super()._apply(fn, recurse)
        if self.settings.dtype != settings.dtype:  # .half() of a parent means its weights
            self.settings = settings.to(self.settings.device)
        return self

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local: dict, strict: bool, missing: list, *rest: list
    ) -> None:
        *_, errors = rest
        names = prefix + "state", prefix + "settings"
        saved, settings = (state_dict.get(name) for name in names)
        refused: list[str | None] = []
        if isinstance(saved, Tensor) and saved.shape == self.state.shape:
            saved = saved.clone()  # of another rank, as a rule
            saved[STREAM_WORD] = self.rank
            state_dict[names[0]] = saved
            refused.append(saved_state_error(names[0], saved))
        if not isinstance(settings, Tensor) or settings.shape != self.settings.shape:
            settings = None
        if settings is not None:
            modes = self._blends, self._cuts, self.schedule is not None
            refused.append(saved_settings_error(names[1], settings, *modes))
        if any(refused):
            errors += [error for error in refused if error]
            return
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, *rest)
        if settings is not None:
            self._workers.tell(settings, None)


def _own_rank() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return 0
