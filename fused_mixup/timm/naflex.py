"""timm's mixing of images of different sizes (NaFlex). Import it from :mod:`fused_mixup.timm`."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import integer
from ..target.checks import check_label_smoothing, check_num_classes
from ..target.mixed_target import MixedTarget
from ..tracing import call_eagerly, sample_beta
from .checks import number
from .labels import check_target, collate_labels
from .naflex_targets import mix_encoded
from .ragged import check_ragged, host_tensor, mix_images


class NaFlexMixup:
    """MixUp and CutMix of images of different sizes, with timm's draws, images and targets.

    Images are paired by aspect ratio, and each pair is mixed where both overlap when their centres
    lie on each other: MixUp gives ``λ x_i + (1-λ) x_j`` there, CutMix pastes a box of x_j, drawn
    anew for each image of a pair. Targets are mixed by the share of pixels that are the image's
    own. All images are read and written in one pass. Only the import line changes::

        from fused_mixup.timm import NaFlexMixup  # from timm.data.naflex_mixup

    Args:
        num_classes: K.
        mixup_alpha: λ ~ Beta(α, α) of MixUp; 0 for none.
        cutmix_alpha: the same of CutMix.
        switch_prob: probability of CutMix where both are active.
        prob: probability that a batch is mixed at all.
        local_shuffle: images next to each other by aspect ratio are shuffled in windows of this
            many before they are paired; 0 or 1 for none.
        label_smoothing: ε; off = ε/K, on = 1-ε+off. With ``multi_label``: y (1-ε) + ε/2.
        mixup_off_epoch: no mixing from this epoch on; 0 for no end.
        multi_label: targets are dense, [B, K].
        sparse_targets: return one :class:`fused_mixup.MixedTarget` in place of B rows. timm's
            ``NaFlexMapDatasetWrapper`` collates rows; this is for other loaders.

    Raises:
        TypeError, ValueError: an argument that is not as described.

    Notes:
        Images of float32 and float64, the pasted ones of every dtype, targets, and the states of
        Python's and PyTorch's generators afterwards equal timm's, bit for bit, as long as
        PyTorch and these kernels run on the same instruction set (``add(alpha=)`` fuses a product
        with the sum from AVX2 on). Half precision is rounded once and lies nearer the exact result.
        What differs:

        - uint8 MixUp rounds half to even; timm cuts towards 0, which darkens images by half a step.
        - What comes back lies in one buffer, each image with the memory order of the images given:
          ``clone()`` an image that outlives the batch, and before it is saved or sent. Images given
          are never written; one without a partner is returned as it is, as timm's.
        - Images of several dtypes or numbers of channels are refused, and so are integers other
          than uint8. Labels have to be as many as images, and whole numbers in [0, K).
        - λ of exactly 0 or 1 drops the term that is not used, so it brings in no NaN (timm: 0·inf).
        - Arguments are checked before anything is drawn.

        Images of a GPU, and those that need a gradient, are mixed one by one in plain PyTorch.

        Under torch.compile the call is a graph break.

    Source: Zhang et al., mixup, 2018, arXiv 1710.09412; Yun et al., CutMix, 2019, arXiv 1905.04899.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        switch_prob: float = 0.5,
        prob: float = 1.0,
        local_shuffle: int = 4,
        label_smoothing: float = 0.0,
        mixup_off_epoch: int = 0,
        multi_label: bool = False,
        sparse_targets: bool = False,
    ) -> None:
        self.num_classes = check_num_classes(num_classes)
        self.mixup_alpha = number("mixup_alpha", mixup_alpha)
        self.cutmix_alpha = number("cutmix_alpha", cutmix_alpha)
        self.switch_prob = number("switch_prob", switch_prob, 1.0)
        self.prob = number("prob", prob, 1.0)
        self.local_shuffle = integer("local_shuffle", local_shuffle)
        self.smoothing = check_label_smoothing(label_smoothing)
        self.mixup_off_epoch = integer("mixup_off_epoch", mixup_off_epoch)
        self.multi_label = multi_label
        if sparse_targets and multi_label:
            raise ValueError(
                "sparse_targets: expected False with multi_label, whose targets are dense rows "
                "and not two labels; leave it out"
            )
        self.sparse_targets = sparse_targets
        self.mixup_enabled = True
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; timm's data set calls it in every worker."""
        self.mixup_enabled = not self.mixup_off_epoch or epoch < self.mixup_off_epoch

    def __call__(
        self, imgs: Sequence[Tensor], targets: Any
    ) -> tuple[Sequence[Tensor], Sequence[Tensor] | MixedTarget]:
        """Mix B images [C, Hi, Wi] with targets: class indices [B], or [B, K] (multi-label).

        Returns:
            Images of the same sizes, in the same order, and B rows [K] or a MixedTarget. Fewer
            than two images, and a batch that is not mixed, come back as they are.

        Raises:
            TypeError, ValueError, IndexError, RuntimeError, ZeroDivisionError: images or targets
                that do not fit, before anything is drawn.
        """
        if torch.compiler.is_compiling():
            return call_eagerly(self._mix, imgs, targets)
        return self._mix(imgs, targets)

    def _mix(self, imgs: Any, targets: Any) -> tuple[Any, Any]:
        labels = self._labels(targets, len(imgs))
        may_mix = len(imgs) >= 2 and self.mixup_enabled
        checked = check_ragged(imgs) if may_mix else ([], [])
        if may_mix and self.prob > 0:
            _check_alphas(self.mixup_alpha, self.cutmix_alpha)
        if not may_mix or random.random() > self.prob:
            return imgs, self._targets(labels, {}, [1.0] * len(labels))
        mixed, lam_list, pair_to = _mix_images(
            *checked, self.mixup_alpha, self.cutmix_alpha, self.switch_prob, self.local_shuffle
        )
        return mixed, self._targets(labels, pair_to, lam_list)

    def _labels(self, targets: Any, count: int) -> Tensor:
        if not isinstance(targets, Tensor):
            targets = list(targets)
            if not targets:
                raise IndexError("targets: expected at least one, got an empty list")
            indices = {*map(type, targets)} == {int} and not self.multi_label
            fit = indices and len(targets) == count and min(targets) >= 0
            if fit and max(targets) < self.num_classes:
                return host_tensor("q", targets)
            targets = collate_labels("targets", targets)
        if targets.ndim and len(targets) < count:
            raise IndexError(f"targets: expected {count}, one for each image, got {len(targets)}")
        return check_target(targets, count, self.num_classes, self.multi_label)

    def _targets(
        self, labels: Tensor, pair_to: Mapping[int, int], lam_list: Sequence[float]
    ) -> Sequence[Tensor] | MixedTarget:
        k, smoothing = self.num_classes, self.smoothing
        if self.sparse_targets:
            partner = torch.tensor([pair_to.get(i, i) for i in range(len(labels))])
            weight = torch.tensor([(lam, 1.0 - lam) for lam in lam_list], dtype=torch.float32)
            partner, weight = partner.to(labels.device), weight.to(labels.device)
            return MixedTarget(labels, labels[partner], weight, k, smoothing)
        row = k, smoothing, self.multi_label
        return mix_encoded(labels, pair_to, lam_list, *row).unbind(0)

    def __repr__(self) -> str:
        names = ("num_classes", "mixup_alpha", "cutmix_alpha", "switch_prob", "prob")
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({shown}, mixup_enabled={self.mixup_enabled})"


