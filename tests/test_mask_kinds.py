"""The constructors of masks against masks written by hand, and against values of published code.

The published masks (mixes of FMix, GridMix, CutMix-Seg) are known by a hash of the draws that
NumPy's and Python's generators give after a seed.
"""

from __future__ import annotations

import hashlib
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fused_mixup import MixPlan, mix
from fused_mixup.masks import (
    band_mask,
    class_mask,
    fmix_mask,
    gauss_mask,
    grid_mask,
    patch_mask,
    rectangle_mask,
    row_table_mask,
    saliency_mask,
    stored_mask,
)

H, W = 11, 14


def assert_near(got: torch.Tensor, want: torch.Tensor, apart: float) -> None:
    assert got.shape == want.shape and float((got - want).abs().max()) <= apart


def md5(mask: torch.Tensor) -> str:
    """The first digits of the hash of a mask's bytes."""
    return hashlib.md5(mask.to(torch.uint8).numpy().tobytes()).hexdigest()[:8]


def seeded(number: int) -> tuple[np.random.RandomState, random.Random]:
    """The generators that published code has after ``seed(number)``."""
    return np.random.RandomState(number), random.Random(number)


# ------------------------------------------------------------------ Gaussians


@pytest.mark.parametrize("partner", [True, False])
def test_gauss(partner):
    center, sigma = torch.tensor([[3.5, -2.25], [20.0, 6.0]]), torch.tensor([2.5, 0.3])
    y, x = torch.arange(H).view(1, H, 1).double(), torch.arange(W).double()
    cy, cx = center.double()[:, :, None, None].unbind(1)
    apart = (y - cy) ** 2 + (x - cx) ** 2
    g = torch.exp(-apart / (2 * sigma.double()[:, None, None] ** 2))
    mask = gauss_mask(center, sigma, (H, W), partner)
    assert_near(mask.dense()[:, 0].double(), 1 - g if partner else g, 2e-7)
    one = gauss_mask((3.5, -2.25), 2.5, (H, W), partner)
    assert one.batch_size == 1 and torch.equal(one.dense(), mask.dense()[:1])
    many = gauss_mask((3.5, -2.25), sigma, (H, W), partner)
    assert torch.equal(many.dense()[0], mask.dense()[0])


# ------------------------------------------------------------------ grids, rectangles, bands


def _grid_by_hand(x0, y0, cw, ch, pw, ph, hw, hh):
    m = torch.ones(H, W)
    for y in range(y0, y0 + ch, ph):
        for x in range(x0, x0 + cw, pw):
            m[y : min(y + hh, y0 + ch), x : min(x + hw, x0 + cw)] = 0
    return m


