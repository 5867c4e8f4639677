"""timm's ``Mixup`` on fused ops. Import it from :mod:`fused_mixup.timm`.

The collate function builds on these: ``_draw(batch_size, (h, w))`` draws, :func:`plan_of` makes a
plan on the host of the numbers drawn, ``_labels(target, batch_size)`` checks labels and
``_targets(labels, drawn, plan, dtype)`` mixes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..mixing import mix, mix_
from ..plan.checks import Facts
from ..plan.mix_plan import MixPlan, known_plan
from ..target.checks import check_label_smoothing, check_num_classes
from ..target.labels import mix_labels
from ..target.mixed_target import MixedTarget
from ..tracing import call_eagerly
from .checks import check_images, check_minmax, number
from .draws import Drawn, Size, check_draws, draw_batch, draw_rows
from .labels import check_target, encode, smooth_labels

BOXES = ("timm>=1.0.29", "timm<=1.0.28")
HALF = (torch.float16, torch.bfloat16)


class Mixup:
    """MixUp and CutMix of a batch in place, with the draws, images and targets of timm's ``Mixup``.

    Sample i is mixed with its partner j = B-1-i: MixUp gives ``λ x_i + (1-λ) x_j``, CutMix pastes a
    box of x_j, and the targets are ``λ y_i + (1-λ) y_j`` of smoothed one-hot labels. Only the
    import line changes::

        from fused_mixup.timm import Mixup  # from timm.data import Mixup

    Args:
        mixup_alpha: λ ~ Beta(α, α) of MixUp; 0 for none.
        cutmix_alpha: the same of CutMix.
        cutmix_minmax: two shares of height and width between which box sides are drawn; CutMix is
            then active, and its λ always that of the area.
        prob: probability that a batch (pair, sample) is mixed at all.
        switch_prob: probability of CutMix where both are active.
        mode: ``"batch"`` (one λ), ``"pair"`` (one for samples i and B-1-i), ``"elem"`` (one for
            each); any other is taken as ``"batch"``.
        correct_lam: correct λ to the area really pasted.
        label_smoothing: ε; off = ε/K, on = 1-ε+off. With ``multi_label``: y (1-ε) + ε/2.
        num_classes: K.
        multi_label: targets are dense, [B, K].
        sparse_targets: return a :class:`fused_mixup.MixedTarget`, which the losses of this
            package take, in place of dense targets.
        compat: whose boxes to draw. Up to timm 1.0.28 an odd side was one pixel short.

    Raises:
        TypeError, ValueError: an argument that is not as described.
        AssertionError: ``cutmix_minmax`` that is no pair; when called, no alpha above 0.

    Notes:
        Images are bit-equal to timm's in float32 and float64 (uint8: CutMix); in half precision
        they are rounded once and lie nearer the exact result. Targets and the state of NumPy's
        global generator afterwards are equal. What differs:

        - A batch may be odd. Its middle sample is its own partner: mixed with itself in batch and
          elem mode (its values stay, to rounding), not mixed in pair mode. timm asserts.
        - uint8 images: MixUp blends, half to even (timm raises in batch mode, truncates in the
          others); targets in pair and elem mode are right, CutMix's too (timm keeps their λ in
          uint8, so it is 0: those of the partner alone).
        - Video [B, C, T, H, W]: the box lies in the last two dims (timm cuts along time).
        - Dense targets without ``multi_label`` and a batch of labels of another size are refused
          (timm returns rows that fit no image).
        - λ of half-precision images in pair and elem mode: dense targets have it rounded to the
          dtype of the images, as timm's; those of ``sparse_targets`` keep it in float32.
        - ``mixup_enabled = False`` reaches data-loader workers that are already running.
        - Arguments are checked before anything is drawn or written: probabilities outside [0, 1],
          and negative alphas, too. Labels outside [0, K) raise IndexError where they live on the
          CPU; on a GPU, where nothing is read back, the rows of dense targets become NaN.
        - Float targets without ``multi_label`` must be whole numbers (timm truncates them);
          on a GPU, where nothing is read back, the rows of others become NaN.
        - λ of exactly 0 or 1 drops the term that is not used, so it brings in no NaN (timm: 0·inf).

        Like timm's, it writes the batch in place: a slice of a data set held in memory is mixed in
        the data set. Gradients flow to images that a layer has made; a leaf that requires grad is
        refused, as PyTorch refuses timm's.

        Under torch.compile the call is a graph break, and no drawn value causes a recompile.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: Any = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
        *,
        sparse_targets: bool = False,
        compat: str = BOXES[0],
    ) -> None:
        self.mixup_alpha = number("mixup_alpha", mixup_alpha)
        self.cutmix_alpha = number("cutmix_alpha", cutmix_alpha)
        self.cutmix_minmax = cutmix_minmax
        if cutmix_minmax is not None:
            check_minmax(cutmix_minmax)
            self.cutmix_alpha = 1.0
        self.mix_prob = number("prob", prob, 1.0)
        self.switch_prob = number("switch_prob", switch_prob, 1.0)
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.num_classes = check_num_classes(num_classes)
        self.multi_label = multi_label
        self.mode = mode
        self.correct_lam = correct_lam
        if sparse_targets and multi_label:
            raise ValueError(
                "sparse_targets: expected False with multi_label, whose targets are dense rows "
                "and not two labels; leave it out"
            )
        self.sparse_targets = sparse_targets
        if compat not in BOXES:
            raise ValueError(f"compat: expected one of {list(BOXES)}, got {compat!r}")
        self.compat = compat
        self._odd = int(compat == BOXES[0])
        self._share(torch.ones(1, dtype=torch.uint8, device="cpu"))

    # ---------------------------------------------------------------- the switch

    @property
    def mixup_enabled(self) -> bool:
        """Whether anything is mixed. Set it from the training loop; workers see it at once."""
        return bool(self._switch[0])

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self._switch[0] = bool(value)

    def _share(self, shared: Tensor) -> None:
        """Keep the switch in memory that forked and spawned processes see."""
        if not shared.is_shared():  # after plain pickling or copy.deepcopy
            shared.share_memory_()
        self._shared = shared
        self._switch = shared.numpy()  # the same byte, read without the cost of a tensor

    def __getstate__(self) -> dict[str, Any]:
        # torch.multiprocessing pickles a shared tensor as a handle to its memory.
        return {name: value for name, value in self.__dict__.items() if name != "_switch"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share(state["_shared"])

    # ---------------------------------------------------------------- the call

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor | MixedTarget]:
        """Mix x [B, C, …, H, W] in place; target: class indices [B], or [B, K] (multi-label).

        Returns:
            x, and targets [B, K] or a MixedTarget.

        Raises:
            TypeError, ValueError, IndexError, AssertionError: see the class.
        """
        if torch.compiler.is_compiling():
            return call_eagerly(self._mix, x, target)
        return self._mix(x, target)

    def _mix(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor | MixedTarget]:
        check_images(x)
        labels = self._labels(target, len(x))
        check_draws(self, x.shape[1:], self.mode in ("elem", "pair"))
        drawn = self._draw(len(x), x.shape[-2:])
        plan = plan_of(drawn, len(x), torch.float32 if self.sparse_targets else x.dtype)
        if not plan.serves(x.device):
            plan = plan.to(x.device)
        if plan.blends or plan.spatial_dims:
            _mix_in_place(x, plan)
        return x, self._targets(labels, drawn, plan, x.dtype)

    def _draw(self, batch_size: int, size: Size) -> Drawn:
        if self.mode == "elem":
            return draw_rows(self, batch_size, size)
        if self.mode == "pair":
            return draw_rows(self, batch_size // 2, size).mirror(batch_size)
        return draw_batch(self, size)

    def _labels(self, target: Tensor, batch_size: int) -> Tensor:
        return check_target(target, batch_size, self.num_classes, self.multi_label)

    def _targets(
        self, labels: Tensor, drawn: Drawn, plan: MixPlan, dtype: torch.dtype
    ) -> Tensor | MixedTarget:
        """Targets of what :meth:`_labels` returned, for images of ``dtype``."""
        if not plan.serves(labels.device):
            plan = plan.to(labels.device)
        k, smoothing = self.num_classes, self.label_smoothing
        if self.sparse_targets:
            return MixedTarget.from_labels(labels, plan, k, smoothing)
        base = torch.float32 if self.multi_label else torch.get_default_dtype()
        if base == torch.float32 and (drawn.per_batch or dtype != torch.float64):
            if self.multi_label:
                return mix_labels(smooth_labels(labels, smoothing), plan)
            # This calls the op itself, as _labels has checked the labels.
            return ops.mix_targets(labels, None, plan.weight, plan.rule, k, smoothing, base)
        # These targets need weights in float64; a plan's are float32.
        own = encode(labels, k, smoothing, self.multi_label)
        if drawn.per_batch:
            lam = float(drawn.lam[0])
            return own * lam + own.flip(0) * (1.0 - lam)
        column = torch.from_numpy(drawn.lam).to(own.device, _lam_dtype(dtype))[:, None]
        return own * column + own.flip(0) * (1.0 - column)

    def __repr__(self) -> str:
        names = ("mixup_alpha", "cutmix_alpha", "cutmix_minmax", "mix_prob", "switch_prob", "mode")
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({shown}, mixup_enabled={self.mixup_enabled})"


def _mix_in_place(x: Tensor, plan: MixPlan) -> None:
    """``mix_``; gradients flow to images that a layer has made, as in timm's."""
    if not x.requires_grad:
        mix_(x, plan)
    elif torch.is_grad_enabled():
        x.copy_(mix(x, plan))
    else:
        mix_(x.detach(), plan)


# ------------------------------------------------------------------ plans


def plan_of(drawn: Drawn, batch_size: int, dtype: torch.dtype = torch.float32) -> MixPlan:
    """The plan on the host of the numbers drawn: one row for a batch, else one per sample.

    ``dtype`` is that of the images: timm rounds label weights to it where each sample has its own.
    """
    if drawn.per_batch:
        box = drawn.box[0].tolist() if drawn.cut[0] else None
        return MixPlan.uniform(batch_size, "flip", float(drawn.lam[0]), box)
    pair = np.empty((batch_size, 2), np.float32)
    pair[:, 0] = drawn.lam
    pair[:, 1] = 1 - drawn.lam
    blend, box, stops = pair.astype(np.float64), drawn.box[:, :0], ()
    if drawn.cut.any():
        blend[drawn.cut] = 1.0, 0.0
        box = drawn.box
        stops = tuple(box[:, 2:].max(0).tolist())
    facts = Facts(is_permutation=True, blends=bool(blend[:, 1].any()), box_stop=stops)
    weight = torch.from_numpy(pair)
    if _lam_dtype(dtype) in HALF:
        lam = weight[:, 0].to(dtype)
        weight = torch.stack((lam, 1 - lam), 1).float()
    rows = weight, torch.from_numpy(blend), torch.from_numpy(box)
    return known_plan((None, *rows), "flip", facts)


def _lam_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of timm's λ per sample, for images of ``dtype`` (uint8 would lose it)."""
    return dtype if dtype.is_floating_point else torch.float32
