"""draw_variants has the distributions of its variants: areas, places, shares and choices.

Backends agree to the bit (test_draw_variants.py), so one is tested. Seeds are fixed, so nothing
here changes by itself: a mean further than BOUND of its standard errors from the exact one, or a
p-value below LEAST_P, means that something is wrong.
"""

from __future__ import annotations

import math

import pytest
import torch
from test_draw_statistics import chi_square_p, kolmogorov_p
from variant_cases import one_variant

import fused_mixup as fm
from fused_mixup import ops

LEAST_P = 1e-3
BOUND = 4.5
UNITS = 50_000  # of one draw; two draws make 10⁵ where the test is a proof


def draws(name, size, numbers=None, alpha=1.0, count=UNITS, steps=2, rank=None):
    """weight, blend, box, rows, columns, resize_box of ``steps`` draws of ``count`` units."""
    args = one_variant(name, count, size, numbers, alpha, rank=rank)
    made = [ops.draw_variants(*args) for _ in range(steps)]
    names = ("weight", "blend", "box", "rows", "columns", "resize_box")
    return {
        n: torch.cat([m[k] for m in made]) for n, k in zip(names, (1, 2, 3, 6, 7, 8), strict=True)
    }


def assert_mean(values, exact, spread=None):
    """The mean lies within BOUND standard errors of the exact one; the spread within 3 %."""
    values = values.double()
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - exact) <= BOUND * error + 1e-7, (values.mean(), exact, error)
    if spread is not None:
        assert values.std().item() == pytest.approx(spread, rel=0.03)


def test_variants_are_chosen_by_their_weights():
    weights = {"mixup": 0.1, "cutmix": 0.0, "gridmix": 0.35, "specmix": 0.55}
    mix = dict.fromkeys(weights)
    state = fm.plan_state(3)
    plan = fm.draw_variants(
        20_000, (8, 8), state=state, mix=mix, weights=weights, prob=0.8, per="sample"
    )
    grid = plan.mask.code == 17
    bands = plan.mask.code == 1
    blended = plan.blend[:, 0] != 1
    other = ~(grid | bands | blended)
    counts = dict(enumerate(int(t.sum()) for t in (blended, grid, bands, other)))
    assert chi_square_p(counts, dict(enumerate((0.08, 0.28, 0.44, 0.2)))) > LEAST_P
    assert not (plan.box[:, 2:] > plan.box[:, :2]).any()


