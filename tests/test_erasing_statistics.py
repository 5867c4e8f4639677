"""random_erasing is distributed as timm's RandomErasing is, by the real one's draws.

Seeds are fixed, so a p-value never changes by itself: below LEAST_P something is wrong. Backends
agree to the bit (test_draw_erasing.py), so one is tested.
"""

from __future__ import annotations

import random

import pytest
import torch
from peers import timm

import fused_mixup as fm

LEAST_P = 1e-3
SAMPLES = 20_000
CELLS = 12

SETTINGS = {
    "timm's own": {},
    "three boxes": {"max_count": 3},
    "boxes that often do not fit": {"area": (0.3, 0.9), "aspect": (0.2, 6.0), "max_count": 2},
}


class Image:
    """Takes the place of an image: it records what is written, as (y0, x0, y1, x1)."""

    def __init__(self):
        self.boxes = []

    def __setitem__(self, key, value):
        _, rows, columns = key
        self.boxes.append((rows.start, columns.start, rows.stop, columns.stop))


def drawn_by_timm(spatial, prob, area=(0.02, 1 / 3), aspect=(0.3, 1 / 0.3), max_count=1):
    """Boxes [B, max_count, 4], those that are left out as zeros at the end."""
    erasing = timm.data.random_erasing.RandomErasing(
        prob, *area, *aspect, max_count=max_count, device="cpu"
    )
    boxes = torch.zeros(SAMPLES, max_count, 4, dtype=torch.int64)
    for row in boxes:
        image = Image()
        erasing._erase(image, 3, *spatial, torch.float32)
        if image.boxes:
            row[: len(image.boxes)] = torch.tensor(image.boxes)
    return boxes


def drawn_by_us(spatial, prob, **options):
    state = fm.plan_state(12)
    box = fm.random_erasing(SAMPLES, spatial, state=state, prob=prob, **options).box.long()
    left_out = (box == 0).all(-1).int()
    order = left_out.sort(dim=1, stable=True).indices  # they go to the end
    return box.gather(1, order[..., None].expand_as(box))


def homogeneity_p(a, b):
    """p-value of the chi-square test that two samples of integers have one distribution."""
    size = int(torch.maximum(a.max(), b.max())) + 1
    counts = torch.stack([v.bincount(minlength=size) for v in (a, b)]).double()
    often = counts.sum(0) >= 20
    cells = torch.cat((counts[:, often], counts[:, ~often].sum(1, keepdim=True)), 1)
    cells = cells[:, cells.sum(0) > 0]
    if cells.shape[1] == 1:
        return 1.0
    expected = cells.sum(1, keepdim=True) * cells.sum(0) / cells.sum()
    value = ((cells - expected) ** 2 / expected).sum()
    freedom = torch.tensor((cells.shape[1] - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, value / 2))


def features(boxes, spatial):
    """name -> integers, of each sample or of each box that is there."""
    there = (boxes != 0).any(-1)
    y0, x0, y1, x1 = boxes[there].unbind(-1)
    h, w = y1 - y0, x1 - x0
    height, width = spatial

    def cell(share):
        return (share * CELLS).long().clamp(0, CELLS - 1)

    area, aspect = (h * w).double() / (height * width), (h.double() / w).log()
    return {
        "boxes of a sample": there.sum(1),
        "heights": h,
        "widths": w,
        "areas": cell(area),
        "aspects and areas": cell(aspect / 4 + 0.5) * CELLS + cell(area),
        "places": cell(y0 / (height - h + 1.0)) * CELLS + cell(x0 / (width - w + 1.0)),
        "tops and heights": cell(y0.double() / height) * CELLS + cell(h.double() / height),
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_boxes_are_distributed_as_timms(name):
    random.seed(5)
    spatial, options = (64, 48), SETTINGS[name]
    theirs = features(drawn_by_timm(spatial, 0.7, **options), spatial)
    ours = features(drawn_by_us(spatial, 0.7, **options), spatial)
    for what in ours:
        p = homogeneity_p(ours[what], theirs[what])
        print(f"{name}, {what}: p = {p:.4f}, n = {len(ours[what])}, {len(theirs[what])}")
        assert p > LEAST_P, what


def test_the_comparison_notices_another_distribution():
    random.seed(5)
    spatial = (64, 48)
    theirs = features(drawn_by_timm(spatial, 0.7), spatial)
    for options in ({"area": (0.02, 0.3)}, {"aspect": (0.25, 1 / 0.3)}):
        ours = features(drawn_by_us(spatial, 0.7, **options), spatial)
        assert min(homogeneity_p(ours[what], theirs[what]) for what in ours) < LEAST_P


def test_clean_samples_are_those_of_timms_splits():
    images = torch.ones(9, 3, 32, 32)
    erasing = timm.data.random_erasing.RandomErasing(1.0, num_splits=3, device="cpu")
    untouched = (erasing(images.clone()) == 1).flatten(1).all(1)
    box = fm.random_erasing(9, (32, 32), state=fm.plan_state(1), prob=1.0, clean=9 // 3).box
    assert torch.equal((box == 0).flatten(1).all(1), untouched) and untouched.sum() == 3
