"""Random boxes and plans, and what becomes of them by hand: in Python numbers, box by box."""

from __future__ import annotations

import random

import torch

from fused_mixup import MixPlan

H, W = 12, 16
BATCHES = (0, 1, 2, 3, 5, 8)
MOST = (0, 1, 2, 7, 40)
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
SHARES_OF_ONE = (0.0, 0.25, 0.5, 0.75, 1.0)  # λ that are exact in every dtype


def random_plan(rng: random.Random, batch_size: int, most: tuple[int, int] = (H, W)) -> MixPlan:
    """Rows that blend, cut, do both, or neither, with partners by rule or any at all."""
    if batch_size == 0:
        return MixPlan.identity(0)
    indices = torch.tensor([rng.randrange(batch_size) for _ in range(batch_size)])
    partner = rng.choice(("flip", "roll", "self", indices, indices))
    lam = torch.tensor([rng.choice(SHARES_OF_ONE) for _ in range(batch_size)])
    boxes = torch.tensor([_cut(rng, *most) for _ in range(batch_size)])
    kind = rng.randrange(5)
    if kind == 0:
        return MixPlan.uniform(batch_size, partner, float(lam[0]))
    if kind == 1:
        return MixPlan.uniform(batch_size, partner, float(lam[0]), boxes[0].tolist())
    if kind == 2:
        return MixPlan.per_sample(lam, partner, boxes, [rng.random() < 0.6 for _ in lam])
    # Rows that blend outside their boxes, which no constructor makes; a row may show nothing.
    weight = torch.stack((lam, lam if rng.random() < 0.1 else 1 - lam), 1)
    rule = partner if isinstance(partner, str) else "tensor"
    index = None if isinstance(partner, str) else indices.int()
    return MixPlan(index, weight, weight.double(), boxes.int(), rule)


def _cut(rng: random.Random, height: int, width: int) -> list[int]:
    y, x = (sorted(rng.randint(0, n) for _ in range(2)) for n in (height, width))
    return [y[0], x[0], y[1], x[1]]


def random_boxes(
    rng: random.Random,
    batch_size: int,
    most: int,
    dtype: torch.dtype = torch.float64,
    step: int = 4,
) -> torch.Tensor:
    """[B, N, 4] at multiples of 1/step, some outside the image, some without area."""
    lows = [
        [rng.randint(-step, W * step), rng.randint(-step, H * step)]
        for _ in range(batch_size * most)
    ]
    reach = 0, 6 * step, 20 * step
    sides = [[rng.randint(0, rng.choice(reach)) for _ in range(2)] for _ in lows]
    corners = [[x, y, x + w, y + h] for (x, y), (w, h) in zip(lows, sides, strict=True)]
    return (torch.tensor(corners, dtype=dtype) / step).view(batch_size, most, 4)


def random_call(rng: random.Random, dtype: torch.dtype = torch.float64) -> tuple:
    """Arguments of ``ops.mix_boxes``."""
    batch_size, most = rng.choice(BATCHES), rng.choice(MOST)
    boxes = random_boxes(rng, batch_size, most, dtype)
    count = torch.tensor([rng.randint(0, most) for _ in range(batch_size)], dtype=torch.int64)
    count = rng.choice((None, count, count.int()))
    plan = random_plan(rng, batch_size)
    return boxes, count, plan.partner_or_none, plan.blend, plan.box, plan.rule, rng.choice(SHARES)


WILD = (0.0, -0.0, 1e-30, 3e38, -3e38, float("inf"), -float("inf"), float("nan"), 5.0, 7.3)


def wild_call(rng, dtype):
    """Boxes as no caller may give them on the CPU, and wild partners and counts."""
    boxes, _, partner, blend, box, rule, share = random_call(rng, dtype)
    batch, most = boxes.shape[:2]
    wild = torch.tensor([rng.choice(WILD) for _ in range(boxes.numel())], dtype=dtype)
    boxes = torch.where(torch.rand(boxes.shape) < 0.3, wild.view_as(boxes), boxes * 1.1)
    count = torch.tensor([rng.randint(-3, most + 3) for _ in range(batch)], dtype=torch.int32)
    if partner is not None:
        partner = torch.tensor([rng.randint(-9, 9 + batch) for _ in partner], dtype=torch.int32)
    blend = blend * rng.choice((1.0, 0.9))
    return boxes, count, partner, blend, box, rule, share


def counts_of(boxes: torch.Tensor, count: torch.Tensor | None) -> list[int]:
    return [boxes.shape[1]] * len(boxes) if count is None else count.tolist()


def boxes_by_hand(
    boxes: list[list[list[float]]], plan: MixPlan, min_visible: float
) -> list[list[tuple[list[float], float, tuple[int, int]]]]:
    """For each sample, (box, weight, (sample it comes from, its place there)) of all that stay."""
    found = []
    rows = zip(plan.partner.tolist(), plan.blend.tolist(), plan.box.tolist(), strict=True)
    for i, (p, (b0, b1), box) in enumerate(rows):
        if p == i:
            found.append([(a, 1.0, (i, k)) for k, a in enumerate(boxes[i])])
            continue
        y0, x0, y1, x1 = box or (0, 0, 0, 0)
        cut = (x0, y0, x1, y1) if y1 > y0 and x1 > x0 else None
        here = [(*own_by_hand(a, cut, b0, min_visible), (i, k)) for k, a in enumerate(boxes[i])]
        here += [(*other_by_hand(a, cut, b1, min_visible), (p, k)) for k, a in enumerate(boxes[p])]
        found.append([row for row in here if row[0] is not None])
    return found


def _overlap(a, cut):
    """(area in the cut, whether the box lies in the closed cut)"""
    if cut is None:
        return 0.0, False
    w, h = (max(0.0, min(a[k + 2], cut[k + 2]) - max(a[k], cut[k])) for k in (0, 1))
    return w * h, all(cut[k] <= a[k] and a[k + 2] <= cut[k + 2] for k in (0, 1))


def own_by_hand(a, cut, b0, min_visible):
    area = (a[2] - a[0]) * (a[3] - a[1])
    inside, covered = _overlap(a, cut)
    share = (area - inside) / area if area else float(not covered)
    if b0 == 0 or share < min_visible or share == 0:
        return None, 0.0
    a = list(a)
    if area and inside:
        # What is left is a smaller box only where the cut spans it and reaches one of its sides.
        for k, other in ((0, 1), (1, 0)):
            if not (cut[other] <= a[other] and a[other + 2] <= cut[other + 2]):
                continue
            if cut[k] <= a[k]:
                a[k] = cut[k + 2]
            elif cut[k + 2] >= a[k + 2]:
                a[k + 2] = cut[k]
    return a, b0


def other_by_hand(a, cut, b1, min_visible):
    area = (a[2] - a[0]) * (a[3] - a[1])
    inside, covered = _overlap(a, cut)
    share = inside / area if area else float(covered)
    if b1:
        return a, share + (1 - share) * b1
    if share < min_visible or share == 0:
        return None, 0.0
    low, high = ([f(a[k], cut[k]) for k in ks] for f, ks in ((max, (0, 1)), (min, (2, 3))))
    return [*low, *high], 1.0