def mix_batch_variable_size(
    imgs: Sequence[Tensor],
    *,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    switch_prob: float = 0.5,
    local_shuffle: int = 4,
) -> tuple[list[Tensor], list[float], dict[int, int]]:
    """The images of :class:`NaFlexMixup`, without targets: timm's function of this name.

    Args:
        imgs: B >= 2 images [C, Hi, Wi].
        The others are as in :class:`NaFlexMixup`.

    Returns:
        The mixed images; the share of each that is its own; which image is mixed with which.

    Raises:
        TypeError, ValueError, IndexError, RuntimeError, ZeroDivisionError: see
            :class:`NaFlexMixup`.
    """
    if len(imgs) < 2:
        raise ValueError(f"imgs: expected at least two images to mix, got {len(imgs)}")
    _check_alphas(mixup_alpha, cutmix_alpha)
    checked = check_ragged(imgs)
    return _mix_images(*checked, mixup_alpha, cutmix_alpha, switch_prob, local_shuffle)


# ------------------------------------------------------------------ draws, in timm's order


def _check_alphas(mixup_alpha: float, cutmix_alpha: float) -> None:
    if not (mixup_alpha > 0.0 or cutmix_alpha > 0.0):
        raise ValueError(
            f"mixup_alpha, cutmix_alpha: expected one of them > 0, got {mixup_alpha} and "
            f"{cutmix_alpha}; to switch mixing off set prob=0"
        )