@pytest.mark.proof
def test_gridmix_shows_what_its_law_says():
    """Holes of side trunc(period·sqrt(1-λ)): by Python's loop over the same law, other numbers."""
    ours = draws("gridmix", (32, 32))["weight"][:, 1]
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(6, 30_000, generator=generator, dtype=torch.float64).tolist()
    shares = []
    for lam, holes, area, aspect, _, _ in zip(*u, strict=True):
        aspect = 0.5 + 1.5 * aspect
        crop_w = min(int(math.sqrt(int(1024 * (0.5 + 0.5 * area)) / aspect)), 32)
        crop_h = min(int(crop_w * aspect), 32)
        period = math.ceil(crop_w / max(min(2 + int(5 * holes), crop_w // 2), 1))
        hole = min(max(int(period * math.sqrt(lam)), 1), period - 1)
        sides = (n // period * hole + min(n % period, hole) for n in (crop_w, crop_h))
        shares.append(math.prod(sides) / 1024)
    theirs = torch.tensor(shares, dtype=torch.float64)
    error = math.sqrt(ours.double().var() / len(ours) + theirs.var() / len(theirs))
    assert abs(ours.double().mean() - theirs.mean()) < BOUND * error
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.03)


@pytest.mark.proof
def test_specmix_covers_what_its_law_says():
    """All numbers and places of bands, one by one."""
    height, width = 10, 12

    def law(n):
        band = int(0.3 * n)
        starts = range(n - band + 1)
        kept = [[n], [n - band] * len(starts)]
        kept.append([n - len({*range(a, a + band), *range(b, b + band)}) for a in starts
                     for b in starts])  # fmt: skip
        means = [sum(k) / len(k) / n for k in kept]
        squares = [sum(v * v for v in k) / len(k) / n**2 for k in kept]
        return sum(means) / 3, sum(squares) / 3

    (mean_y, square_y), (mean_x, square_x) = law(height), law(width)
    exact = mean_y * mean_x
    spread = math.sqrt(square_y * square_x - exact**2)
    assert_mean(draws("specmix", (height, width))["weight"][:, 0], exact, spread)


@pytest.mark.proof
def test_smoothmix_and_gmix_weigh_what_their_laws_say():
    """By sums over all places and the middles of 400 strips of σ and λ."""
    n = 16
    at = torch.arange(n, dtype=torch.float64)
    middles = (torch.arange(400, dtype=torch.float64) + 0.5) / 400

    def moments(exponents):  # [strips, places, n]
        sums = torch.exp(-exponents).sum(2) / n  # [strips, places]
        return sums.mean(1).square(), sums.square().mean(1).square()

    sigma = (0.25 + 0.25 * middles) * n
    centre = n / 2 - 0.5 + at - n // 2
    squares = (at - centre[:, None]).square()
    first, second = (
        m.mean().item() for m in moments(squares / (2 * sigma.square())[:, None, None])
    )
    weight = draws("smoothmix", (n, n))["weight"]
    assert_mean(weight[:, 1], first, math.sqrt(second - first**2))

    share = torch.minimum(middles, 1 - middles) * n * n
    squares = (at - at[:, None]).square()
    first, second = moments(math.pi * squares / share[:, None, None])
    own = middles < 0.5
    mean = torch.where(own, first, 1 - first)
    square = torch.where(own, second, 1 - 2 * first + second)
    exact = mean.mean().item()
    spread = math.sqrt(square.mean().item() - exact**2)
    assert_mean(draws("gmix", (n, n))["weight"][:, 0], exact, spread)


@pytest.mark.proof
def test_fmix_shows_each_pixel_as_often():
    """Deviates are symmetric, so each pixel is the sample's own in half of all draws."""
    parts = ops.draw_variants(*one_variant("fmix", UNITS, (6, 5)))
    rows, columns, threshold = parts[6], parts[7], parts[5]
    s = rows[:, 0, :, None] * columns[:, 0, None]
    for k in (1, 2):
        s = s + rows[:, k, :, None] * columns[:, k, None]
    shown = (s > threshold[:, None, None]).double().mean(0)
    assert ((shown - 0.5).abs() < BOUND * 0.5 / math.sqrt(UNITS)).all()
    uniform = kolmogorov_p(parts[1][:, 0].double(), lambda x: x)
    assert uniform > LEAST_P  # λ ~ Beta(1, 1)


@pytest.mark.proof
@pytest.mark.parametrize("boxes", [1, 2, 4])
def test_cutmix_seg_covers_its_area(boxes):
    """One box covers ½ but for rounded sides; of several, each pixel is hit alike by the law."""
    size = (64, 48)
    weight = draws("cutmix_seg", size, (0.5, 0.5, boxes), count=25_000, steps=4, rank=4)["weight"]
    if boxes == 1:
        assert_mean(weight[:, 1], 0.5, None)
        assert (weight[:, 1] - 0.5).abs().max() < 0.03
    generator = torch.Generator().manual_seed(2)
    u = torch.rand(4, boxes, 4000, generator=generator, dtype=torch.float64)
    tall = 0.5 ** u[0] * math.sqrt(1 / boxes)
    sides = tall, 0.5 / boxes / tall
    odd = torch.zeros(4000, *size, dtype=torch.bool)
    for k in range(boxes):
        hit = []
        for side, n, place in zip(sides, size, u[1:3], strict=True):
            length = (side[k] * n + 0.5).floor()
            start = ((n - length) * place[k] + 0.5).floor()
            at = torch.arange(n)
            hit.append((at >= start[:, None]) & (at < (start + length)[:, None]))
        odd ^= hit[0][:, :, None] & hit[1][:, None, :]
    theirs = odd.double().mean((1, 2))
    error = math.sqrt(weight[:, 1].var() / len(weight) + theirs.var() / len(theirs))
    assert abs(weight[:, 1].double().mean() - theirs.mean()) < BOUND * error + 1e-6


@pytest.mark.proof
def test_resizemix_places_are_shifted_inside():
    """For one τ: centres alike, those near a border lead to the border's place."""
    n, side = 20, 7
    box = draws("resizemix", (n, n), (0.35, 0.35), alpha=0.0)["resize_box"]
    starts = [min(max(c - side // 2, 0), n - side) for c in range(n)]
    law = {s: starts.count(s) / n for s in set(starts)}
    for axis in range(2):
        found = box[:, axis].tolist()
        counts = {s: found.count(s) for s in law}
        assert sum(counts.values()) == len(found)
        assert chi_square_p(counts, law) > LEAST_P
    assert (box[:, 2] - box[:, 0] == side).all()
    tau = draws("resizemix", (10_000, 1), (0.1, 0.8), alpha=0.0, count=10_000)["resize_box"]
    tau = (tau[:, 2] - tau[:, 0]).double() / 10_000
    assert kolmogorov_p(tau, lambda x: ((x - 0.1) / 0.7).clamp(0, 1)) > LEAST_P


@pytest.mark.proof
def test_hmix_boxes_are_those_of_cutmix_for_a_ratio_of_one():
    a, b = (draws(name, (30, 40), numbers, count=5000, steps=1)
            for name, numbers in (("hmix", (1.0,)), ("cutmix", ())))  # fmt: skip
    assert torch.equal(a["box"], b["box"])
    small = draws("hmix", (300, 300), (0.25,), count=20_000, steps=1)
    side = (small["box"][:, 2:] - small["box"][:, :2]).amax(1).double()
    whole = torch.sqrt((1 - small["weight"][:, 0].double()).clamp(min=0))
    assert (side <= 150 * whole + 1e-3).all() and (side > 149 * whole - 1).double().mean() > 0.5
