"""The arguments of some ops, for ``smoke.py``."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fused_mixup.codes import (
    FLIP,
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
    MASK_STORED,
    MASK_THRESHOLD,
    SELF,
)

BATCH = 4
Arguments = dict[str, object]


def mask_inputs(
    rand: Callable, x: torch.Tensor, plans: list[Arguments], lists: list[Arguments]
) -> dict[str, list[Arguments]]:
    batch, height, width = x.shape[0], *x.shape[-2:]
    codes = [0, MASK_SEPARABLE + MASK_THRESHOLD, MASK_STORED, MASK_STORED + MASK_PARITY]
    masks: list[Arguments] = [
        {
            "code": torch.tensor(code, dtype=torch.int32, device=x.device),
            "threshold": rand(batch),
            "rows": rand(batch, 3, height),
            "columns": rand(batch, 3, width),
            "map": rand(batch, 2, 3) > 0.5 if interpolation == 0 else rand(batch, 2, 3),
            "interpolation": interpolation,
        }
        for code, interpolation in (
            (codes, 0),
            ([MASK_STORED + MASK_INVERT, MASK_SEPARABLE, 0, MASK_STORED], 1),
        )
    ]
    pairs = list(zip(plans, masks, strict=True))
    calls: dict[str, list[Arguments]] = {
        "mix_masked": [{"x": x, **plan, **mask} for plan, mask in pairs],
        "mix_masked_out": [
            {
                "x": x,
                "other": x.flip(0) if clean else None,
                **plan,
                **mask,
                "clean": clean,
                "out": x.new_zeros(2 * batch if clean else batch, *x.shape[1:]),
            }
            for clean, (plan, mask) in zip((False, True), pairs, strict=True)
        ],
        "mix_masked_backward": [
            {"grad": x, **plan, **more, **mask}
            for (plan, mask), more in zip(pairs, lists, strict=True)
        ],
        "mix_masked_": [
            {"x": x, **plan, **mask, "partner": None, "pairing": pairing}
            for (plan, mask), pairing in zip(pairs, (FLIP, SELF), strict=True)
        ],
        "mask_mean": [{**mask, "height": height, "width": width} for mask in masks],
    }
    return calls


def box_inputs(rand: Callable, plans: list[Arguments], device: str) -> dict[str, list[Arguments]]:
    low = 4 * rand(BATCH, 3, 2)
    boxes = torch.cat((low, low + 4 * rand(BATCH, 3, 2)), -1)
    counts = (torch.tensor([3, 0, 2, 1], device=device), None)
    calls: dict[str, list[Arguments]] = {}
    calls["mix_boxes"] = [
        {"boxes": boxes, "count": count, **plan, "min_visible": 0.2}
        for plan, count in zip(plans, counts, strict=True)
    ]
    if device == "cpu":
        packed = {"boxes": boxes.flatten(0, 1)[:9], "counts": [3, 0, 4, 2], "min_visible": 0.2}
        calls["mix_boxes_packed"] = [{**packed, **plan} for plan in plans]
    return calls
