"""The calls of ``mix_normalize``, for the table of ``gpu_cases.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fused_mixup import MixPlan

PlanOf = Callable[[str, str, int, tuple[int, int]], MixPlan]
MEAN, STD = (123.675, 116.28, 103.53, 120.0), (58.395, 57.12, 57.375, 60.0)
BF16, F16, F32, U8 = torch.bfloat16, torch.float16, torch.float32, torch.uint8
# Memory of images and of results: NCHW, NHWC, lines with gaps, turned by 90 degrees, no alignment.
LAYOUTS = ("NCHW", "NHWC", "cropped", "turned", "offset")


def lay_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The values of x [B, C, H, W] in this layout."""
    if layout == "NHWC":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "turned":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    batch, channels, height, width = x.shape
    if layout == "cropped":
        wide = torch.zeros(batch, channels, height + 1, width + 16, dtype=x.dtype)
        return wide[:, :, 1:, 16:].copy_(x)
    if layout == "offset":
        return torch.zeros(x.numel() + 3, dtype=x.dtype)[3:].view(x.shape).copy_(x)
    return x


def normalize_args(
    plan_of: PlanOf, shape: tuple[int, int, int, int], dtypes: tuple[torch.dtype, torch.dtype],
    layouts: tuple[str, str], pairing: str, rows: str, erase: str, first: bool,
) -> tuple:  # fmt: skip
    size, channels, height, width = shape
    plan = plan_of(rows, pairing, size, (height, width))
    images = lay_out(torch.randint(0, 256, shape).to(dtypes[0]), layouts[0])
    out = lay_out(torch.zeros(shape, dtype=dtypes[1]), layouts[1])
    flip = None if erase == "none" else torch.rand(size) < 0.5
    boxes = values = keys = None
    if erase != "none":
        ends = torch.rand(2, size, 2, 2) * (torch.tensor([height, width]) + 1)
        boxes = torch.cat((ends.amin(0), ends.amax(0)), 2).int()
    if erase == "values":
        values = torch.randn(size, 2, channels)
    elif erase == "noise":
        keys = torch.randint(-(2**63), 2**63 - 1, (size,))
    constants = ([MEAN[c % 4] for c in range(channels)], [STD[c % 4] for c in range(channels)])
    mixing = (plan.partner_or_none, plan.blend, plan.box, plan.rule)
    return [images], *mixing, *constants, flip, boxes, values, keys, first, out


def normalize_cases(plan_of: PlanOf) -> Iterator[dict]:
    """The arguments of each Case."""
    image, few = (5, 3, 6, 32), (4, 3, 5, 16)
    nchw, nhwc = ("NCHW", "NHWC"), ("NHWC", "NHWC")
    grid: list[tuple] = [
        # Triton's interpreter, which runs these, does not round to bfloat16.
        (few, (U8, F16), nchw, "flip", "mixup", "none", False, True),  # host rows
        (few, (U8, F16), nhwc, "permutation", "both", "values", False, True),
        (few, (U8, F32), nchw, "flip", "both", "noise", True, True),
    ]
    grid += [
        (image, (given, made), nchw, "flip", "both", "values", first, False)
        for given in (U8, F16, BF16, F32)
        for made in (F16, BF16, F32)
        for first in (False, True)
    ]
    grid += [
        (image, (U8, BF16), (given, made), pairing, "boxes", "noise", False, False)
        for given in LAYOUTS
        for made in LAYOUTS
        for pairing in ("flip", "many")
    ]
    for channels in (1, 2, 4, 7):
        for width in (32, 33):
            shape = (3, channels, 9, width)
            grid += [(shape, (U8, F16), nhwc, "roll", "both", "noise", False, False)]
    for size in (0, 1, 2, 33):
        grid += [((size, 3, 20, 64), (U8, BF16), nchw, "flip", "lam", "values", True, False)]
    grid += [
        ((8, 3, 224, 224), (U8, BF16), nchw, p, "both", "noise", False, False)
        for p in ("flip", "many")
    ]
    for *args, quick in grid:
        shape, dtypes, layouts, pairing, rows, erase, first = args
        sizes, names = "x".join(map(str, shape)), " to ".join(map(str, dtypes))
        name = f"{names} {sizes} {'-'.join(layouts)} {pairing} {rows} erase {erase}"
        name += " first" * first
        make = partial(normalize_args, plan_of, *args)
        yield {"op": "mix_normalize", "name": name, "make": make, "quick": quick}
