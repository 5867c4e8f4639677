"""Random calls of mix_rectangles and mix_patches: arguments of the ops, and layouts of images."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from cases import layouts, values

from fused_mixup.codes import RAW, RESIZE_ALIGNED, RESIZE_BILINEAR, RESIZE_NEAREST

BLENDABLE = (torch.float32, torch.uint8, torch.float16, torch.bfloat16, torch.float64)
MOVABLE = (torch.int64, torch.bool, torch.int16, torch.int32, torch.complex128)
WAYS = (RAW, RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_ALIGNED)
SAMPLES = ([3, 7, 9], [3, 20, 33], [1, 17], [2, 3, 6, 8], [5, 5], [4, 1, 40], [3, 16, 16])
SAMPLES += ([16, 3, 16], [2, 9, 32])


def spread(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in one of the memory layouts that its shape allows; most often contiguous."""
    if rng.random() < 0.4:
        return tensor.clone()
    return rng.choice(list(layouts(tensor)))[1]


def random_box(rng: random.Random, height: int, width: int, least: int = 0) -> list[int]:
    def ends(n: int) -> tuple[int, int]:
        low = rng.randint(0, n - least)
        return low, rng.randint(low + least, n)

    (top, bottom), (left, right) = ends(height), ends(width)
    return [top, left, bottom, right]


def fit(rng: random.Random, at: list[int], to: list[int], extent: tuple[int, int]) -> None:
    """Make the part ``at`` of a source as large as the place ``to``, cut where it is larger."""
    for axis, n in enumerate(extent):
        length = min(to[2 + axis] - to[axis], n)
        to[2 + axis] = to[axis] + length
        at[axis] = rng.randint(0, n - length)
        at[2 + axis] = at[axis] + length


def result_like(rng: random.Random, x: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Memory for a result, full of another number, in some layout."""
    return spread(rng, torch.full(shape, 77, dtype=x.dtype))


def rectangle_call(rng: random.Random, dtype: torch.dtype, wild: bool = False) -> tuple:
    """Arguments of mix_rectangles; ``wild`` ones are out of every range, and only clamped."""
    shape = rng.choice(SAMPLES)
    batch, rows = rng.choice((1, 2, 5)), rng.choice((1, 1, 2, 4, 0))
    height, width = shape[-2:]
    if len(shape) == 2:
        shape = [1, *shape]
        height, width = shape[-2:]
    x = spread(rng, values((batch, *shape), dtype))
    other = None
    if rng.random() < 0.4:
        other = spread(rng, values((rng.choice((1, 3)), *shape), dtype))
    fill = rng.choice((None, 3.0, 0.0))
    if dtype == torch.bool and fill is not None:
        fill = 1.0
    if dtype.is_complex:
        fill = None
    size = height, width
    if fill is not None and rng.random() < 0.6:
        size = rng.randint(1, 2 * height), rng.randint(1, 2 * width)
    blends = dtype in BLENDABLE
    resample = rng.choice(
        (RAW, RESIZE_NEAREST, RESIZE_BILINEAR, RESIZE_ALIGNED) if blends else (RAW, RESIZE_NEAREST)
    )
    source = [[rng.randrange(len(x if other is None else other)) for _ in range(rows)] for _ in x]
    box = [[random_box(rng, *size) for _ in range(rows)] for _ in x]
    part = [[random_box(rng, height, width, 1) for _ in range(rows)] for _ in x]
    if resample == RAW and not wild:
        for parts, places in zip(part, box, strict=True):
            for at, to in zip(parts, places, strict=True):
                fit(rng, at, to, (height, width))
    scale = None
    if resample in (RESIZE_NEAREST, RESIZE_BILINEAR) and rng.random() < 0.4:
        steps = [[[rng.uniform(0.2, 5.0) for _ in range(2)] for _ in range(rows)] for _ in x]
        scale = torch.tensor(steps, dtype=torch.float32).view(batch, rows, 2)
    if wild:
        far = (-(2**31), -5, 0, 3, 10**6, 2**31 - 1)
        source = [[rng.choice(far) for _ in range(rows)] for _ in x]
        box = [[[rng.choice((*far, b)) for b in of] for of in row] for row in box]
        part = [[[rng.choice((*far, b)) for b in of] for of in row] for row in part]
        if scale is not None and scale.numel():
            scale.view(-1)[::3] = rng.choice((-1.0, 0.0, float("nan"), float("inf"), 1e30))
    boxes = (torch.tensor(b, dtype=torch.int32).view(batch, rows, 4) for b in (part, box))
    chosen = torch.tensor(source, dtype=torch.int32).view(batch, rows)
    out = result_like(rng, x, [batch, *shape[:-2], *size])
    return x, other, chosen, *boxes, scale, resample, fill, out


def patch_call(rng: random.Random, dtype: torch.dtype, wild: bool = False) -> tuple:
    """Arguments of mix_patches."""
    batch, (gh, ph), (gw, pw) = (
        rng.choice((1, 2, 5)),
        *(rng.choice(((1, 5), (2, 3), (3, 4), (2, 8), (4, 4), (5, 1), (2, 16))) for _ in range(2)),
    )
    middle = rng.choice(([3], [1], [2, 3], []))
    x = spread(rng, values((batch, *middle, gh * ph, gw * pw), dtype))

    def side(must: bool) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        grid = rng.choice(((gh, gw), (1, gw), (gh, 1)))
        cells = grid[0] * grid[1]
        low, high = (-(2**31), 2**31) if wild else (-1, cells)
        index = torch.tensor([rng.randrange(low, high) for _ in range(batch * cells)])
        index = index.int().view(batch, *grid) if rng.random() < 0.7 else None
        low, high = (-(2**31), 2**31) if wild else (0, batch)
        shape = rng.choice(((batch,), (batch, *grid)))
        n = batch * (cells if len(shape) == 3 else 1)
        sample = torch.tensor([rng.randrange(low, high) for _ in range(n)]).int().view(shape)
        return (sample if must or rng.random() < 0.5 else None), index

    mask = None
    partner = partner_index = None
    sample, index = side(False)
    if dtype in BLENDABLE and rng.random() < 0.6:
        grid = rng.choice(((gh * ph, gw * pw), (1, 1), (gh, gw), (ph, 1)))
        mask = torch.rand(batch, *grid) * 2 - 0.5
        mask = torch.where(mask < 0.2, 0.5, mask).clamp(0, 1)
        partner, partner_index = side(True)
    return x, sample, index, partner, partner_index, mask, result_like(rng, x, list(x.shape))


def random_results(calls: int, seed: int, ops: object, reference: object) -> Iterator[tuple]:
    """(op, result, expected result, arguments) of random calls, the wild ones too."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    for k in range(calls):
        dtype = rng.choice((*BLENDABLE, *BLENDABLE, *MOVABLE))
        name, make = ("mix_rectangles", rectangle_call) if k % 2 else ("mix_patches", patch_call)
        args = make(rng, dtype, wild=k % 5 == 0)
        want = torch.empty(args[-1].shape, dtype=dtype)
        getattr(reference, name)(*args[:-1], want)
        getattr(ops, name)(*args)
        yield name, args[-1], want, args