def test_grids():
    """Crops within the image, across each border, and larger than it."""
    pick = random.Random(3)
    rows = []
    for _ in range(60):
        cw, ch = pick.randint(1, 2 * W), pick.randint(1, 2 * H)
        x0, y0 = pick.randint(-W // 2, W - 1), pick.randint(-H // 2, H - 1)
        pw, ph = pick.randint(2, W // 2), pick.randint(2, H // 2)
        rows.append((x0, y0, cw, ch, pw, ph, pick.randint(1, pw - 1), pick.randint(1, ph - 1)))
    want = torch.stack([_grid_by_hand(*row) for row in rows])
    assert torch.equal(grid_mask(torch.tensor(rows), (H, W)).dense()[:, 0], want)
    assert torch.equal(grid_mask(rows[0], (H, W)).dense()[0, 0], want[0])
    assert 0.2 < want.mean() < 0.95


def test_grid_of_the_published_code():
    draw, pick = seeded(0)
    lam, columns = draw.beta(1, 1), pick.randint(2, 6)
    draw.uniform(1, 1)  # the aspect of holes
    area, aspect = draw.uniform(0.5, 1), draw.uniform(0.5, 2)
    across, down = draw.random_sample(2)
    assert columns == 5 and abs(area - 0.916310) < 1e-6 and abs(aspect - 1.667235) < 1e-6
    assert abs(draw.random_sample() - 0.7991585642) < 1e-9
    width = int(math.sqrt(int(32 * 32 * area) / aspect))
    height = int(width * aspect)
    assert height > 32  # the crop is larger than the image
    period = math.ceil(width / columns)
    hole = min(max(int(period * math.sqrt(1 - lam)), 1), period - 1)
    corner = int((32 - width) * across), int((32 - height) * down)
    mask = grid_mask((*corner, width, height, period, period, hole, hole), (32, 32))
    holes = 1 - mask.dense()[0, 0]
    assert int(holes.sum()) == 330 and md5(holes) == "8e4c179b"


@pytest.mark.parametrize("combine", ["union", "xor"])
@pytest.mark.parametrize("inside", ["partner", "self"])
def test_rectangles(combine, inside):
    boxes = torch.tensor(
        [
            [[1, 2, 6, 9], [4, 5, 11, 14], [5, 6, 8, 8], [0, 0, 0, 14]],
            [[-3, 4, 5, 99], [2, 8, 2, 9], [3, 3, 2, 9], [4, 0, 5, 14]],
        ]
    )
    want = torch.zeros(2, H, W)
    for i, rows in enumerate(boxes.tolist()):
        for y in range(H):
            for x in range(W):
                count = sum(t <= y < b and left <= x < r for t, left, b, r in rows)
                want[i, y, x] = count % 2 if combine == "xor" else count > 0
    got = rectangle_mask(boxes, (H, W), combine, inside).dense()[:, 0]
    assert torch.equal(got, want if inside == "self" else 1 - want)


@pytest.mark.parametrize(
    ("count", "inside", "sums", "digest"),
    [(1, "self", [504, 506], "6d1e7355"), (3, "partner", [594, 837], "41f55b3e")],
)
def test_rectangles_of_the_published_code(count, inside, sums, digest):
    draw, _ = seeded(0)
    share = draw.uniform(0.5, 0.5, (2, count))
    y = np.exp(draw.uniform(size=(2, count)) * np.log(share))
    sides = np.stack((y, share / y), 2) * math.sqrt(1 / count)
    sizes = np.round(sides * 32)
    places = np.round((32 - sizes) * draw.uniform(size=sizes.shape))
    boxes = torch.from_numpy(np.concatenate((places, places + sizes), 2).astype(np.int64))
    mask = rectangle_mask(boxes, (32, 32), "xor", inside).dense()
    assert mask.sum((1, 2, 3)).tolist() == sums and md5(mask) == digest


def test_bands():
    mask = band_mask([[[2, 4], [7, 9]]], [[[0, 3]]], (H, W))
    want = torch.ones(H, W)
    want[2:4] = want[7:9] = 0
    want[:, :3] = 0
    assert torch.equal(mask.dense()[0, 0], want)
    assert torch.equal(
        band_mask(None, [[[0, 3]]], (H, W), inside="self").dense().sum(), torch.tensor(3.0 * H)
    )


# ------------------------------------------------------------------ tables


def test_row_tables():
    rows, columns = torch.randint(-8, 9, (3, 4, H)) / 8, torch.randint(-8, 9, (3, 4, W)) / 8
    threshold = torch.tensor([0.0, 0.25, -1.0])
    s = torch.einsum("bkh,bkw->bhw", rows.double(), columns.double())
    want = (s > threshold[:, None, None]).float()
    assert torch.equal(row_table_mask(rows, columns, threshold).dense()[:, 0], want)
    other = row_table_mask(rows, columns, threshold, complement=True)
    assert torch.equal(other.dense()[:, 0], 1 - want)


def _published_fmix(normals, size, num, decay=3.0):
    """The mask as the published code makes it, of one sample's normals [h, K, 2]."""
    h, w = size
    fx = np.fft.fftfreq(w)[: normals.shape[1]]
    freqs = np.sqrt(fx * fx + np.fft.fftfreq(h)[:, None] ** 2)
    scale = 1 / np.maximum(freqs, 1 / max(h, w)) ** decay
    spectrum = scale[:, :, None] * normals
    image = np.real(np.fft.irfftn(spectrum[0] + 1j * spectrum[1], (h, w), axes=(0, 1)))
    mask = np.zeros(h * w)
    mask[image.reshape(-1).argsort()[::-1][:num]] = 1
    return torch.from_numpy(mask).view(h, w)


@pytest.mark.parametrize("size", [(32, 32), (12, 20), (15, 9), (20, 61)])
def test_fmix(size):
    """A float32 image orders all but the closest values as the published float64 one."""
    h, w = size
    terms = w // 2 + 1 + w % 2
    normals = np.random.RandomState(h).randn(3, h, terms, 2)
    counts = [0, h * w // 3, h * w]
    want = [_published_fmix(n, size, c) for n, c in zip(normals, counts, strict=True)]
    drawn = torch.from_numpy(normals[:, :2].copy())
    mask = fmix_mask(drawn, torch.tensor(counts), size)
    got = mask.dense()[:, 0]
    assert got.sum((1, 2)).tolist() == counts
    assert torch.equal(got[0], torch.zeros(h, w)) and torch.equal(got[2], torch.ones(h, w))
    assert int((got[1] != want[1]).sum()) <= 2
    soft = fmix_mask(drawn, counts, size, decay=1.0).dense()[1, 0]
    want_soft = _published_fmix(normals[1], size, counts[1], 1.0)
    assert int((soft != want_soft).sum()) <= 2 and not torch.equal(soft, got[1])


@pytest.mark.parametrize(
    ("number", "size", "ones", "digest", "after"),
    [
        (0, (32, 32), 460, "330cd8db", (0.3970136668, 0.7579544029)),
        (1, (24, 40), 0, "e2b1e53f", (0.2428915750, 0.8474337369)),
    ],
)
def test_fmix_of_the_published_code(number, size, ones, digest, after):
    draw, pick = seeded(number)
    lam, pixels = draw.beta(1, 1), size[0] * size[1]
    normals = draw.randn(1, size[0], size[1] // 2 + 1, 2)
    num = (math.ceil if pick.random() > 0.5 else math.floor)(lam * pixels)
    mask = fmix_mask(torch.from_numpy(normals[:, :2].copy()), [num], size).dense()
    assert int(mask.sum()) == ones and md5(mask) == digest
    np.testing.assert_allclose((draw.rand(), pick.random()), after, atol=1e-9)


# ------------------------------------------------------------------ maps


def test_stored_masks():
    values = torch.rand(2, 1, 4, 5)
    bilinear = F.interpolate(values.double(), (H, W), mode="bilinear", align_corners=False)[:, 0]
    nearest = F.interpolate(values, (H, W))[:, 0]
    got = stored_mask(values, "bilinear").dense((H, W))[:, 0]
    assert_near(got.double(), bilinear, 3e-7)
    assert torch.equal(stored_mask(values[:, 0]).dense((H, W))[:, 0], nearest)
    assert torch.equal(stored_mask(values, complement=True).dense((H, W))[:, 0], 1 - nearest)
    hard = stored_mask(values, function="threshold", threshold=0.25)
    assert torch.equal(hard.dense((H, W))[:, 0], (nearest > 0.25).float())
    logits = 10 * values - 5
    soft = stored_mask(logits, "bilinear", "sigmoid").dense((H, W))[:, 0]
    assert_near(soft.double(), (10 * bilinear - 5).sigmoid(), 3e-6)


def test_classes():
    labels = torch.randint(0, 6, (3, H, W))
    labels[0, 0], labels[1, 0, 0] = 255, -1
    chosen = torch.tensor([[0, 3, -7], [5, 5, 1], [-7, -7, -7]])
    want = torch.stack([torch.isin(y, c) for y, c in zip(labels, chosen, strict=True)]).float()
    assert torch.equal(class_mask(labels, chosen).dense((H, W))[:, 0], want)
    assert torch.equal(class_mask(labels, chosen, complement=True).dense((H, W))[:, 0], 1 - want)
    bits = torch.zeros(3, 6, dtype=torch.bool)
    bits[0, [0, 3]] = bits[1, [1, 5]] = True
    small = labels.to(torch.int16)
    assert torch.equal(class_mask(small, bits).dense((H, W))[:, 0], want)


def test_patches():
    keep = torch.rand(2, 12) < 0.5
    squares = keep.view(2, 3, 4).repeat_interleave(16, 1).repeat_interleave(16, 2).float()
    flat = patch_mask(keep, grid=(3, 4))
    assert torch.equal(flat.dense((48, 64))[:, 0], squares)
    assert torch.equal(patch_mask(keep.view(2, 3, 4)).dense((48, 64))[:, 0], squares)
    cut = patch_mask(keep, grid=(3, 4), cell=16, size=(40, 50), complement=True)
    assert torch.equal(cut.dense((40, 50))[:, 0], 1 - squares[:, :40, :50])
    assert patch_mask(keep[:, :9]).map.shape == (2, 3, 3)


def test_saliency():
    own, partner = torch.rand(2, 1, H, W), torch.rand(2, 1, H, W)
    own[0, 0, 0, 0] = partner[0, 0, 0, 0] = 0
    want = own.double() / (own + partner).double()
    want[0, 0, 0, 0] = 0.5
    got = saliency_mask(own, partner).dense((H, W))
    assert_near(got.double(), want, 2e-7)


# ------------------------------------------------------------------ use


def test_a_batch_is_mixed_by_them():
    x = torch.rand(4, 3, H, W)
    boxes = torch.tensor([[[1, 2, 6, 9]]]).repeat(4, 1, 1)
    plan = MixPlan.uniform(4, "flip", 0.5)
    got = mix(x, plan.with_mask(rectangle_mask(boxes, (H, W))))
    want = x.clone()
    want[:, :, 1:6, 2:9] = x.flip(0)[:, :, 1:6, 2:9]
    assert torch.equal(got, want)
    one = gauss_mask((5.0, 6.0), 3.0, (H, W))
    m = one.dense()
    assert torch.equal(mix(x, plan.with_mask(one)), m * x + (1 - m) * x.flip(0))


def test_extreme_numbers_and_empty_batches():
    narrow = gauss_mask((3.0, 4.0), np.float32(1e-30), (8, 9)).dense()
    assert torch.equal(gauss_mask((3.0, 4.0), 1e-200, (8, 9)).dense(), narrow)
    assert narrow.sum() == 8 * 9 - 1 and narrow[0, 0, 3, 4] == 0
    assert gauss_mask(torch.ones(0, 2), 2.0, (8, 9)).mean().shape == (0,)
    large = torch.full((1, 2, 2), 3e38)
    assert saliency_mask(large, large).mean((2, 2)).tolist() == [0.5]
