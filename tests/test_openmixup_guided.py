"""The guided mixes of ``fused_mixup.openmixup`` against plain formulas, without OpenMixup."""

from __future__ import annotations

import sys
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from openmixup_cases import seed_all, setting

from fused_mixup.openmixup import (
    alignmix,
    guidedmix,
    puzzlemix,
    resizemix,
    saliencymix,
    snapmix,
)
from fused_mixup.openmixup.alignment import sinkhorn, squared_distances
from fused_mixup.openmixup.puzzle_mask import cut_costs
from fused_mixup.openmixup.puzzle_transport import distances, transport
from fused_mixup.openmixup.salient import far_cycle
from fused_mixup.saliency import class_activation, gaussian_blur, spectral_residual


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ PuzzleMix


def published_plan(mask, saliency, eps):
    """The plan [B, n, n] of the paper's code: one-hot matrices, round by round."""
    n = mask[0].numel()
    shown = (mask > 0).float().reshape(-1, 1, n)
    cost = eps * distances(mask.shape[1:], mask.device) - saliency.reshape(-1, n, 1) * shown
    for _ in range(mask.shape[-1]):
        plan = torch.zeros_like(cost).scatter_(-1, cost.min(-1)[1].unsqueeze(-1), 1)
        best = (plan * cost).min(-2)[1]
        won = torch.zeros_like(cost).scatter_(-2, best.unsqueeze(-2), 1) * plan
        cost += (1 - won) * plan
    return won


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.8, 10.0])
def test_transport_equals_the_published_plan(eps):
    generator = torch.Generator().manual_seed(int(100 * eps))
    for grid in ((2, 2), (4, 4), (8, 8), (2, 4), (1, 1)):
        mask = torch.randint(0, 3, (6, *grid), generator=generator) / 2
        mask[0], mask[1] = 0, 1
        saliency = torch.rand(6, *grid, generator=generator) ** 4
        saliency[2] = 0  # costs that tie
        plan = published_plan(mask, saliency, eps)
        truth = torch.where(plan.sum(1) > 0, plan.argmax(1), -1)
        assert torch.equal(transport(mask, saliency, eps).flatten(1), truth)


def test_distances():
    d = distances((4, 4), torch.device("cpu"))
    assert d[0, 15] == 18 / 9 and d[5, 6] == 1 / 9 and torch.equal(d, d.T)


def test_costs_of_equal_images_have_no_edges():
    x, s = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4)
    own, theirs, down, across = cut_costs((s, s), (x, x), (2, 2), 0.3)
    assert torch.equal(own, theirs) and not down.any() and not across.any()
    assert down.shape == (2, 3, 4) and across.shape == (2, 4, 3) and (own >= s).all()


def test_puzzlemix_shows_what_is_salient():
    pytest.importorskip("gco", reason="gco is not installed; pip install gco-wrapper")
    x = torch.stack((torch.full((3, 32, 32), 1.0), torch.full((3, 32, 32), 2.0)))
    maps = torch.full((2, 32, 32), 1e-3)
    maps[0, :, :16], maps[1, :, 16:] = 1, 1  # the left half of one, the right half of the other
    for seed in range(20):
        seed_all(seed)
        out, (y_a, y_b, lam) = puzzlemix(
            x, torch.arange(2), features=maps, block_num=(2, 3), transport=False
        )
        if y_b[0] == 1 and lam[0] == 0.5:
            break
    else:
        pytest.fail("no draw paired the images")
    assert torch.equal(out[0, :, :, :16], x[0, :, :, :16])
    assert torch.equal(out[0, :, :, 16:], x[1, :, :, 16:])
    torch.testing.assert_close(lam, (out == x).float().mean((1, 2, 3)))


def test_puzzlemix_without_gco(monkeypatch):
    monkeypatch.setitem(sys.modules, "gco", None)
    (x, y), keywords = setting("puzzlemix", 0)
    with pytest.raises(RuntimeError, match="pip install gco-wrapper"):
        puzzlemix(x, y, **keywords)


# ------------------------------------------------------------------ GuidedMixup


def test_far_cycle_is_one_cycle():
    for n in (1, 2, 3, 7, 16):
        distance = np.random.default_rng(n).random((n, n))
        distance = distance + distance.T
        partner = far_cycle(distance)
        at, seen = 0, []
        for _ in range(n):
            at = int(partner[at])
            seen.append(at)
        assert sorted(seen) == list(range(n))
    distance = np.array([[0, 1, 9, 2], [1, 0, 3, 4], [9, 3, 0, 5], [2, 4, 5, 0.0]])
    assert far_cycle(distance).tolist() == [2, 0, 3, 1]  # 0 → 2, the farthest, → 3 → 1 → 0


