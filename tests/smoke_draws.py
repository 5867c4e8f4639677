"""The calls of the ops that draw, for smoke.py."""

from __future__ import annotations

import torch
from torch import Tensor

from fused_mixup.codes import (
    CONST,
    CROSS_CLASS,
    FMIX,
    GAUSSIAN,
    PIXEL,
    RAND,
    RESIZEMIX,
    TENSOR,
    TOPHAT,
)


def draw_inputs(state: Tensor, labels: Tensor, shuffled: Tensor) -> dict[str, list[dict]]:
    """op -> its calls, for a state [4], labels [B] and partners [B]."""
    calls: dict[str, list[dict]] = {}
    calls["draw_plan"] = [
        {
            "state": state.clone(),
            "settings": torch.tensor([0.8, 1.0, 0.5, 1.0, 0.0, 0.0], dtype=torch.float64),
            "labels": labels if pairing == CROSS_CLASS else None,
            "partner": shuffled if pairing == TENSOR else None,
            "batch_size": len(labels),
            "spatial": [5, 6],
            "per": 2,
            "pairing": pairing,
            "correct_lam": True,
            "symmetric": False,
            "samples": 3 * shuffled if pairing == TENSOR else None,
        }
        for pairing in (TENSOR, CROSS_CLASS)
    ]
    calls["draw_variants"] = [
        {
            "state": state.clone(),
            "settings": torch.tensor(
                [1.0, 0.5, 1.0, *[3.0] * 8, 1.0, 1.0, 0.2, 0.7, *[0.0] * 6], dtype=torch.float64
            ),
            "labels": labels if pairing == CROSS_CLASS else None,
            "partner": shuffled if pairing == TENSOR else None,
            "kinds": [FMIX, RESIZEMIX],
            "batch_size": len(labels),
            "height": 5,
            "width": 6,
            "rank": 3,
            "per": 2,
            "pairing": pairing,
            "correct_lam": True,
            "symmetric": False,
            "samples": 3 * shuffled if pairing == TENSOR else None,
        }
        for pairing in (TENSOR, CROSS_CLASS)
    ]
    calls["draw_erasing"] = [
        {
            "state": state.clone(),
            "settings": torch.tensor([0.7, 0.02, 0.3, 0.3, 3.0], dtype=torch.float64),
            "fill": [0.5, 0.25] if mode == CONST else [],
            "batch_size": len(labels),
            "height": 50,
            "width": 60,
            "max_count": 2,
            "channels": 3,
            "erase_mode": mode,
            "clean": 1,
        }
        for mode in (CONST, RAND, PIXEL)
    ]
    positions = torch.arange(2.0 * len(labels)).view(-1, 2)
    calls["draw_neighbors"] = [
        {
            "state": state.clone(),
            "settings": torch.tensor([1.5], dtype=torch.float64),
            "labels": positions,
            "pool": pool,
            "kernel": kernel,
        }
        for kernel, pool in ((GAUSSIAN, None), (TOPHAT, positions[:3] + 0.5))
    ]
    return calls
