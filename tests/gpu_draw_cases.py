"""The calls of the ops that draw, for the table of ``gpu_cases.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from fused_mixup import erasing_settings, plan_settings, plan_state, variant_settings
from fused_mixup.codes import (
    BATCH,
    CONST,
    CROSS_CLASS,
    DERANGEMENT,
    FLIP,
    FMIX,
    GAUSSIAN,
    PAIR,
    PIXEL,
    RAND,
    RESIZEMIX,
    SAMPLE,
    SHUFFLE,
    TENSOR,
    TOPHAT,
    VARIANTS,
)

DRAWN = ("draw_plan", "draw_variants", "draw_erasing", "draw_neighbors")


def draw_cases() -> Iterator[dict]:
    """The arguments of each Case."""
    yield from draw_plan_cases()
    yield from variant_cases()
    yield from erasing_cases()
    yield from neighbor_cases()


def _case(op: str, name: str, make: Callable[[], tuple], quick: bool, on_host: str) -> dict:
    return {"op": op, "name": name, "make": make, "quick": quick, "on_host": on_host}


def draw_args(size: int, spatial: tuple[int, ...], per: int, pairing: int) -> tuple:
    state = plan_state(int(torch.randint(2**62, ())), rank=3)
    settings = plan_settings(mixup_alpha=0.8, cutmix_alpha=1.0 if spatial else 0.0, prob=0.9)
    labels = torch.randint(0, 1 + size // 3, (size,)) if pairing == CROSS_CLASS else None
    partner = torch.randint(0, size, (size,)).int() if pairing == TENSOR else None
    samples = None
    if pairing == TENSOR and size > 1000:  # samples of a larger batch
        samples = torch.randint(0, 2 * size, (size,)).int()
    rules = per, pairing, True, False, samples
    return state, settings, labels, partner, size, list(spatial), *rules


def draw_plan_cases() -> Iterator[dict]:
    image = (224, 224)
    grid: list[tuple] = [(33, image, SAMPLE, CROSS_CLASS, "", True)]
    grid += [(8, (), BATCH, FLIP, "settings", True)]
    grid += [(n, image, SAMPLE, FLIP, "", False) for n in (0, 1, 31, 257, 513, 65536)]
    for pairing in (TENSOR, SHUFFLE, DERANGEMENT, CROSS_CLASS):
        grid += [(40, (7, 5, 3), PAIR, pairing, "", False)]
        grid += [(n, (9,), BATCH, pairing, "settings", False) for n in (1024, 1025, 4097, 65536)]
    for size, spatial, per, pairing, on_host, quick in grid:
        sizes = "x".join(map(str, (size, *spatial)))
        name = f"{sizes} per {per} pairing {pairing}{' host' * bool(on_host)}"
        make = partial(draw_args, size, spatial, per, pairing)
        yield _case("draw_plan", name, make, quick, on_host)


def variant_args(size: int, image: tuple[int, int], per: int, kinds: tuple[int, ...]) -> tuple:
    state = plan_state(int(torch.randint(2**62, ())), rank=3)
    mix = [name for name, kind in VARIANTS.items() if kind in kinds]
    settings = variant_settings(dict.fromkeys(mix))
    rules = 3, per, FLIP, True, False, None
    return state, settings, None, None, list(kinds), size, *image, *rules


def variant_cases() -> Iterator[dict]:
    every = tuple(range(RESIZEMIX))
    grid = [(33, (60, 50), SAMPLE, every, "", True), (8, (224, 224), BATCH, (FMIX,), "", True)]
    grid += [(64, (224, 160), per, every, "settings", False) for per in (BATCH, PAIR, SAMPLE)]
    grid += [(0, (9, 9), per, every, "", False) for per in (BATCH, SAMPLE)]
    grid += [(2, (1500, 700), SAMPLE, (FMIX,), "", False), (1, (1, 1), SAMPLE, every, "", False)]
    for size, image, per, kinds, on_host, quick in grid:
        name = f"{size} of {image} per {per} variants {len(kinds)}{' host' * bool(on_host)}"
        make = partial(variant_args, size, image, per, kinds)
        yield _case("draw_variants", name, make, quick, on_host)


def erasing_args(size: int, spatial: tuple[int, int], count: int, mode: int) -> tuple:
    state = plan_state(int(torch.randint(2**62, ())), rank=3)
    fill = [0.25] * (3 if size else 1) if mode == CONST else []
    return state, erasing_settings(prob=0.9), fill, size, *spatial, count, 3, mode, size // 4


def erasing_cases() -> Iterator[dict]:
    image = (224, 160)
    grid: list[tuple] = [(33, image, 2, RAND, "", True), (8, image, 1, CONST, "settings", True)]
    grid += [(n, image, 1, m, "", False) for n in (0, 257, 1025) for m in (CONST, RAND, PIXEL)]
    grid += [(65, (3, 9), 64, RAND, "settings", False), (65536, image, 3, PIXEL, "", False)]
    for size, spatial, count, mode, on_host, quick in grid:
        name = f"{size}x{count} of {spatial} mode {mode}{' host' * bool(on_host)}"
        make = partial(erasing_args, size, spatial, count, mode)
        yield _case("draw_erasing", name, make, quick, on_host)


def neighbor_args(size: int, dims: int, pool: int | None, kernel: int, dtype: torch.dtype) -> tuple:
    state = plan_state(int(torch.randint(2**62, ())), rank=3)
    labels = torch.randn(size, dims, dtype=dtype)
    others = None if pool is None else torch.randn(pool, dims, dtype=dtype)
    return state, torch.tensor([0.3], dtype=torch.float64), labels, others, kernel


def neighbor_cases() -> Iterator[dict]:
    half, full = torch.float32, torch.float64
    grid: list[tuple] = [(33, 1, None, GAUSSIAN, half, "", True)]
    grid += [(8, 2, 40, TOPHAT, full, "settings", True)]
    grid += [(n, 1, None, GAUSSIAN, full, "settings", False) for n in (0, 1, 257, 4096)]
    grid += [(33000, 3, 60, k, half, "", False) for k in (GAUSSIAN, TOPHAT)]  # more than the blocks
    for size, dims, pool, kernel, dtype, on_host, quick in grid:
        name = f"{size}x{dims} of {pool} kernel {kernel} {dtype}{' host' * bool(on_host)}"
        make = partial(neighbor_args, size, dims, pool, kernel, dtype)
        yield _case("draw_neighbors", name, make, quick, on_host)
