"""``draw_variants`` in plain PyTorch: the specification of docs/drawing.md, step by step.

Every backend gives the same bits. Values on a device are never read on the host, so every variant
is drawn for every unit, and the one that was chosen is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..codes import (
    BATCH,
    CUTMIX,
    CUTMIX_SEG,
    DRAW_BANDS,
    DRAW_MODE,
    FMIX,
    GMIX,
    GRIDMIX,
    HMIX,
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
from .draw_parts import area_weights, drawn_beta, drawn_boxes, drawn_partners, label_weight
from .fmix import fmix_tables
from .random import (
    Stream,
    below,
    happens,
    square_root,
)
from .variant_masks import Drawn, Unit, cutmix_seg, gmix, gridmix, smoothmix, specmix, whole


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
    samples: Tensor | None = None,  # [B]
) -> tuple[Tensor, ...]:
    sizes = batch_size, height, width, rank
    check_draw_variants(state, settings, labels, partner, kinds, *sizes, per, pairing, samples)
    device = state.device
    numbers = settings.to(device, torch.float64)
    stream = Stream(state)
    i, partner = drawn_partners(stream, labels, partner, batch_size, per, pairing, samples)
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
        side = whole(tau * float(n), n)
        start = torch.minimum((below(u.place(axis), n) - side // 2).clamp(min=0), n - side)
        starts.append(start)
        stops.append(start + side)
    weight = area_weights(torch.stack(starts, 1), torch.stack(stops, 1), (u.height, u.width))
    return Drawn(weight, resize_box=torch.stack((*starts, *stops), 1))


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
    GRIDMIX: gridmix,
    SMOOTHMIX: smoothmix,
    GMIX: gmix,
    FMIX: _fmix,
    SPECMIX: specmix,
    CUTMIX_SEG: cutmix_seg,
    RESIZEMIX: _resizemix,
}
