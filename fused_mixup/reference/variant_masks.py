"""Masks of samples as ``draw_variants`` draws them: what each variant makes of its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codes import (
    DRAW_BANDS,
    DRAW_PLACE,
    DRAW_SHAPE,
    DRAW_SQUARE,
    MASK_IDENTITY,
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
)
from .random import (
    EXP_LIMIT,
    Stream,
    Words,
    below,
    exp_negative,
    log,
    short_uniform,
    square_root,
)

QUANTUM = 2.0**32  # the means of tables are sums of whole numbers of 2^-32


@dataclass
class Drawn:
    """What a variant draws for U units; fields left out stay as in a row that is not mixed."""

    weight: Tensor | None = None  # [U, 2]
    blend: Tensor | None = None  # [U, 2]
    box: Tensor | None = None  # [U, 4]
    code: Tensor | int = 0  # [U]
    threshold: Tensor | None = None  # [U]
    rows: Tensor | None = None  # [U, R, H]
    columns: Tensor | None = None  # [U, R, W]
    resize_box: Tensor | None = None  # [U, 4]


@dataclass
class Unit:
    """What the draws of a variant read: words, settings and λ of U units."""

    stream: Stream
    index: Tensor  # [U]
    words: Words  # each [draws, U], of the draws up to DRAW_BANDS
    lam: Tensor  # [U, 2], λ and 1-λ
    alpha: Tensor  # [U]
    numbers: Sequence[Tensor]  # eight of the variant, each [U]
    height: int
    width: int
    rank: int
    correct_lam: bool

    @property
    def total(self) -> float:
        return float(self.height) * float(self.width)

    def place(self, axis: int) -> Tensor:
        return self.words[axis][DRAW_PLACE]

    def shape(self, i: int) -> Tensor:
        return self.words[i][DRAW_SHAPE]

    def between(self, i: int, word: Tensor) -> Tensor:
        """A number between the i-th and the next setting of the variant."""
        low, high = self.numbers[i : i + 2]
        return low + (high - low) * short_uniform(word)


def whole(x: Tensor, most: Tensor | int) -> Tensor:
    """x without its fraction, in [0, most]."""
    return torch.where(x > 0.0, x, 0.0).clamp(max=2.0**40).long().clamp(max=most)


# ------------------------------------------------------------------ masks of 0 and 1


def _counted(u: Unit, partners: Tensor) -> Tensor:
    """The label weights [U, 2] where ``partners`` pixels show the partner."""
    area = partners.double()
    return torch.stack(((u.total - area) / u.total, area / u.total), 1)


def gridmix(u: Unit) -> Drawn:
    """Holes in a grid, in a part of the image."""
    area = (u.between(4, u.shape(2)) * u.total).trunc()
    aspect = u.between(6, u.shape(3))
    crop_w = whole(square_root(area / aspect), u.width)
    crop_h = whole(crop_w.double() * aspect, u.height)
    x0, y0 = below(u.place(1), u.width - crop_w), below(u.place(0), u.height - crop_h)
    low, high = (whole(n, u.width) for n in u.numbers[:2])
    holes = torch.minimum(low + below(u.shape(0), (high - low).clamp(min=0) + 1), crop_w // 2)
    holes = holes.clamp(min=1)
    period_x = ((crop_w + holes - 1) // holes).clamp(min=1)
    period_y = whole(period_x.double() * u.between(2, u.shape(1)), u.height).clamp(min=1)
    scale = square_root(u.lam[:, 1])
    tables, count = [], torch.ones_like(x0)
    for n, start, crop, period in (
        (u.height, y0, crop_h, period_y),
        (u.width, x0, crop_w, period_x),
    ):
        hole = whole(period.double() * scale, n).clamp(min=1)
        hole = torch.minimum(hole, period - 1)
        at = torch.arange(n, device=start.device) - start[:, None]
        inside = (at >= 0) & (at < crop[:, None])
        tables.append((inside & (at % period[:, None] < hole[:, None])).float()[:, None])
        count = count * (crop // period * hole + torch.minimum(crop % period, hole))
    code = MASK_SEPARABLE + MASK_IDENTITY + MASK_INVERT
    return Drawn(_counted(u, count), code=code, rows=tables[0], columns=tables[1])


def specmix(u: Unit) -> Drawn:
    """Bands of frequencies (rows) and times (columns) that show the partner."""
    tables, count = [], torch.ones_like(u.index)
    for axis, n in enumerate((u.height, u.width)):
        band = whole(u.numbers[0] * float(n), n)
        bands = below(u.shape(axis), whole(u.numbers[1 + axis], 2) + 1)
        at = torch.arange(n, device=band.device)
        covered = torch.zeros_like(band[:, None] > at)
        for k in range(2):
            start = below(u.words[2 * axis + k][DRAW_BANDS], n - band + 1)[:, None]
            inside = (at >= start) & (at < start + band[:, None])
            covered = covered | (inside & (bands > k)[:, None])
        tables.append((~covered).float()[:, None])
        count = count * (~covered).sum(1)
    weight = _counted(u, u.height * u.width - count)
    code = MASK_SEPARABLE + MASK_IDENTITY
    return Drawn(weight, code=code, rows=tables[0], columns=tables[1])


def cutmix_seg(u: Unit) -> Drawn:
    """Boxes of a given area and any form; where an odd number of them lies, the partner shows."""
    boxes = whole(u.numbers[2], u.rank).clamp(min=1)
    starts: list[list[Tensor]] = []
    stops: list[list[Tensor]] = []
    rows: list[Tensor] = []
    columns: list[Tensor] = []
    for k in range(u.rank):
        prop, form, *places = u.stream.words(u.index, DRAW_SQUARE + k)
        share = u.between(0, prop)
        tall = exp_negative(-log(share) * short_uniform(form))
        part = square_root(1.0 / boxes.double())
        start, stop = [], []
        sides = tall * part, share / tall * part
        for n, side, word, tables in zip(
            (u.height, u.width), sides, places, (rows, columns), strict=True
        ):
            length = whole(side * float(n) + 0.5, n)
            low = whole((n - length).double() * short_uniform(word) + 0.5, n)
            length = torch.where(boxes > k, length, 0)
            at = torch.arange(n, device=low.device)
            inside = (at >= low[:, None]) & (at < (low + length)[:, None])
            tables.append(inside.float())
            start.append(low)
            stop.append(low + length)
        starts.append(start)
        stops.append(stop)
    code = MASK_SEPARABLE + MASK_PARITY + MASK_INVERT
    weight = _counted(u, _odd_area(starts, stops))
    return Drawn(weight, code=code, rows=torch.stack(rows, 1), columns=torch.stack(columns, 1))


def _odd_area(starts: list[list[Tensor]], stops: list[list[Tensor]]) -> Tensor:
    """How many pixels lie in an odd number of boxes: Σ over sets S of them (-2)^(|S|-1) |∩S|."""
    total = torch.zeros_like(starts[0][0])
    for chosen in range(1, 1 << len(starts)):
        members = [k for k in range(len(starts)) if chosen >> k & 1]
        area = torch.full_like(total, (-2) ** (len(members) - 1))
        for axis in range(2):
            low = torch.stack([starts[k][axis] for k in members]).amax(0)
            high = torch.stack([stops[k][axis] for k in members]).amin(0)
            area = area * (high - low).clamp(min=0)
        total = total + area
    return total


# ------------------------------------------------------------------ bells


def _bell(u: Unit, exponents: list[Tensor], inverted: Tensor | bool) -> Drawn:
    """A mask that is a product of e^-t in y and e^-t in x, or 1 minus it; weights by its mean."""
    tables = [torch.where(t <= EXP_LIMIT, exp_negative(t), 0.0).float() for t in exponents]
    means = [(t.double() * QUANTUM).round().long().sum(1).double() / QUANTUM for t in tables]
    mean = means[0] * means[1] / u.total
    weight = torch.stack((mean, 1.0 - mean), 1)
    inverted = torch.as_tensor(inverted, device=mean.device).expand_as(mean)
    weight = torch.where(inverted[:, None], weight.flip(1), weight)
    code = MASK_SEPARABLE + MASK_IDENTITY + MASK_INVERT * inverted
    return Drawn(weight, code=code, rows=tables[0][:, None], columns=tables[1][:, None])


def smoothmix(u: Unit) -> Drawn:
    size = torch.full((), u.total, dtype=torch.float64, device=u.index.device)
    sigma = u.between(0, u.shape(0)) * square_root(size)
    spread = sigma * sigma * 2.0
    exponents = []
    for axis, n in enumerate((u.height, u.width)):
        centre = (n * 0.5 - 0.5) + (below(u.place(axis), n) - n // 2).double()
        distance = torch.arange(n, device=centre.device) - centre[:, None]
        exponents.append(distance * distance / spread[:, None])
    return _bell(u, exponents, True)


def gmix(u: Unit) -> Drawn:
    own, other = u.lam.unbind(1)
    spread = (torch.minimum(own, other) * u.total).clamp(min=1e-300)
    exponents = []
    for axis, n in enumerate((u.height, u.width)):
        at = torch.arange(n, device=own.device)
        distance = (at - below(u.place(axis), n)[:, None]).double()
        exponents.append(distance * distance * math.pi / spread[:, None])
    return _bell(u, exponents, own >= 0.5)
