"""draw_plan has the documented distributions; p-values and counts are in the report (-rP).

Backends agree to the bit (test_draw.py and those of each backend), so one is tested: the fastest.
Seeds are fixed, so a p-value never changes by itself: below LEAST_P something is wrong.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

import fused_mixup as fm

LEAST_P = 1e-3
LARGEST = 65536
DRAWS = 16 * LARGEST  # 1,048,576


@pytest.fixture
def report(record_property):
    def record(what, p, count):
        record_property(what, f"p = {p:.4f}, n = {count:,}")
        print(f"{what}: p = {p:.4f}, n = {count:,}")
        assert p > LEAST_P

    return record


def kolmogorov_p(sample, cdf):
    """Two-sided p-value; ``cdf`` at the sorted finite values of ``sample``."""
    ordered = sample.sort().values
    n = len(ordered)
    inside = ordered.isfinite()
    rank = torch.arange(n, dtype=torch.float64)
    at = cdf(ordered[inside])
    distance = max((at - rank[inside] / n).max(), ((rank[inside] + 1) / n - at).max())
    z = math.sqrt(n) * float(distance)
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * z) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms))) if z > 0.2 else 1.0


def chi_square_p(counts, probabilities):
    """p-value of counts; cells with an expected count below 5 are merged."""
    n = sum(counts.values())
    assert counts.keys() <= probabilities.keys()
    cells = [(counts.get(cell, 0), n * p) for cell, p in probabilities.items()]
    rare = [c for c in cells if c[1] < 5]
    cells = [c for c in cells if c[1] >= 5]
    if sum(e for _, e in rare) > 0:
        cells.append((sum(o for o, _ in rare), sum(e for _, e in rare)))
    value = sum((o - e) ** 2 / e for o, e in cells)
    halves = torch.tensor([(len(cells) - 1) / 2, value / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*halves))


def logit_cdf(alpha):
    """The distribution of log(λ/(1-λ)), density ∝ (2 cosh(t/2))^-2α, by the trapezoid rule."""
    edge, step = 40.0, 1e-4  # beyond the edge the density equals exp(-α|t|) in double precision
    t = torch.arange(-edge, edge + step / 2, step, dtype=torch.float64)
    density = torch.exp(-alpha * (t.abs() + 2 * torch.log1p(torch.exp(-t.abs()))))
    tail = math.exp(-alpha * edge) / alpha
    inner = torch.cumulative_trapezoid(density, dx=step)
    inner = torch.cat((torch.zeros(1, dtype=torch.float64), inner))
    total = inner[-1] + 2 * tail

    def cdf(x):
        k = ((x + edge) / step).clamp(0, len(t) - 2).long()
        part = (x - t[k]) / step
        middle = tail + inner[k] + part * (inner[k + 1] - inner[k])
        outer = torch.exp(-alpha * x.abs()) / alpha
        value = torch.where(x < -edge, outer, torch.where(x > edge, total - outer, middle))
        return value / total

    return cdf


ALPHAS = (0.01, 0.1, 0.4, 1.0, 3.0, 100.0)


@pytest.mark.parametrize(
    "alpha", [a if a == 0.4 else pytest.param(a, marks=pytest.mark.proof) for a in ALPHAS]
)
def test_lam_is_beta_by_its_logit(alpha, report):
    # Each α has its own seed: equal words would make all p-values small or large together.
    state = fm.plan_state(ALPHAS.index(alpha))
    options = {"state": state, "mixup_alpha": alpha, "per": "sample", "pairing": "roll"}
    blend = torch.cat([fm.draw_plan(LARGEST, **options).blend for _ in range(DRAWS // LARGEST)])
    logit = blend[:, 0].log() - blend[:, 1].log()
    report(f"λ, α = {alpha}: Kolmogorov–Smirnov", kolmogorov_p(logit, logit_cdf(alpha)), len(logit))
    # Where λ rounds to 1, its complement is still positive.
    if alpha <= 0.1:
        lost = blend[:, 0] == 1.0
        assert lost.float().mean() > 0.01 and (blend[lost, 1] > 0).float().mean() > 0.9


def test_the_complement_of_lam_has_full_relative_precision():
    plan = fm.draw_plan(LARGEST, state=fm.plan_state(8), mixup_alpha=0.1, per="sample")
    minor, major = plan.blend.sort(1).values.unbind(1)
    assert (((1.0 - major) - minor).abs() <= 2.0**-52).all()
    assert len(minor[minor < 2.0**-60].unique()) > 1000


@pytest.mark.parametrize(("prob", "switch_prob"), [(0.7, 0.3), (0.99, 0.5), (0.05, 0.9)])
def test_rates_of_mixing_and_switching(prob, switch_prob, report):
    plan = fm.draw_plan(
        LARGEST,
        (64, 64),
        state=fm.plan_state(3),
        cutmix_alpha=1.0,
        prob=prob,
        switch_prob=switch_prob,
        per="sample",
        pairing="roll",
        cutmix_minmax=(0.2, 0.8),  # large enough that no box is empty
    )
    cut = (plan.box != 0).any(1)
    blended = plan.blend[:, 1] > 0
    counts = {
        "cut": int(cut.sum()),
        "blended": int(blended.sum()),
        "as it was": int((~cut & ~blended).sum()),
    }
    shares = {
        "cut": prob * switch_prob,
        "blended": prob * (1 - switch_prob),
        "as it was": 1 - prob,
    }
    report(f"rates {prob}, {switch_prob}: chi-square", chi_square_p(counts, shares), LARGEST)


def test_places_and_areas_of_boxes(report):
    # With α = 1, λ is uniform: a side is k of n with probability ((k+1)² - k²) / n².
    n = 8
    plan = fm.draw_plan(
        LARGEST,
        (n, n),
        state=fm.plan_state(12),
        mixup_alpha=0.0,
        cutmix_alpha=1.0,
        per="sample",
        pairing="roll",
    )
    places, areas = Counter(), Counter()
    for side in range(n):
        p = ((side + 1) ** 2 - side**2) / n**2
        for cy, cx in itertools.product(range(n), repeat=2):
            y, x = ((max(c - side // 2, 0), min(c + (side + 1) // 2, n)) for c in (cy, cx))
            places[y + x] += p / n**2
            areas[(y[1] - y[0]) * (x[1] - x[0])] += p / n**2
    drawn = [(y0, y1, x0, x1) for y0, x0, y1, x1 in plan.box.tolist()]
    report("boxes: chi-square", chi_square_p(Counter(drawn), places), LARGEST)
    drawn_areas = Counter((y1 - y0) * (x1 - x0) for y0, y1, x0, x1 in drawn)
    report("areas: chi-square", chi_square_p(drawn_areas, areas), LARGEST)


def test_places_and_sides_between_bounds(report):
    n, low, high = 10, 2, 6
    plan = fm.draw_plan(
        LARGEST,
        (n,),
        state=fm.plan_state(13),
        mixup_alpha=0.0,
        cutmix_alpha=1.0,
        cutmix_minmax=(low / n, high / n),
        per="sample",
        pairing="roll",
    )
    expected = {
        (start, start + side): 1 / (high - low) / (n - side + 1)
        for side in range(low, high)
        for start in range(n - side + 1)
    }
    drawn = Counter(map(tuple, plan.box.tolist()))
    report("boxes between bounds: chi-square", chi_square_p(drawn, expected), LARGEST)


def partners_of_four(pairing, per, count):
    state = fm.plan_state(99)
    labels = torch.tensor([0, 1, 2, 3])
    draws = (
        fm.draw_plan(4, state=state, pairing=pairing, per=per, labels=labels).partner.tolist()
        for _ in range(count)
    )
    return Counter(map(tuple, draws))


def is_cycle(p):
    return len({0, p[0], p[p[0]], p[p[p[0]]]}) == 4


def is_matching(p):
    return all(p[p[i]] == i != p[i] for i in range(4))


@pytest.mark.parametrize(
    ("pairing", "per", "belongs", "how_many", "count"),
    [
        pytest.param("shuffle", "sample", lambda p: True, 24, 24_000, marks=pytest.mark.proof),
        ("derangement", "sample", is_cycle, 6, 12_000),
        pytest.param("shuffle", "pair", is_matching, 3, 12_000, marks=pytest.mark.proof),
        pytest.param("cross_class", "pair", is_matching, 3, 12_000, marks=pytest.mark.proof),
    ],
    ids=["permutations", "cycles", "matchings", "matchings of classes"],
)
def test_every_permutation_is_as_likely(pairing, per, belongs, how_many, count, report):
    cells = [p for p in itertools.permutations(range(4)) if belongs(p)]
    assert len(cells) == how_many
    drawn = partners_of_four(pairing, per, count)
    p = chi_square_p(drawn, dict.fromkeys(cells, 1 / how_many))
    report(f"{pairing} of four, per {per}: chi-square", p, count)


def test_partners_of_a_large_batch_lie_anywhere(report):
    for pairing in ("shuffle", "derangement"):
        plan = fm.draw_plan(LARGEST, state=fm.plan_state(5), pairing=pairing)
        distance = (plan.partner.long() - torch.arange(LARGEST)) % LARGEST
        drawn = Counter((distance // (LARGEST // 64)).tolist())
        p = chi_square_p(drawn, dict.fromkeys(range(64), 1 / 64))
        report(f"distances, {pairing}: chi-square", p, LARGEST)
