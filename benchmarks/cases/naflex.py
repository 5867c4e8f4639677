"""Times NaFlexMixup against timm's: 64 images of 128² to 384², whole calls with the same draws.

"both" is a batch of MixUp and one of CutMix, as the default settings draw them in turn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import torch

from fused_mixup import timm as our_timm

from .. import installed_peers
from ..registry import OURS, Case, Provider, Work
from ..timing import MOST_INPUTS, cache_bytes
from .drop_ins import CLASSES, CUTMIX, SEED_TORCH, SEEDS

MIXUP = {"mixup_alpha": 0.8, "cutmix_alpha": 0.0}
MODES = {"MixUp": (MIXUP,), "CutMix": (CUTMIX,), "both": (MIXUP, CUTMIX)}
LEAST = 128  # pixels along a side; the shape of a case says the most
# timm cuts towards 0 where ours rounds.
TOLERANCE = {torch.uint8: (0.0, 1.0), torch.float32: None}


def images(case: Case) -> tuple[list[list[torch.Tensor]], list[int]]:
    """Lists of images as timm's loader has them: pixels of bytes, or planes of floats."""
    count, channels, most, _ = case.shape
    r = random.Random(0)
    sizes = [(r.randint(LEAST, most), r.randint(LEAST, most)) for _ in range(count)]

    def image(h: int, w: int) -> torch.Tensor:
        if case.dtype == torch.uint8:
            pixels = torch.randint(0, 256, (h, w, channels), dtype=torch.uint8)
            return pixels.permute(2, 0, 1)
        return torch.randn(channels, h, w, dtype=case.dtype)

    size = sum(h * w for h, w in sizes) * channels * case.dtype.itemsize
    lists = min(2 + cache_bytes("cpu") // size, MOST_INPUTS)
    xs = [[image(h, w) for h, w in sizes] for _ in range(lists)]
    return xs, [r.randrange(CLASSES) for _ in sizes]


def whole_call(case: Case, device: str, modes: tuple[dict, ...], threads: int | None) -> Work:
    xs, labels = images(case)

    def provider(module: Any, tolerance: tuple[float, float] | None = None) -> Provider:
        mixes = [module.NaFlexMixup(num_classes=CLASSES, **options) for options in modes]
        seeds = cycle(range(SEEDS))
        return Provider(lambda x: _mix(mixes, x, labels, next(seeds)), tolerance)

    providers: dict[str, Provider | str] = {OURS: provider(our_timm, TOLERANCE[case.dtype])}
    why = installed_peers.reason_missing()
    if why is not None:
        return Work(xs, providers | {"timm": why}, tuple)
    installed_peers.load()
    from timm.data import naflex_mixup

    providers["timm"] = provider(naflex_mixup)
    mixes = [naflex_mixup.NaFlexMixup(num_classes=CLASSES, **options) for options in modes]
    expected: Callable[[Any], Any] = lambda x: _flat(_mix(mixes, x, labels, 0))  # noqa: E731
    work = Work(xs, providers, expected, threads=threads, select=_flat)
    work.read = work.written = len(modes) * sum(x.numel() * x.itemsize for x in xs[0])
    return work


def _mix(mixes: list, x: list[torch.Tensor], labels: list[int], seed: int) -> list:
    random.seed(seed)
    SEED_TORCH(seed)
    return [mix(x, labels) for mix in mixes]


def _flat(batches: list) -> tuple[torch.Tensor, ...]:
    return tuple(t for imgs, rows in batches for t in (*imgs, *rows))


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    for dtype in TOLERANCE:
        for name, modes in MODES.items():
            for threads in (None, 1):
                build = partial(whole_call, modes=modes, threads=threads)
                where = "whole call" if threads is None else "in a worker"
                goal = threads is None and dtype == torch.uint8 and name != "CutMix"
                yield Case("timm.NaFlexMixup", f"{name}, {where}", (64, 3, 384, 384), dtype, build,
                           "naflex", ("timm",), goals=("cpu naflex",) if goal else ())  # fmt: skip
