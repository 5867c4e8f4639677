"""``draw_variants`` in plain PyTorch: the specification of docs/drawing.md, step by step.

Every backend gives the same bits. Values on a device are never read on the host, so every variant
is drawn for every unit, and the one that was chosen is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codes import (
    BATCH,
    CUTMIX,
    CUTMIX_SEG,
    DRAW_BANDS,
    DRAW_MODE,
    DRAW_PLACE,
    DRAW_SHAPE,
    DRAW_SQUARE,
    FMIX,
    GMIX,
    GRIDMIX,
    HMIX,
    MASK_IDENTITY,
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
    MASK_THRESHOLD,
    MIXUP,
    PAIR,
    RESIZEMIX,
    SMOOTHMIX,
    SPECMIX,
    STATE_VERSION,
    STEP_WORD,
    VARIANT_NUMBERS,
    VERSION_WORD,
)
from ..op_checks import check_draw_variants
from .draw import area_weights, drawn_beta, drawn_boxes, drawn_partners, label_weight
from .fmix import fmix_tables
from .random import (
    EXP_LIMIT,
    Words,
    below,
    exp_negative,
    happens,
    log,
    short_uniform,
    square_root,
)
from .stream import Stream

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


def draw_variants(
    state: Tensor,  # [4]
    settings: Tensor,  # [1 + 10·M]
    labels: Tensor | None,  # [B]
    partner: Tensor | None,  # [B]
    kinds: Sequence[int],  # [M]
    batch_size: int,
    height: int,
    width: int,
    rank: int,
    per: int,
    pairing: int,
    correct_lam: bool,
    symmetric: bool,
) -> tuple[Tensor, ...]:
    sizes = batch_size, height, width, rank
    check_draw_variants(state, settings, labels, partner, kinds, *sizes, per, pairing)
    device = state.device
    numbers = settings.to(device, torch.float64)
    stream = Stream(state)
    i = torch.arange(batch_size, device=device)
    partner = drawn_partners(stream, labels, partner, i, per, pairing)
    index = torch.zeros(1, dtype=torch.int64, device=device)
    if per != BATCH:
        index = torch.minimum(i, partner) if per == PAIR else i
    draws = torch.arange(DRAW_BANDS + 1, device=device)
    words = stream.words(index, draws[:, None])

    records = numbers[1:].view(-1, VARIANT_NUMBERS)
    passed = ~happens(words[1][DRAW_MODE][:, None], records[:, 0])  # [U, M]
    chosen = passed.cumprod(1).sum(1)  # the first whose running sum lies above the word
    mixed = happens(words[0][DRAW_MODE], numbers[0]) & (chosen < len(kinds))
    record = records[chosen.clamp(max=len(kinds) - 1)]  # [U, 10]
    alpha = record[:, 1]
    lam = drawn_beta(stream, index, torch.where(alpha > 0, alpha, 1.0), words)
    if symmetric:
        lam = torch.where(lam[:, :1] < lam[:, 1:], lam.flip(1), lam)
    own = record[:, 2:].unbind(1)
    unit = Unit(stream, index, words, lam, alpha, own, height, width, rank, correct_lam)

    untouched = 1.0 - torch.arange(2, dtype=torch.float64, device=device)
    count = len(index)
    fields: dict[str, Tensor] = {
        "weight": untouched.expand(count, 2),
        "blend": untouched.expand(count, 2),
        "box": i.new_zeros(count, 4),
        "code": i.new_zeros(count),
        "threshold": untouched.new_zeros(count, dtype=torch.float32),
        "rows": untouched.new_zeros(count, rank, height, dtype=torch.float32),
        "columns": untouched.new_zeros(count, rank, width, dtype=torch.float32),
        "resize_box": i.new_zeros(count, 4),
    }
    for kind in sorted(set(kinds)):
        is_kind = torch.zeros_like(mixed)
        for k, other in enumerate(kinds):
            is_kind = is_kind | (mixed & (chosen == k)) if other == kind else is_kind
        drawn = DRAWS[kind](unit)
        for name, before in fields.items():
            after = getattr(drawn, name)
            if after is None:
                continue
            if isinstance(after, Tensor) and after.ndim == 3:  # the other products are 0
                missing = after.new_zeros(count, rank - after.shape[1], after.shape[2])
                after = torch.cat((after, missing), 1)
            here = is_kind.view(-1, *[1] * (before.ndim - 1))
            fields[name] = torch.where(here, after, before)

    # A device cannot raise, but weights of NaN cannot be overlooked. The step does not advance.
    known = state[VERSION_WORD] == STATE_VERSION
    mixes = partner != i
    result = []
    for name, t in fields.items():
        if name in ("weight", "blend"):
            t = torch.where(mixes[:, None], t.expand(batch_size, 2), untouched)
            t = label_weight(t) if name == "weight" else t
            t = torch.where(known, t, float("nan"))
        elif name not in ("threshold", "rows", "columns"):
            alone = ~(mixes & known).view(-1, *[1] * (t.ndim - 1))
            t = t.expand(batch_size, *t.shape[1:]).masked_fill(alone, 0).int()
        result.append(t)
    if RESIZEMIX not in kinds:
        result[-1] = result[-1][:0]
    state[STEP_WORD].add_(known)
    return (partner.int(), *result)


# ------------------------------------------------------------------ boxes


def _mixup(u: Unit) -> Drawn:
    return Drawn(u.lam, u.lam)


def _cutmix(u: Unit) -> Drawn:
    low, high = u.numbers[:2]
    size = u.height, u.width
    starts, stops = drawn_boxes(u.words, square_root(u.lam[:, 1]), size, low, high)
    weight = area_weights(starts, stops, size)
    weight = torch.where(((high > 0) | u.correct_lam)[:, None], weight, u.lam)
    return Drawn(weight, box=torch.cat((starts, stops), 1))


def _hmix(u: Unit) -> Drawn:
    """A box of a part of 1-λ; outside it a blend, so that the whole has the share λ."""
    scale = square_root(u.lam[:, 1]) * square_root(u.numbers[0])
    zero = torch.zeros_like(scale)
    starts, stops = drawn_boxes(u.words, scale, (u.height, u.width), zero, zero)
    area = (stops[:, 0] - starts[:, 0]).double() * (stops[:, 1] - starts[:, 1]).double()
    outside = u.total - area
    own, other = u.lam[:, 0] * u.total, (u.lam[:, 1] * u.total - area).clamp(min=0.0)
    blend = torch.stack((own, other), 1) / torch.where(outside > 0, outside, 1.0)[:, None]
    untouched = 1.0 - torch.arange(2, dtype=torch.float64, device=own.device)
    blend = torch.where((outside > 0)[:, None], blend, untouched)
    return Drawn(u.lam, blend, torch.cat((starts, stops), 1))


def _resizemix(u: Unit) -> Drawn:
    """A place for the whole partner, resized by τ."""
    low, high = u.numbers[:2]
    own = u.lam[:, 0]
    tau = u.between(0, u.shape(0))
    tau = torch.where((u.alpha > 0) & (own >= low) & (own <= high), own, tau)
    starts, stops = [], []
    for axis, n in enumerate((u.height, u.width)):
        side = _whole(tau * float(n), n)
        start = torch.minimum((below(u.place(axis), n) - side // 2).clamp(min=0), n - side)
        starts.append(start)
        stops.append(start + side)
    weight = area_weights(torch.stack(starts, 1), torch.stack(stops, 1), (u.height, u.width))
    return Drawn(weight, resize_box=torch.stack((*starts, *stops), 1))


def _whole(x: Tensor, most: Tensor | int) -> Tensor:
    """x without its fraction, in [0, most]."""
    return torch.where(x > 0.0, x, 0.0).clamp(max=2.0**40).long().clamp(max=most)


# ------------------------------------------------------------------ masks of 0 and 1


def _counted(u: Unit, partners: Tensor) -> Tensor:
    """The label weights [U, 2] where ``partners`` pixels show the partner."""
    area = partners.double()
    return torch.stack(((u.total - area) / u.total, area / u.total), 1)


def _gridmix(u: Unit) -> Drawn:
    """Holes in a grid, in a part of the image."""
    area = (u.between(4, u.shape(2)) * u.total).trunc()
    aspect = u.between(6, u.shape(3))
    crop_w = _whole(square_root(area / aspect), u.width)
    crop_h = _whole(crop_w.double() * aspect, u.height)
    x0, y0 = below(u.place(1), u.width - crop_w), below(u.place(0), u.height - crop_h)
    low, high = (_whole(n, u.width) for n in u.numbers[:2])
    holes = torch.minimum(low + below(u.shape(0), (high - low).clamp(min=0) + 1), crop_w // 2)
    holes = holes.clamp(min=1)
    period_x = ((crop_w + holes - 1) // holes).clamp(min=1)
    period_y = _whole(period_x.double() * u.between(2, u.shape(1)), u.height).clamp(min=1)
    scale = square_root(u.lam[:, 1])
    tables, count = [], torch.ones_like(x0)
    for n, start, crop, period in (
        (u.height, y0, crop_h, period_y),
        (u.width, x0, crop_w, period_x),
    ):
        hole = _whole(period.double() * scale, n).clamp(min=1)
        hole = torch.minimum(hole, period - 1)
        at = torch.arange(n, device=start.device) - start[:, None]
        inside = (at >= 0) & (at < crop[:, None])
        tables.append((inside & (at % period[:, None] < hole[:, None])).float()[:, None])
        count = count * (crop // period * hole + torch.minimum(crop % period, hole))
    code = MASK_SEPARABLE + MASK_IDENTITY + MASK_INVERT
    return Drawn(_counted(u, count), code=code, rows=tables[0], columns=tables[1])


def _specmix(u: Unit) -> Drawn:
    """Bands of frequencies (rows) and times (columns) that show the partner."""
    tables, count = [], torch.ones_like(u.index)
    for axis, n in enumerate((u.height, u.width)):
        band = _whole(u.numbers[0] * float(n), n)
        bands = below(u.shape(axis), _whole(u.numbers[1 + axis], 2) + 1)
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


def _cutmix_seg(u: Unit) -> Drawn:
    """Boxes of a given area and any form; where an odd number of them lies, the partner shows."""
    boxes = _whole(u.numbers[2], u.rank).clamp(min=1)
    starts, stops, rows, columns = [], [], [], []
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
            length = _whole(side * float(n) + 0.5, n)
            low = _whole((n - length).double() * short_uniform(word) + 0.5, n)
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


def _smoothmix(u: Unit) -> Drawn:
    size = torch.full((), u.total, dtype=torch.float64, device=u.index.device)
    sigma = u.between(0, u.shape(0)) * square_root(size)
    spread = sigma * sigma * 2.0
    exponents = []
    for axis, n in enumerate((u.height, u.width)):
        centre = (n * 0.5 - 0.5) + (below(u.place(axis), n) - n // 2).double()
        distance = torch.arange(n, device=centre.device) - centre[:, None]
        exponents.append(distance * distance / spread[:, None])
    return _bell(u, exponents, True)


def _gmix(u: Unit) -> Drawn:
    own, other = u.lam.unbind(1)
    spread = (torch.minimum(own, other) * u.total).clamp(min=1e-300)
    exponents = []
    for axis, n in enumerate((u.height, u.width)):
        at = torch.arange(n, device=own.device)
        distance = (at - below(u.place(axis), n)[:, None]).double()
        exponents.append(distance * distance * math.pi / spread[:, None])
    return _bell(u, exponents, own >= 0.5)


def _fmix(u: Unit) -> Drawn:
    size = u.height, u.width
    ceils = u.shape(0) < 1 << 31
    tables = fmix_tables(u.stream, u.index, size, u.numbers[0], u.lam[:, 0], ceils)
    rows, columns, threshold = tables
    code = MASK_SEPARABLE + MASK_THRESHOLD
    return Drawn(u.lam, code=code, threshold=threshold, rows=rows, columns=columns)


DRAWS: dict[int, Callable[[Unit], Drawn]] = {
    MIXUP: _mixup,
    CUTMIX: _cutmix,
    HMIX: _hmix,
    GRIDMIX: _gridmix,
    SMOOTHMIX: _smoothmix,
    GMIX: _gmix,
    FMIX: _fmix,
    SPECMIX: _specmix,
    CUTMIX_SEG: _cutmix_seg,
    RESIZEMIX: _resizemix,
}
