"""timm's draws from NumPy's global generator: the same numbers in the same order.

What is here, for :class:`~fused_mixup.timm.Mixup` and its collate function (``mix`` is either):

    check_draws(mix, shape, per_sample)  raises before anything is drawn; samples [C, …, H, W]
    Drawn(lam, cut, box)               what was drawn: one row per sample, or one for a batch
    draw_batch(mix, (h, w))         -> Drawn of one row
    draw_rows(mix, n, (h, w))       -> Drawn of n rows
    drawn.mirror(batch_size)        -> pair mode: B rows from those of B // 2 pairs
    drawn.pad(batch_size)           -> half mode: B rows, those beyond n not mixed

and their parts ``params_per_batch``, ``params_per_elem``, ``draw_box``, ``draw_boxes``. Boxes are
(y0, x0, y1, x1), half-open, empty where nothing is cut. Nothing is drawn that timm does not draw,
so the generator is left in the same state.
"""

# ruff: noqa: NPY002  (the legacy generator is the one that timm draws from)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Size = Sequence[int]  # H, W


class MixSettings(Protocol):
    """The attributes of :class:`~fused_mixup.timm.Mixup` (and its collate function) for draws."""

    mixup_alpha: float
    cutmix_alpha: float
    cutmix_minmax: Sequence[float] | None
    mix_prob: float
    switch_prob: float
    correct_lam: bool
    mixup_enabled: bool
    _odd: int


@dataclass(frozen=True)
class Drawn:
    """The parameters of n samples, or of a whole batch in one row.

    Attributes:
        lam: weight of the sample's own label, of the area really pasted where it is corrected:
            float32 [n], or float64 [1] for a whole batch.
        cut: bool [n], rows where a box is pasted and nothing is blended.
        box: int32 [n, 4], (y0, x0, y1, x1); zeros where nothing is cut.

    1-λ is taken in the dtype of ``lam``.
    """

    lam: np.ndarray
    cut: np.ndarray
    box: np.ndarray

    @property
    def per_batch(self) -> bool:
        """Whether this is one row, in float64, for a whole batch."""
        return self.lam.dtype == np.float64

    def mirror(self, batch_size: int) -> Drawn:
        """Pair mode: samples i and B-1-i share row i; an odd one in the middle is not mixed."""
        middle = _identity_rows(batch_size - 2 * len(self.lam))
        return _concatenate(self, middle, Drawn(self.lam[::-1], self.cut[::-1], self.box[::-1]))

    def pad(self, batch_size: int) -> Drawn:
        """Half mode: samples beyond those drawn for are not mixed."""
        return _concatenate(self, _identity_rows(batch_size - len(self.lam)))


def _identity_rows(n: int) -> Drawn:
    return Drawn(np.ones(n, np.float32), np.zeros(n, bool), np.zeros((n, 4), np.int32))


def _concatenate(*parts: Drawn) -> Drawn:
    return Drawn(
        np.concatenate([p.lam for p in parts]),
        np.concatenate([p.cut for p in parts]),
        np.concatenate([p.box for p in parts]),
    )


def check_draws(mix: MixSettings, shape: Sequence[int], per_sample: bool) -> None:
    """Refuse what timm refuses while it draws, for samples of ``shape``, with its exceptions."""
    if not (mix.mixup_enabled and (per_sample or mix.mix_prob > 0)):
        return
    if not (mix.mixup_alpha > 0 or mix.cutmix_alpha > 0):
        raise AssertionError(
            f"mixup_alpha, cutmix_alpha: expected one of them > 0, got {mix.mixup_alpha} and "
            f"{mix.cutmix_alpha}; to switch mixing off set mixup_enabled = False"
        )
    may_cut = mix.cutmix_alpha > 0 and (mix.switch_prob > 0 or not mix.mixup_alpha > 0)
    if not (may_cut and mix.mix_prob > 0):
        return
    if len(shape) < 3:
        raise IndexError(
            f"x: expected images [B, C, H, W] (or more dims) for CutMix, got samples of shape "
            f"{list(shape)}; set cutmix_alpha=0 for MixUp alone"
        )
    h, w = shape[-2:]
    if h < 1 or w < 1:
        raise ValueError(f"x: expected images of at least 1x1 for CutMix, got {h}x{w}")
    if mix.cutmix_minmax is not None:
        low, high = mix.cutmix_minmax
        if int(h * low) >= int(h * high) or int(w * low) >= int(w * high):
            raise ValueError(
                f"cutmix_minmax: expected bounds at least a pixel apart on {h}x{w} images, got "
                f"{low} and {high}; set them wider apart"
            )


# ------------------------------------------------------------------ λ, and whether to cut


def params_per_batch(mix: MixSettings) -> tuple[float, bool]:
    """λ and whether it is CutMix, for the whole batch; (1.0, False) where nothing is mixed."""
    if not mix.mixup_enabled or not np.random.rand() < mix.mix_prob:
        return 1.0, False
    blends, cuts = mix.mixup_alpha > 0, mix.cutmix_alpha > 0
    cut = bool(np.random.rand() < mix.switch_prob) if blends and cuts else cuts
    alpha = mix.cutmix_alpha if cut else mix.mixup_alpha
    return float(np.random.beta(alpha, alpha)), cut


