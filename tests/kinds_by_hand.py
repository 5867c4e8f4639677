"""What each kind of entry becomes, written by hand in float64, sample by sample."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import torch

from fused_mixup import BatchMix

# kind -> (shape of one sample for sizes (n, m, k, t), dims of the box)
SHAPES = {
    "image": lambda n, m, k, t: (3, n, m),
    "video": lambda n, m, k, t: (t, 3, n, m),
    "volume": lambda n, m, k, t: (2, k, n, m),
    "spectrogram": lambda n, m, k, t: (1, n, m),
    "audio": lambda n, m, k, t: (2, n * m),
    "soft_map": lambda n, m, k, t: (4, n, m),
}
SPACE = {"image": 2, "video": 2, "volume": 3, "spectrogram": 2, "audio": 1, "soft_map": 2}


def rows(plan):
    """partner, weight, blend and box of each sample, as numbers."""
    columns = (plan.partner, plan.weight.double(), plan.blend.double(), plan.box)
    return list(zip(*(t.tolist() for t in columns), strict=True))


def scaled(bound, n, new):
    return floor(Fraction(bound * new, n) + Fraction(1, 2))


def scaled_box(box, sizes, new_sizes):
    """Starts, then stops, to the nearest whole pixel at the new sizes."""
    return [scaled(b, n, new) for b, n, new in zip(box, sizes * 2, new_sizes * 2, strict=True)]


def inside(shape, box):
    """bool of the last dims of ``shape``: where the box lies."""
    d = len(box) // 2
    sizes = shape[len(shape) - d :]
    where = torch.ones(sizes, dtype=torch.bool)
    for k in range(d):
        at = torch.arange(sizes[k]).view([-1 if i == k else 1 for i in range(d)])
        where &= (at >= box[k]) & (at < box[d + k])
    return where


def share(box, sizes):
    """The part of an entry that the box covers."""
    d, area, total = len(box) // 2, 1, 1
    for k in range(d):
        area, total = area * max(box[d + k] - box[k], 0), total * sizes[k]
    return area / total


def mixed(x, plan, box_of=lambda box: box):
    """An entry [B, …] blended and pasted; ``box_of`` maps the plan's box to the entry's sizes."""
    out = x.double().clone()
    for i, (j, _, (b0, b1), box) in enumerate(rows(plan)):
        own = x[i].double() * b0 if b0 else torch.zeros_like(out[i])
        out[i] = own + (x[j].double() * b1 if b1 else 0.0)
        if box:
            where = inside(x[i].shape, box_of(box)).expand(x[i].shape)
            out[i][where] = x[j].double()[where]
    return out


def by_weights(x, plan):
    """An entry blended by the label weights."""
    out = x.double().clone()
    for i, (j, (w0, w1), _, _) in enumerate(rows(plan)):
        out[i] = (x[i].double() * w0 if w0 else 0.0) + (x[j].double() * w1 if w1 else 0.0)
    return out


def map_target(maps, plan, num_classes, ignored=None, box_of=lambda box: box):
    """The dense target [B, K, …] of class maps."""
    out = torch.zeros(len(maps), num_classes, *maps.shape[1:], dtype=torch.float64)
    for i, (j, _, (b0, b1), box) in enumerate(rows(plan)):
        own, other = maps[i].long(), maps[j].long()
        if box:
            own = torch.where(inside(own.shape, box_of(box)).expand(own.shape), other, own)
        for labels, w in ((own, b0), (other, b1)):
            for c in range(num_classes):
                out[i, c] += w * ((labels == c) & (labels != ignored))
    return out


# ------------------------------------------------------------------ batches

MODES = {
    "MixUp": {"mixup_alpha": 1.0},
    "CutMix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "both": {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "per": "sample"},
}
K = 5


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_batches(count, seed=0):
    """(options of BatchMix, sizes, B) of random batches."""
    pick = generator(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=pick))

    for i in range(count):
        mode = list(MODES.values())[draw(0, 3)]
        rule = ("flip", "roll", "shuffle", "derangement")[draw(0, 4)]
        b = draw(1, 6) if rule == "flip" else draw(2, 6)
        per = "sample" if rule == "roll" else mode.get("per", "batch")
        sizes = draw(1, 9), draw(1, 9), draw(1, 4), draw(1, 4)
        yield {**mode, "pairing": rule, "per": per, "seed": i}, sizes, b


def images(b=4, n=8, m=8, seed=0):
    return torch.rand(b, 3, n, m, generator=generator(seed))


def classes(b=4):
    return torch.arange(b) % K


def mixer(**options):
    return BatchMix(K, **{"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "seed": 3, **options})
