"""``draw_plan`` in plain PyTorch: the specification of docs/drawing.md, step by step.

Every backend gives the same bits. Values on a device are never read on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..codes import (
    BATCH,
    CUTMIX_ALPHA,
    DRAW_BOOST,
    DRAW_MODE,
    MINMAX_HIGH,
    MINMAX_LOW,
    MIXUP_ALPHA,
    PAIR,
    PROB,
    SAMPLE,
    STATE_VERSION,
    STEP_WORD,
    SWITCH_PROB,
    VERSION_WORD,
)
from ..op_checks import check_draw
from .draw_parts import area_weights, drawn_beta, drawn_boxes, drawn_partners, label_weight, root
from .random import (
    Stream,
    happens,
)


def draw_plan(
    state: Tensor,  # [4]
    settings: Tensor,  # [6]
    labels: Tensor | None,  # [B]
    partner: Tensor | None,  # [B]
    batch_size: int,
    spatial: Sequence[int],
    per: int,
    pairing: int,
    correct_lam: bool,
    symmetric: bool,
    samples: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_draw(state, settings, labels, partner, batch_size, spatial, per, pairing, samples)
    numbers = settings.to(state.device, torch.float64)
    stream = Stream(state)
    i, partner = drawn_partners(stream, labels, partner, batch_size, per, pairing, samples)
    unit = {BATCH: torch.zeros_like(i), PAIR: torch.minimum(i, partner), SAMPLE: i}[per]

    mixup_alpha, cutmix_alpha = numbers[MIXUP_ALPHA], numbers[CUTMIX_ALPHA]
    can_cut = (cutmix_alpha > 0) & (len(spatial) > 0)
    draws = torch.arange(DRAW_BOOST + 1, device=state.device)
    words = stream.words(unit, draws[:, None])  # each [draws, B]
    switched = happens(words[1][DRAW_MODE], numbers[SWITCH_PROB])
    cut = can_cut & (~(mixup_alpha > 0) | switched)
    alpha = torch.where(cut, cutmix_alpha, mixup_alpha)
    mixed = happens(words[0][DRAW_MODE], numbers[PROB]) & (alpha > 0) & (partner != i)
    cut = cut & mixed

    lam = drawn_beta(stream, unit, torch.where(alpha > 0, alpha, 1.0), words)  # [B, 2]: λ and 1-λ
    if symmetric:
        lam = torch.where(lam[:, :1] < lam[:, 1:], lam.flip(1), lam)
    bounds = numbers[MINMAX_LOW], numbers[MINMAX_HIGH]
    starts, stops = drawn_boxes(words, root(lam[:, 1], len(spatial)), spatial, *bounds)
    area_weight = area_weights(starts, stops, spatial)
    corrected = (numbers[MINMAX_HIGH] > 0) | correct_lam

    untouched = 1.0 - torch.arange(2, dtype=torch.float64, device=state.device)
    blend = torch.where((mixed & ~cut)[:, None], lam, untouched)
    weight = torch.where((cut & corrected)[:, None], area_weight, lam)
    weight = label_weight(torch.where(mixed[:, None], weight, untouched))
    box = torch.where(cut[:, None], torch.cat((starts, stops), 1), 0).int()

    # A device cannot raise, but weights of NaN cannot be overlooked. The step does not advance.
    known = state[VERSION_WORD] == STATE_VERSION
    blend, weight = (torch.where(known, w, float("nan")) for w in (blend, weight))
    state[STEP_WORD].add_(known)
    return partner.int(), weight, blend, box
