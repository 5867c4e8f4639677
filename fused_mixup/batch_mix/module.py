"""MixUp and CutMix as a module of the training step: :class:`BatchMix`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..plan.mix_plan import MixPlan
from .collate import collate_samples, untyped
from .entries import Kinds
from .epochs import Schedule
from .from_recipe import RecipeModule
from .labels import Targets
from .map_law import check_needed
from .resized import Resized
from .step import ImageStep, Options, Step
from .structure import items, replace
from .variant_law import choose_law

AnyStep = TypeVar("AnyStep", bound=Step)


class BatchMix(RecipeModule):
    r"""Mix each batch of a training loop with a plan drawn on its own device.

    ``x_i ← λ x_i + (1-λ) x_j``, or a box of x_j pasted in x_i, with ``λ ~ Beta(α, α)`` and the
    partners j of ``pairing``; targets are ``λ y_i + (1-λ) y_j``. One launch draws the plan, one
    mixes the images; nothing is read back, and torch.compile compiles a step once (once more
    for another batch size)::

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
        num_classes: K of labels that are class indices, and of class maps; for several heads a dict
            or list of them. None where there are no such labels.
        mix, weights: variants by their papers' names, ``{"mixup": 0.8, "cutmix": 1.0, "fmix": 1}``,
            and their probabilities, as in :func:`draw_variants`, which then draws the plans. They
            take the place of the α that follow. Images have two spatial dims. ``"resizemix"`` may
            be among them; docs/variants.md has those that stand alone, as they need ``maps=``.
        mixup_alpha, cutmix_alpha, switch_prob, prob, per, pairing, cutmix_minmax, correct_lam,
            symmetric: as in :func:`draw_plan`; ``pairing`` by name.
        label_smoothing: ε in [0, 1] of the targets, while training. timm's default is 0.1.
        ignore_index: labels and pixels equal to it are legal, and their terms are left out.
        dense_targets: give targets [B, K, …] float32 in place of a :class:`MixedTarget`.
        inplace: write the images where they lie. False: a mixed copy, through which gradients flow.
        spatial_dims: how many of the last dims boxes live in. By default those of the kind, for
            images all after [B, C]; 1 for audio [B, T].
        seed: 64 bits; the same on every rank.
        rank: rank of this process, for its own stream; by default see :attr:`rank`.
        schedule: called by :meth:`set_epoch` with the epoch; returns an α for the modes that are
            on, or a dict of any of mixup_alpha, cutmix_alpha, switch_prob and prob; with ``mix`` of
            α by name, weights and prob. A mode whose α is 0 above stays off. Spawned workers need
            one that pickles: a ``def``, no lambda.
        off_after_epoch: this epoch (counted from 0) and later ones are not mixed.
        images, labels, masks: keys (or, in tuples and lists, positions) of these entries; several
            as a tuple, none as ``()``.
        kinds: the kind of each entry (docs/kinds.md lists them) by its key, position, or dotted
            name ("target.depth"). By default that of its tv_tensor type or of its name; of tuples
            and lists the first entry is images and the second labels.
        cut: ``"space"``, or ``"time"`` for boxes in the time of video, audio and spectrograms.
        follows: labels that follow the share of another entry than the first, by their keys:
            ``{"sound_label": "audio"}``.
        min_visible, box_format: as ``min_visible`` and ``format`` of :func:`mix_boxes`.

    Called with ``(x, labels, …)``, one structure (dicts, tuples, lists, dataclasses, nested), or
    images alone; and with ``maps=``, floats [B, h, w] or [B, 1, h, w] of 0 and more, how much each
    part of the unmixed images matters, where ``mix`` is one of saliencymix, attentivemix and
    guidedmixup.

    Shapes:
        images: [B, …], float16, bfloat16, float32, float64 or uint8, or a list of B samples. Boxes
            are drawn in the sizes of the first entry, and mapped to those of the others.
        labels: int64 [B], or floats [B, …], or a dict, list or tuple of those, one for each head.
        masks: class maps, integers or bools [B, …, H, W], or floats.
        others: docs/kinds.md.

    Returns:
        The same structure (a dict for a mapping that is read-only) with images mixed and, in place
        of class indices, the target; floats are blended, ``w_i0 y_i + w_i1 y_j``. Class maps stay
        integers, pasted in place, where MixUp is off (``mixup_alpha=0``), and else become a target;
        masks of floats are mixed as images. Boxes that may be blended get an entry
        ``"box_weights"``. In eval mode (``.eval()``) images and floats stay as they are and targets
        have weights (1, 0) without smoothing; no step is taken.

    Raises:
        TypeError, ValueError: arguments or batches that are not as described, an entry that fits
            no kind among them, before a step is taken or anything is written.
        IndexError: labels outside [0, K), on the CPU.

    Notes:
        A batch that is a view of a larger tensor is mixed there; a warning says so, once.

        ``state`` and ``settings`` are tensors, but no buffers: averages of weights (EMA, SWA),
        casts and DistributedDataParallel leave them alone, so this may be a part of the model. A
        checkpoint resumes the stream to the bit; the rank is read at each draw and not saved, so
        one checkpoint serves all ranks. Loaded settings apply until :meth:`set_epoch`; settings
        with a mode that is off here are refused, and then nothing is loaded.

        Inside torch.utils.checkpoint the recompute mixes as the forward did; see :func:`draw_plan`.
        There use ``inplace=False``: the recompute reads the images again.

        In a data loader, ``collate_fn=mix.collate`` mixes in the workers, with a stream for each.
        Call :meth:`set_epoch` before every epoch; it reaches workers that persist. docs/batchmix.md
        says when their draws depend on seed, rank, worker and epoch alone.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def __init__(
        self,
        num_classes: int | Mapping[Any, int] | Sequence[int] | None = None,
        *,
        mix: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | Sequence[float] | None = None,
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
        ignore_index: int | None = None,
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
        kinds: Mapping[Any, str] | None = None,
        cut: str = "space",
        follows: Mapping[Any, str] | None = None,
        min_visible: float = 0.1,
        box_format: str = "xyxy",
    ) -> None:
        super().__init__()
        targets = Targets(num_classes, label_smoothing, ignore_index, bool(dense_targets))
        self.inplace, self._warned = bool(inplace), False
        self._kinds = Kinds(kinds, images, labels, masks)
        rules: dict[str, Any] = {"per": per, "pairing": pairing}
        rules |= {"correct_lam": bool(correct_lam), "symmetric": bool(symmetric)}
        modes = mixup_alpha, cutmix_alpha, switch_prob, cutmix_minmax
        law = choose_law(mix, weights, modes, prob, schedule, off_after_epoch)
        options = spatial_dims, cut, follows, min_visible, box_format
        self._options = Options.make(law, bool(correct_lam), *options)
        self._set_up(targets, law, rules, seed, rank)

    # ---------------------------------------------------------------- a step

    def forward(self, *inputs: Any, maps: Tensor | None = None) -> Any:
        """The batch with its images mixed and its labels made a target; see the class."""
        return self.with_plans(*inputs, maps=maps)[0]

    def with_plans(
        self, *inputs: Any, maps: Tensor | None = None
    ) -> tuple[Any, dict[str, MixPlan]]:
        """The mixed batch, and the plan by which each entry was mixed, by the entry's name.

        ``plan.weight`` is what each entry really got: of entries of other sizes the share that was
        pasted at their size. Names are keys (positions as text), joined by dots where nested. In
        eval mode there are none. A row of ResizeMix has no more than its weights there.
        """
        return self._batch(inputs[0] if len(inputs) == 1 else inputs, maps=maps)

    def _batch(
        self,
        batch: Any,
        images: ImageStep | None = None,
        mixes: bool = True,
        maps: Tensor | None = None,  # [B, h, w]
    ) -> tuple[Any, dict[str, MixPlan]]:
        """A step whose images are mixed by ``images``, where a loader does more with them."""
        alone = isinstance(batch, Tensor)  # images
        if alone:
            batch = (batch,)
        step = self._step(batch, Step, images)
        check_needed(maps, self._law.map_variant, self.training and mixes)
        if not (self.training and mixes):
            made = replace(batch, step.keep())
            return made[0] if alone else made, {}
        self._warned = step.check(self.state, self.inplace, self._warned)
        by_class = self._rules["pairing"] == "cross_class"
        classes = step.pairing_labels() if by_class else None
        plan, places = self._next(step.size, step.scene.sizes, classes, maps)
        paste = None if places is None else Resized(places, plan, step.scene.sizes).paste
        news, plans = step.mix(plan, self.inplace, paste)
        made = replace(batch, news)
        return made[0] if alone else made, plans

    def _step(self, batch: Any, of: type[AnyStep], images: ImageStep | None = None) -> AnyStep:
        """The entries of a batch, checked."""
        nothing = isinstance(batch, tuple) and len(batch) == 0
        if items(batch) is None or nothing:
            got = "nothing" if nothing else type(batch).__name__
            raise TypeError(
                "BatchMix: expected images and labels, or one dict, tuple, list or dataclass, got "
                f"{got}"
            )
        return of(batch, self._kinds.find(batch), self._targets, self._options, images)

    def collate(self, samples: list[Any]) -> Any:
        """``default_collate``, then :meth:`forward`: a ``collate_fn`` that pickles for workers.

        Samples with boxes are collated too: what belongs to boxes stays a list, a sample's own
        dict a tuple of them.

        Equivalent to (samples without boxes)::

            self(torch.utils.data.default_collate(samples))
        """
        return untyped(self(collate_samples(samples, self._kinds.all_said)))

    def draw(
        self,
        batch_size: int,
        spatial: Sequence[int] = (),
        labels: Tensor | None = None,
        maps: Tensor | None = None,
    ) -> MixPlan:
        """The plan of the next step, for what :meth:`forward` does not cover.

        Args:
            batch_size: B.
            spatial: the sizes that boxes live in; CutMix needs them.
            labels: int64 [B], for ``pairing="cross_class"``.
            maps: as in the call.

        Returns:
            A :class:`MixPlan` on the device of this module; the state advances by one step.

        Raises:
            ValueError: ResizeMix among the variants, whose resized partners no MixPlan has.
        """
        if self._law.resizes:
            raise ValueError(
                "mix: expected variants that a MixPlan says, got 'resizemix', which resizes its "
                "partner; call BatchMix with the batch, or use draw_resizemix and mix_rectangles"
            )
        return self._next(batch_size, spatial, labels, maps)[0]

    def _next(
        self,
        batch_size: int,
        spatial: Sequence[int],
        labels: Tensor | None,  # [B]
        maps: Tensor | None,  # [B, h, w]
    ) -> tuple[MixPlan, Tensor | None]:
        here = None
        if not torch.compiler.is_compiling():
            here = self._workers.worker_state(self.state, self.rank)
        state, settings = here or (self._own_state(), self.settings)
        classes = self._classes(labels)
        return self._law.draw(state, settings, batch_size, spatial, classes, self._rules, maps)
