"""The calls of mix_normalize whose machine code is read, for ``triton_machine_code.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import fused_mixup.triton_kernels as tk
from fused_mixup.plan import MixPlan

_FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def _normalize(
    path: str,  # "from>to": the memory formats of images and result
    plan: MixPlan,
    turned: bool = False,
    erase: str = "",
    first: bool = False,
    size: int = 64,
    channels: int = 3,
    to: torch.dtype = torch.bfloat16,
) -> None:
    batch = plan.batch_size
    x, out = (
        torch.zeros(batch, channels, size, size, dtype=dtype).contiguous(memory_format=_FORMATS[f])
        for f, dtype in zip(path.split(">"), (torch.uint8, to), strict=True)
    )
    flip = torch.zeros(batch, dtype=torch.bool) if turned else None
    boxes = torch.zeros(batch, 1, 4, dtype=torch.int32) if erase else None
    value = torch.zeros(1, 1, 1) if erase == "value" else None
    noise = torch.zeros(batch, dtype=torch.int64) if erase == "noise" else None
    mixing = plan.partner_or_none, plan.blend, plan.box, plan.rule
    constants = [123.7] * channels, [58.4] * channels
    tk.mix_normalize([x], *mixing, *constants, flip, boxes, value, noise, first, out)


def image_cases(full: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, call); ``full`` adds dtypes and layouts."""
    boxes, lam = [[0, 0, 8, 8]] * 8, torch.rand(8)
    uniform = MixPlan.uniform(8, "flip", 0.3)
    drawn = MixPlan.per_sample(lam, torch.randperm(8), box=boxes)
    pairs = MixPlan.per_sample(lam, "flip", box=boxes)
    for path in ("nchw>nchw", "nhwc>nhwc", "nchw>nhwc", "nhwc>nchw"):
        yield f"images flip {path}", lambda p=path: _normalize(p, uniform)
    yield "images drawn", lambda: _normalize("nchw>nhwc", drawn)
    yield "images turned value", lambda: _normalize("nchw>nhwc", drawn, True, "value", True)
    yield "images noise", lambda: _normalize("nchw>nhwc", pairs, erase="noise")
    yield "images five", lambda: _normalize("nhwc>nhwc", drawn, erase="noise", channels=5)
    for batch, share, size in ((8, 0.25, 64), (31, 1 / 3, 48)):
        plan = MixPlan.uniform(batch, "flip", share)
        yield "images again", lambda p=plan, s=size: _normalize("nhwc>nhwc", p, size=s)
    if not full:
        return
    identity = MixPlan.identity(8)
    yield "images plain fp32", lambda: _normalize("nchw>nhwc", identity, to=torch.float32)
    yield "images five nchw>nhwc", lambda: _normalize("nchw>nhwc", drawn, channels=5)
    yield "images five nhwc>nchw", lambda: _normalize("nhwc>nchw", drawn, channels=5)