def params_per_elem(mix: MixSettings, n: int) -> tuple[np.ndarray, np.ndarray]:
    """λ float32 [n], 1 where a row is not mixed, and bool [n], whether it would be cut."""
    ones, cut = np.ones(n, np.float32), np.zeros(n, bool)
    if not mix.mixup_enabled:
        return ones, cut
    blends, cuts = mix.mixup_alpha > 0, mix.cutmix_alpha > 0
    if blends and cuts:
        cut = np.random.rand(n) < mix.switch_prob
        cut_lam = np.random.beta(mix.cutmix_alpha, mix.cutmix_alpha, size=n)
        blend_lam = np.random.beta(mix.mixup_alpha, mix.mixup_alpha, size=n)
        lam = np.where(cut, cut_lam, blend_lam)
    elif blends:
        lam = np.random.beta(mix.mixup_alpha, mix.mixup_alpha, size=n)
    else:
        cut = np.ones(n, bool)
        lam = np.random.beta(mix.cutmix_alpha, mix.cutmix_alpha, size=n)
    mixed = np.random.rand(n) < mix.mix_prob
    return np.where(mixed, lam.astype(np.float32), ones), cut


# ------------------------------------------------------------------ boxes


def draw_box(mix: MixSettings, size: Size, lam: float) -> tuple[tuple[int, int, int, int], float]:
    """One box for a λ in float64, and the λ of its area (λ itself where it is not corrected)."""
    h, w = size
    if mix.cutmix_minmax is not None:
        box = _minmax_box(mix.cutmix_minmax, size, mix._odd)
    else:
        scale = float(np.sqrt(1.0 - lam))
        cy, cx = np.random.randint(0, h), np.random.randint(0, w)
        y0, y1 = _span(cy, int(h * scale), h, mix._odd)
        x0, x1 = _span(cx, int(w * scale), w, mix._odd)
        box = int(y0), int(x0), int(y1), int(x1)
    if mix.correct_lam or mix.cutmix_minmax is not None:
        y0, x0, y1, x1 = box
        lam = 1.0 - (y1 - y0) * (x1 - x0) / float(h * w)
    return box, lam


def draw_boxes(mix: MixSettings, size: Size, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A box for each of n λ in float32, int32 [n, 4], and the λ of their areas, float32 [n]."""
    h, w = size
    n = len(lam)
    if mix.cutmix_minmax is not None:
        # One by one: each bound depends on the draw before it, and a draw takes as many words from
        # the generator as it needs to fall inside its bound.
        box = np.array(
            [_minmax_box(mix.cutmix_minmax, size, mix._odd) for _ in range(n)], np.int32
        ).reshape(n, 4)
    else:
        # One call for bounds h, w, h, w, …: the legacy generator draws element by element, just as
        # scalar calls would. Side lengths are float32, as NumPy 2 has it for a float32 scalar.
        center = np.random.randint(0, np.broadcast_to((h, w), (n, 2))) if n else np.zeros((0, 2))
        scale = np.sqrt(1 - lam)
        y0, y1 = _span(center[:, 0], (np.float32(h) * scale).astype(np.int64), h, mix._odd)
        x0, x1 = _span(center[:, 1], (np.float32(w) * scale).astype(np.int64), w, mix._odd)
        box = np.stack((y0, x0, y1, x1), 1).astype(np.int32)
    if mix.correct_lam or mix.cutmix_minmax is not None:
        area = (box[:, 2] - box[:, 0]).astype(np.int64) * (box[:, 3] - box[:, 1])
        lam = (1.0 - area / float(h * w)).astype(np.float32)
    return box, lam


def _span(center: Any, side: Any, size: int, odd: int) -> tuple[Any, Any]:
    """Start and stop of ``side`` elements around ``center``, clipped; numbers or arrays.

    ``odd`` is 1 where an odd side keeps its full length, 0 for older boxes, where it is one less.
    """
    start, stop = center - side // 2, center + (side + odd) // 2
    return np.maximum(start, 0), np.minimum(stop, size)


def _minmax_box(bounds: Sequence[float], size: Size, odd: int) -> tuple[int, int, int, int]:
    """A box of sides between two shares of the image, anywhere inside it."""
    low, high = bounds
    h, w = size
    side_h = np.random.randint(int(h * low), int(h * high))
    side_w = np.random.randint(int(w * low), int(w * high))
    y = np.random.randint(0, h - side_h + odd)
    x = np.random.randint(0, w - side_w + odd)
    return y, x, y + side_h, x + side_w


# ------------------------------------------------------------------ λ and boxes


def draw_batch(mix: MixSettings, size: Size, *, always: bool = False) -> Drawn:
    """One row for the whole batch. ``always``: draw a box even where λ = 1, as collating does."""
    lam, cut = params_per_batch(mix)
    cut = cut and (always or lam != 1)
    box = (0, 0, 0, 0)
    if cut:
        box, lam = draw_box(mix, size, lam)
    return Drawn(np.array([lam]), np.array([cut]), np.array([box], np.int32))


def draw_rows(mix: MixSettings, n: int, size: Size) -> Drawn:
    """One row for each of n samples or pairs; boxes are drawn for those that are cut, in order."""
    lam, cut = params_per_elem(mix, n)
    cut = cut & (lam != 1)
    box = np.zeros((n, 4), np.int32)
    rows = np.flatnonzero(cut)
    if len(rows):
        box[rows], lam[rows] = draw_boxes(mix, size, lam[rows])
    return Drawn(lam, cut, box)