def test_guidedmix_pairs_by_its_cycle():
    x, maps = images(5, 3, 16, 20), torch.rand(5, 16, 20) ** 3
    maps[3] = 0
    maps[3, 8, 8] = 1
    (out, mask), (y_a, y_b, lam, rest) = guidedmix(
        x, torch.arange(5), features=maps, return_mask=True
    )
    at, seen = 0, set()
    for _ in range(5):
        at = int(y_b[at])
        seen.add(at)
    assert len(seen) == 5
    s = gaussian_blur(maps, (7, 7), (3, 3))
    s = s / s.sum((1, 2), keepdim=True)
    m = (s / (s + s[y_b]))[:, None]
    torch.testing.assert_close(mask, m.expand(-1, 3, -1, -1))
    torch.testing.assert_close(out, m * x + (1 - m) * x[y_b])
    torch.testing.assert_close(lam[:, 0], m.mean((1, 2, 3)))
    torch.testing.assert_close(lam + rest, torch.ones(5, 1))
    nothing = torch.zeros(2, 16, 16)
    nothing[:, :1, :1] = 1  # elsewhere both are 0 after the blur
    out, (_, _, lam, _) = guidedmix(images(2, 3, 16, 16), torch.arange(2), features=nothing)
    assert bool(out.isfinite().all()) and bool(lam.isfinite().all())


# ------------------------------------------------------------------ SnapMix, SaliencyMix, ResizeMix


def test_snapmix_takes_features_and_a_classifier():
    x, y = images(4, 3, 16, 20), torch.tensor([0, 1, 1, 2])
    hidden, weight, bias = images(4, 5, 4, 4), images(3, 5), images(3)
    results = []
    maps = class_activation(hidden, weight, bias, y, (16, 20))
    for features in ((hidden, weight, bias), maps):
        seed_all(4)
        results.append(snapmix(x.clone(), y, alpha=5.0, features=features))
    assert torch.equal(results[0][0], results[1][0])
    (_, (y_a, y_b, lam_a, lam_b)), _ = results
    same = y_a == y_b
    torch.testing.assert_close(lam_a[same], lam_b[same])
    assert not torch.equal(results[0][0], x) and bool(((lam_a >= 0) & (lam_b >= 0)).all())


def test_saliencymix_places_its_box_by_a_function():
    x = images(3, 3, 24, 24) * 0.01
    x[:, :, 5:9, 14:18] += 3
    seed_all(0)
    (out, mask), (_, y_b, lam) = saliencymix(
        x.clone(), torch.arange(3), lam=0.75, saliency=spectral_residual, return_mask=True
    )
    ys, xs = torch.nonzero(mask[0, 0], as_tuple=True)
    assert abs(float(ys.float().mean()) - 6.5) < 3 and abs(float(xs.float().mean()) - 15.5) < 3
    assert torch.equal(out, torch.where(mask.bool(), x[y_b], x)) and lam == 0.75
    with pytest.raises((RuntimeError, ImportError), match="saliency=|cv2"):
        without_opencv(x)


def without_opencv(x):
    with mock.patch.dict(sys.modules, {"cv2": None, "cv2.saliency": None}):
        saliencymix(x, torch.arange(3))


def test_bilinear_resizemix_equals_interpolate():
    x = images(3, 2, 24, 24)
    seed_all(2)
    (out, mask), (_, y_b, _) = resizemix(
        x.clone(), torch.arange(3), lam=0.7, interpolate_mode="bilinear", return_mask=True
    )
    inside = mask[0, 0].bool()
    h, w = int(inside.any(1).sum()), int(inside.any(0).sum())
    small = F.interpolate(x[y_b], (h, w), mode="bilinear")
    torch.testing.assert_close(out[..., inside], small.flatten(2), rtol=0, atol=2.0**-20)
    assert torch.equal(out[..., ~inside], x[..., ~inside])


# ------------------------------------------------------------------ AlignMix


def test_alignmix_is_differentiable_and_transports_mass():
    f = images(3, 4, 3, 2).double().requires_grad_()
    out, (_, y_b, lam) = alignmix(f * 0.5, torch.arange(3), lam=0.25)
    assert out.shape == f.shape and lam == 0.25
    out.square().sum().backward()
    assert bool(f.grad.any())
    x, y = images(2, 6, 4).double(), images(2, 6, 4, seed=1).double()
    cost = squared_distances(x, y)
    torch.testing.assert_close(cost, torch.cdist(x, y) ** 2)
    plan = sinkhorn(cost, 0.5, 200)
    torch.testing.assert_close(plan.sum((1, 2)), torch.ones(2).double(), rtol=0.2, atol=0)
    assert bool((plan >= 0).all())
