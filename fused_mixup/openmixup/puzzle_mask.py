"""PuzzleMix: which blocks each sample keeps, by a graph cut on the host."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from multiprocessing import Pool
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

Problem = tuple[Any, ...]


def graph_cut() -> Callable[..., Any]:
    """gco's solver of labels on a grid."""
    try:
        return importlib.import_module("gco").cut_grid_graph  # type: ignore[no-any-return]
    except ImportError as error:
        raise RuntimeError(
            f"puzzlemix needs the graph cut of gco ({error}); pip install gco-wrapper"
        ) from None


def block_saliency(features: Tensor, block: tuple[int, int]) -> Tensor:
    """[B, gh, gw]: mean of each block of ``features`` [B, H, W], over the sum of all."""
    pooled = avg_pool2d(features, block)
    return pooled / pooled.reshape(len(pooled), -1).sum(1).view(-1, 1, 1)


def cut_costs(
    saliency: tuple[Tensor, Tensor],  # [B, g, g] of the samples and of their partners
    images: tuple[Tensor, Tensor],  # [B, C, H, W], pooled, in [0, 1]
    cells: tuple[int, int],  # pooled pixels along a block's sides
    weight: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Costs of a block without the sample and without its partner, and of edges down and across.

    Neighbours of different images cost the difference of the pixels that meet there.
    """
    own, theirs = images
    without_own, without_theirs = (s.clone() for s in saliency)
    edges = []
    for axis in (1, 2):
        # [which image is before the edge][which is behind]
        meet = [[weight * _edge(a, b, cells, axis) for b in (theirs, own)] for a in (theirs, own)]
        before, behind = (
            (slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None))
        )
        without_theirs[before] += (meet[1][0] + meet[1][1]) / 2.0
        without_own[before] += (meet[0][1] + meet[0][0]) / 2.0
        without_theirs[behind] += (meet[0][1] + meet[1][1]) / 2.0
        without_own[behind] += (meet[1][0] + meet[0][0]) / 2.0
        edges.append((meet[1][0] + meet[0][1] - meet[1][1] - meet[0][0]) / 2)
    return without_own, without_theirs, edges[0], edges[1]


def _edge(before: Tensor, behind: Tensor, cells: tuple[int, int], axis: int) -> Tensor:
    """[B, g, g] less one along ``axis``: mean difference of pixels on both sides of each edge."""
    k, across = cells if axis == 1 else cells[::-1]
    if axis == 1:
        step = before[:, :, :-1] - behind[:, :, 1:]
        return avg_pool2d(step[:, :, k - 1 :: k].abs().mean(1), (1, across))
    step = before[..., :-1] - behind[..., 1:]
    return avg_pool2d(step[..., k - 1 :: k].abs().mean(1), (across, 1))


def solve(problems: list[Problem], processes: int | None) -> Tensor:
    """float32 [B, g, g]: the share in {0, …, 1} of the sample in each block."""
    if processes is None:
        masks = [_solve_one(*problem) for problem in problems]
    else:
        with Pool(processes) as pool:
            masks = pool.starmap(_solve_one, problems)
    return torch.from_numpy(np.stack(masks)).float()


def _solve_one(
    unary_own: np.ndarray,
    unary_theirs: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    lam: float,
    smoothness: float,
    eta: float,
    n_labels: int,
) -> np.ndarray:
    """Labels 0 (the sample) to n-1 (the partner) of least cost, by alpha-beta swaps."""
    g = unary_own.shape[0]
    scale = 1000 * g**2  # costs are whole numbers
    prior = eta * _prior(lam, n_labels) / g**2
    shares = np.linspace(0, 1, n_labels)
    unary = [(1 - s) * unary_own + s * unary_theirs + p for s, p in zip(shares, prior, strict=True)]
    levels = np.arange(n_labels)
    pairwise = ((levels[:, None] - levels) ** 2 / (n_labels - 1) ** 2).astype(np.float32)
    labels = graph_cut()(
        (scale * np.stack(unary, axis=-1)).astype(np.int32),
        pairwise,
        *((scale * (edge + smoothness)).astype(np.int32) for edge in (down, across)),
        algorithm="swap",
    )
    return (1.0 - labels / (n_labels - 1)).reshape(unary_own.shape)


def _prior(lam: float, n_labels: int, eps: float = 1e-8) -> np.ndarray:
    """-log of the binomial chance of each label."""
    n = n_labels - 1
    chance = {
        1: (lam, 1 - lam),
        2: (lam**2, 2 * lam * (1 - lam), (1 - lam) ** 2),
        3: (lam**3, 3 * lam**2 * (1 - lam), 3 * lam * (1 - lam) ** 2, (1 - lam) ** 3),
    }[n]
    return np.array([-np.log(c + eps) for c in chance])
