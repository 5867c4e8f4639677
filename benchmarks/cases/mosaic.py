"""Times a mosaic of 2 × 2 against Kornia's, which draws the same numbers, and against eager lines.

A call draws the four sources and the window of each sample, and makes the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

import fused_mixup as fm

from .. import installed_peers
from ..registry import OURS_TRITON, Case, Provider, Work
from ..sides import our_providers, reference
from ..timing import rotate

SEEDS = 16
LOW, HIGH = 0.3, 0.7  # of a side: where a window starts
EAGER = "plain PyTorch"


def draw(batch_size: int, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(int64 [B, 4] sources, int64 [B, 2] corners (y, x) of windows), as Kornia draws them."""
    others = torch.randperm(3 * batch_size) % batch_size
    source = torch.cat((torch.arange(batch_size), others)).view(4, batch_size).T
    low, high = torch.tensor((LOW, HIGH))
    start = low + torch.rand(batch_size, 2) * (high - low)
    corner = (start * torch.tensor((size[1], size[0]))).floor().long()
    return source, corner.flip(1)


def ours(x: Tensor) -> Tensor:
    size = tuple(x.shape[-2:])
    source, corner = (t.to(x.device) for t in draw(len(x), size))
    centre = torch.tensor(size, device=x.device) - corner
    source = source[:, [0, 2, 1, 3]]  # Kornia counts tiles down, then across
    plan = fm.mosaic_plan(size, centre, source, canvas=size, fill=0.0)
    return fm.mix_rectangles(x, plan)


def eager(x: Tensor) -> Tensor:
    """The whole mosaic of all samples, then a window of each."""
    height, width = x.shape[-2:]
    source, corner = draw(len(x), (height, width))
    a, b, c, d = (x[source[:, k]] for k in range(4))
    whole = torch.cat((torch.cat((a, b), -2), torch.cat((c, d), -2)), -1)
    windows = [
        whole[i, :, top : top + height, left : left + width]
        for i, (top, left) in enumerate(corner.tolist())
    ]
    return torch.stack(windows)


def seeded(run: Callable, seeds: Sequence[int]) -> Callable:
    """Seeds before each call of ``run``, so that all providers draw the same."""
    turn = cycle(seeds)

    def call(x: Tensor) -> Any:
        torch.default_generator.manual_seed(next(turn))
        return run(x)

    return call


def mosaic(case: Case, device: str) -> Work:
    seeds = range(SEEDS)
    providers = our_providers(seeded(ours, seeds), device)
    providers[EAGER] = Provider(seeded(eager, seeds))
    augmentation = installed_peers.kornia()
    if isinstance(augmentation, str):
        providers["Kornia"] = augmentation
    else:
        mixer = augmentation.RandomMosaic(mosaic_grid=(2, 2), start_ratio_range=(LOW, HIGH), p=1.0)
        providers["Kornia"] = Provider(seeded(mixer, seeds))
    xs = rotate(lambda: torch.randn(case.shape, device=device))
    expected = reference(ours)  # of the first seed, as the check is the first call of a provider
    return Work(xs, providers, lambda x: seeded(expected, seeds[:1])(x))


def cases(device: str) -> Iterator[Case]:
    shape = (64, 3, 224, 224) if device == "cpu" else (256, 3, 224, 224)
    peers, goals = (OURS_TRITON, EAGER, "Kornia"), ("cpu mosaic",) if device == "cpu" else ()
    yield Case("mosaic", "2×2", shape, torch.float32, mosaic, "mosaic", peers, goals=goals)
