"""The calls of the ops that mix by masks, for the table of ``gpu_cases.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from cases import BLENDABLE, FLOATS

from fused_mixup import MixPlan, ops
from fused_mixup.codes import (
    BILINEAR,
    MASK_INVERT,
    MASK_PARITY,
    MASK_SEPARABLE,
    MASK_STORED,
    MASK_THRESHOLD,
    NEAREST,
)

PlanOf = Callable[[str, str, int, tuple[int, ...]], MixPlan]
LayOut = Callable[[int, tuple[int, ...], torch.dtype, str], torch.Tensor]
OPS = ("mix_masked", "mix_masked_", "mix_masked_out", "mix_masked_backward")
FORMS = ("separable", "stored", "mixed", "one")
MAPS = (torch.float32, torch.bool, torch.float16, torch.bfloat16, torch.uint8)


def mask_args(form: str, size: int, height: int, width: int, map_dtype: torch.dtype) -> tuple:
    """Masks of this form among samples without one; "one": the same mask for all."""
    separable = [MASK_SEPARABLE + f for f in (0, MASK_THRESHOLD, MASK_INVERT)]
    stored = [MASK_STORED + f for f in (0, MASK_THRESHOLD + MASK_INVERT)]
    turns = {"separable": separable, "stored": stored, "one": [MASK_SEPARABLE + MASK_PARITY]}
    codes = turns.get(form, [0, *separable, *stored])
    rows = min(size, 1) if form == "one" else size
    code = torch.tensor([codes[i % len(codes)] for i in range(rows)], dtype=torch.int32)
    lines = torch.rand(rows, 3, height) / 3, torch.rand(rows, 3, width)
    if form == "one":
        lines = lines[0].mul(3).round(), lines[1].round()
    map = (
        (torch.rand(rows, 7, 5) > 0.5)
        if not map_dtype.is_floating_point
        else torch.rand(rows, 7, 5)
    )
    tensors = (code, torch.rand(rows), *lines, map.to(map_dtype))
    return *(
        t.expand(size, *t.shape[1:]) for t in tensors
    ), BILINEAR if form == "mixed" else NEAREST


def masked_args(
    plan_of: PlanOf, lay_out: LayOut, op: str, size: int, shape: tuple[int, ...],
    dtype: torch.dtype, layout: str, pairing: str, rows: str, form: str, map_dtype: torch.dtype,
) -> tuple:  # fmt: skip
    plan = plan_of(rows, pairing, size, shape[1:])
    x = lay_out(size, shape, dtype, layout)
    mask = mask_args(form, size, *shape[-2:], map_dtype)
    args = (plan.blend, plan.box, plan.rule, *mask)
    partner = plan.partner_or_none
    if op == "mix_masked_backward":
        lists = ops.transpose_pairing(plan.partner) if plan.pairing == "tensor" else (None, None)
        return x, partner, *lists, *args
    if op == "mix_masked_out":
        other = None if rows == "mixup" else lay_out(size + 1, shape, dtype, "transposed")
        return x, other, partner, *args, True, torch.zeros(2 * size, *shape, dtype=dtype)
    return x, partner, *args


def mean_args(form: str, size: int, height: int, width: int, map_dtype: torch.dtype) -> tuple:
    return *mask_args(form, size, height, width, map_dtype), height, width


def mask_cases(plan_of: PlanOf, lay_out: LayOut) -> Iterator[dict]:
    """The arguments of each Case."""
    few, image, f32 = (3, 7, 5), (3, 16, 16), torch.float32
    for op in OPS:
        dtypes = FLOATS if op == "mix_masked_backward" else BLENDABLE
        other = "flip" if op == "mix_masked_" else "permutation"
        grid: list[tuple] = [
            (4, few, f32, "contiguous", "flip", "mixup", "separable", f32, True),  # host rows
            (3, few, f32, "contiguous", other, "both", "mixed", torch.float16, True),
        ]
        for dtype in dtypes:
            for form in FORMS:
                grid += [(33, image, dtype, "contiguous", "flip", "lam", form, f32, False)]
            grid += [(5, image, dtype, "channels_last", "flip", "both", "mixed", f32, False)]
        grid += [(5, few, f32, "offset", "flip", "both", "stored", m, False) for m in MAPS]
        grid += [(n, few, f32, "strided", "self", "both", "mixed", f32, False) for n in (0, 1, 2)]
        if op != "mix_masked_backward":
            grid += [(5, few, f32, "infinite", "flip", "both", "mixed", f32, False)]
        if op != "mix_masked_":  # in place, partners are a rule of pairs
            grid += [
                (9, (3, 20, 33), torch.bfloat16, layout, pairing, "both", "mixed", f32, False)
                for layout in ("contiguous", "channels_last", "transposed")
                for pairing in ("roll", "permutation", "many")
            ]
            grid += [(4, few, f32, "contiguous", "permutation", "boxes", "one", f32, False)]
        for *args, quick in grid:
            size, shape, dtype, layout, pairing, rows, form, map_dtype = args
            sizes = "x".join(map(str, (size, *shape)))
            name = f"{dtype} {sizes} {layout} {pairing} {rows} {form} masks, map {map_dtype}"
            make = partial(masked_args, plan_of, lay_out, op, *args)
            yield {"op": op, "name": name, "make": make, "quick": quick}
    for form in FORMS:
        for size, height, width in ((4, 7, 5), (33, 60, 130), (0, 3, 3), (1, 224, 224)):
            for map_dtype in MAPS if size == 4 else MAPS[:1]:
                yield {
                    "op": "mask_mean",
                    "name": f"{size}x{height}x{width} {form} masks, map {map_dtype}",
                    "make": partial(mean_args, form, size, height, width, map_dtype),
                    "quick": size == 4 and map_dtype == f32 and form == "mixed",
                }
