"""PuzzleMix: where each patch goes, so that salient ones lie where the mask shows them."""

from __future__ import annotations

import torch
from torch import Tensor


def distances(grid: tuple[int, int], device: torch.device) -> Tensor:
    """float32 [g², g²]: squared distance of two patches, over that of a side."""
    y, x = (torch.arange(n, device=device, dtype=torch.float32) for n in grid)
    down, across = (((a[:, None] - a) ** 2) for a in (y, x))
    d = down[:, None, :, None] + across[None, :, None, :]
    n = grid[0] * grid[1]
    return d.reshape(n, n) / max(max(grid) - 1, 1) ** 2


def transport(mask: Tensor, saliency: Tensor, eps: float) -> Tensor:
    """int64 [B, gh, gw]: the patch that each patch of the result shows, -1 where none was won.

    Patch i at j costs ``eps * d(i, j) - saliency_i * [mask_j > 0]``. In each of gw rounds every
    patch takes its cheapest place, and of those that took one place the cheapest keeps it, if its
    cost is below 0; to the others the place costs 1 more. The last round counts.

    Args:
        mask: [B, gh, gw].
        saliency: [B, gh, gw].
    """
    batch, *grid = mask.shape
    n = grid[0] * grid[1]
    shown = (mask > 0).float().reshape(batch, 1, n)
    cost = eps * distances((grid[0], grid[1]), mask.device) - saliency.reshape(batch, n, 1) * shown
    place, wins = torch.zeros(batch, n, dtype=torch.int64), torch.zeros(batch, n, dtype=torch.bool)
    for _ in range(grid[1]):
        paid, place = cost.min(-1)
        wins = winners(paid, place)
        cost.scatter_add_(-1, place[..., None], (~wins)[..., None].to(cost.dtype))
    patches = torch.arange(n, device=mask.device).expand(batch, n)
    # A place has one winner; losers write to a place of their own, which is cut off.
    taken = torch.full((batch, n + 1), -1, device=mask.device)
    taken.scatter_(1, torch.where(wins, place, n), patches)
    return taken[:, :n].view(batch, *grid)


def winners(paid: Tensor, place: Tensor) -> Tensor:
    """bool [B, n]: whether patch i keeps ``place_i``, for which it paid ``paid_i``.

    The published code takes, for each place, the first least of ``paid`` where a patch took it and
    0 where one did not. So a place that some patch did not take is won below 0 alone, or at 0 by a
    patch before all those.
    """
    n = place.shape[1]
    order = torch.arange(n, device=place.device).expand_as(place)
    elsewhere = place != place[:, :1]
    # The first patch that did not take a place: patch 0, but for its own place.
    first_elsewhere = torch.where(elsewhere.any(1), elsewhere.int().argmax(1), n)[:, None]
    absent = torch.zeros_like(place).scatter_(1, place[:, :1], first_elsewhere)
    least = torch.zeros_like(paid).masked_fill_(absent == n, float("inf"))
    least.scatter_reduce_(1, place, paid, "amin")
    ties = paid == least.gather(1, place)
    first = torch.full_like(place, n).scatter_reduce_(1, place, torch.where(ties, order, n), "amin")
    before = order < absent.gather(1, place)
    return ties & (order == first.gather(1, place)) & ((paid != 0) | before)