def _mix_images(
    images: list[Tensor],
    shapes: list[tuple[int, int, int]],
    mixup_alpha: float,
    cutmix_alpha: float,
    switch_prob: float,
    window: int,
) -> tuple[list[Tensor], list[float], dict[int, int]]:
    cut = cutmix_alpha > 0.0
    if cut and mixup_alpha > 0.0:
        cut = torch.rand(()).item() < switch_prob
    alpha = float(cutmix_alpha if cut else mixup_alpha)
    dtype = torch.get_default_dtype()  # in which timm draws; there is no Beta in half types
    concentration = torch.tensor([[alpha, alpha]], dtype=torch.promote_types(dtype, torch.float32))
    lam = max(0.0, min(1.0, sample_beta(concentration)))
    sizes = [(h, w) for _, h, w in shapes]
    pair_to, odd = _draw_pairs(sizes, window)
    regions, lam_list = _draw_regions(sizes, pair_to, lam, cut)
    weights = (0.0, 1.0) if cut else (lam, 1.0 - lam)
    partner = [pair_to[i] for i in range(len(images)) if i != odd]
    mixed = images[:]
    if odd is not None:  # the one without a partner stays as it is
        del mixed[odd], shapes[odd]
        partner = [j - (j > odd) for j in partner]
    blend = torch.tensor(weights, dtype=torch.float64, device="cpu").expand(len(mixed), 2)
    mixed = mix_images(mixed, shapes, partner, blend, regions)
    if odd is not None:
        mixed.insert(odd, images[odd])
    return mixed, lam_list, pair_to


def _draw_pairs(sizes: Sequence[tuple[int, int]], window: int) -> tuple[dict[int, int], int | None]:
    """Who is mixed with whom, and who is left: neighbours by aspect ratio, shuffled in windows."""
    order = sorted(range(len(sizes)), key=[w / h for h, w in sizes].__getitem__)
    if window > 1:
        for start in range(0, len(order), window):
            part = order[start : start + window]
            random.shuffle(part)
            order[start : start + window] = part
    pair_to = {}
    for a, b in zip(order[::2], order[1::2], strict=False):
        pair_to[a] = b
        pair_to[b] = a
    return pair_to, order[-1] if len(order) % 2 else None


def _draw_regions(
    sizes: Sequence[tuple[int, int]], pair_to: Mapping[int, int], lam: float, cut: bool
) -> tuple[list[int], list[float]]:
    """The regions of the images that have a partner, in their order, and B shares."""
    regions: list[int] = []
    lam_list = [1.0] * len(sizes)
    side = math.sqrt(1.0 - lam)
    for i, (h, w) in enumerate(sizes):
        if i not in pair_to:
            continue
        other_h, other_w = sizes[pair_to[i]]
        height, width, area = min(h, other_h), min(w, other_w), h * w
        top, left = (h - height) // 2, (w - width) // 2
        other_top, other_left = (other_h - height) // 2, (other_w - width) // 2
        if cut:
            cut_h, cut_w = int(height * side), int(width * side)
            y, x = random.randrange(height - cut_h + 1), random.randrange(width - cut_w + 1)
            regions += (top + y, left + x, other_top + y, other_left + x, cut_h, cut_w)
            lam_list[i] = 1.0 - cut_h * cut_w / float(area)
        else:
            overlap = height * width
            regions += (top, left, other_top, other_left, height, width)
            lam_list[i] = (area - overlap) / area + lam * overlap / area
    return regions, lam_list
