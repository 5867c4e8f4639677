"""``fused_mixup.openmixup``: what it does where OpenMixup is wrong or raises, and bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from openmixup_cases import SETTINGS, seed_all

from fused_mixup import openmixup
from fused_mixup.openmixup import (
    attentivemix,
    cutmix,
    fmix,
    gridmix,
    mixpro,
    mixup,
    resizemix,
    saliencymix,
    smmix,
    smoothmix,
    tokenmix,
    transmix,
)

# ------------------------------------------------------------------ where OpenMixup is wrong


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(32, 32), (9, 9), (16, 31)])
def test_smoothmix_weighs_the_sample_by_its_share(size):
    x = images(4, 3, *size)
    seed_all(3)
    (out, g), (y_a, y_b, lam) = smoothmix(x, torch.arange(4), return_mask=True)
    assert lam.shape == () and abs(float(lam) - (1 - float(g[0].double().mean()))) < 1e-6
    truth = x.double() * (1 - g.double()) + x[y_b].double() * g.double()
    torch.testing.assert_close(out.double(), truth, rtol=0, atol=2.0**-20)
    line, column = g[0, 0].amax(1).double(), g[0, 0].amax(0).double()
    torch.testing.assert_close(g[0, 0].double(), torch.outer(line, column) / g.max().double())
    assert torch.equal(y_a, torch.arange(4))


def test_gridmix_on_any_sides():
    for seed in range(12):
        x = images(3, 2, 20, 37, seed=seed)
        seed_all(seed)
        (out, holes), (_, y_b, lam) = gridmix(
            x, torch.arange(3), n_holes=(2, 6), cut_area_ratio=(0.5, 1), cut_aspect_ratio=(0.5, 2),
            return_mask=True,
        )  # fmt: skip
        assert torch.equal(out, torch.where(holes.bool(), x[y_b], x))
        assert abs(float(lam) - (1 - float(holes[0].mean()))) < 1e-6


def test_resizemix_on_any_sides():
    for seed in range(12):
        x = images(3, 2, 20, 37, seed=seed)
        seed_all(seed)
        (out, mask), (_, y_b, lam) = resizemix(x.clone(), torch.arange(3), return_mask=True)
        inside = mask[0, 0].bool()
        h, w = int(inside.any(1).sum()), int(inside.any(0).sum())
        assert int(inside.sum()) == h * w and abs(float(lam) - (1 - h * w / (20 * 37))) < 1e-12
        small = F.interpolate(x[y_b], (h, w))
        assert torch.equal(out[..., inside], small.flatten(2))
        assert torch.equal(out[..., ~inside], x[..., ~inside])


def test_resizemix_of_squares_differs_in_the_mask_alone():
    x = images(3, 2, 20, 20)
    results = []
    for compat in (False, True):
        seed_all(5)
        results.append(resizemix(x.clone(), torch.arange(3), return_mask=True, compat=compat))
    ((ours, mask), _), ((theirs, transposed), _) = results
    assert torch.equal(ours, theirs) and torch.equal(mask, transposed.mT)


def test_fmix_keeps_a_given_share():
    for lam in (0.0, 0.25, 0.6, 1.0):
        (_, mask), (_, _, returned) = fmix(
            images(2, 1, 32, 32), torch.arange(2), lam=lam, return_mask=True
        )
        assert returned == lam and abs(float(mask[0].mean()) - lam) <= 1 / 1024
    (_, mask), (_, _, lam) = fmix(
        images(2, 1, 32, 32), torch.arange(2), lam=0.6, return_mask=True, compat=True
    )
    assert lam == 0.6 or abs(float(mask[0].mean()) - lam) <= 1 / 1024


def test_fmix_by_rows_equals_its_mask():
    """What the kernel computes from three numbers per row is the mask of the host."""
    for seed in range(8):
        x = images(3, 2, 32, 24, seed=seed)
        results = []
        for return_mask in (False, True):
            seed_all(seed)
            results.append(fmix(x, torch.arange(3), size=(32, 24), return_mask=return_mask))
        (by_rows, target), ((by_map, _), other) = results
        assert torch.equal(by_rows, by_map) and target[2] == other[2]


def test_tokenmix_counts_attention_where_each_image_shows():
    x, attn = images(3, 1, 28, 28), torch.rand(3, 2, 197, 197)
    seed_all(1)
    (out, mask), (_, y_b, a, b) = tokenmix(x, torch.arange(3), attn, return_mask=True)
    assert torch.equal(out, torch.where(mask.bool(), x[y_b], x)) and mask.shape == (3, 1, 28, 28)
    cells = mask[:, 0, ::2, ::2].reshape(3, 196)
    rows = attn[:, :, 0, 1:].mean(1)
    torch.testing.assert_close(a, (rows * (1 - cells)).sum(1))
    torch.testing.assert_close(b, (rows[y_b] * cells).sum(1))
    seed_all(1)
    _, (_, _, a, b) = tokenmix(x, torch.arange(3))  # shares of the area
    torch.testing.assert_close(a, 1 - cells.mean(1))
    torch.testing.assert_close(a + b, torch.ones(3))


def test_transmix_by_a_mask():
    x, mask = images(2, 3, 8, 12), torch.zeros(2, 1, 8, 12)
    mask[:, :, :4, :6] = 1
    out, (_, y_b, lam) = transmix(x.clone(), torch.arange(2), mask=mask)
    assert torch.equal(out, torch.where(mask.bool(), x[y_b], x)) and float(lam) == 0.75
    attn = torch.zeros(2, 1, 5, 5)
    attn[:, 0, 0, 1:] = torch.tensor([0.5, 0.1, 0.1, 0.3])  # the first patch shows the partner
    _, (_, _, lam) = transmix(
        x.clone(), torch.arange(2), mask=mask, attn=attn, patch_shape=(2, 2), ratio=0.5
    )
    torch.testing.assert_close(lam, torch.full((2,), 0.5 * 0.75 + 0.5 * 0.5))
    seed_all(0)
    _, (_, _, lam) = transmix(x.clone(), torch.arange(2), lam=0.5)  # OpenMixup raises
    assert 0.5 <= float(lam) <= 1.0


def test_mixpro_weighs_samples():
    out, (y_a, y_b, lam), kept, soft = mixpro(
        images(3, 1, 20, 12), torch.tensor([0, 1, 2]), num_classes=5, mask_patch_size=8,
        model_patch_size=4,
    )  # fmt: skip
    assert out.shape == (3, 1, 20, 12) and torch.equal(kept, lam)
    torch.testing.assert_close(soft.sum(1), torch.ones(3))
    smooth = F.one_hot(y_a, 5) * 0.9 + 0.02, F.one_hot(y_b, 5) * 0.9 + 0.02
    torch.testing.assert_close(soft, smooth[0] * lam[:, None] + smooth[1] * (1 - lam[:, None]))


def test_smmix_keeps_what_lies_beyond_the_last_patch():
    x, attn = images(2, 1, 9, 13), torch.rand(2, 1, 17, 17)
    out, _, (kept, pasted) = smmix(x, torch.arange(2), attn, True, side=4)
    assert torch.equal(out[..., 8:, :], x[..., 8:, :]) and torch.equal(out[..., 12:], x[..., 12:])
    assert torch.equal(torch.where(kept.bool(), out, 0), torch.where(kept.bool(), x, 0))
    assert torch.equal(kept + pasted, torch.ones(2, 1, 9, 13))


def test_labels_of_two_views_follow_their_sample():
    x, y = images(4, 2, 3, 8, 8), torch.arange(4)
    for mix in (mixup, cutmix, smoothmix):
        out, (y_a, y_b, _) = mix(x.clone(), y)
        assert out.shape == (4, 3, 8, 8) and torch.equal(y_b, y_a)
    out, (_, _, lam) = mixup(x, y, lam=0.25)
    torch.testing.assert_close(out, 0.25 * x[:, 0] + 0.75 * x[:, 1])


# ------------------------------------------------------------------ dtypes, places, bad input


def test_dtypes():
    y = torch.arange(2)
    x = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert mixup(x, y)[0].dtype == torch.float32
    assert cutmix(x.clone(), y)[0].dtype == torch.uint8
    assert fmix(x, y, size=(16, 16))[0].dtype == torch.uint8
    assert gridmix(x, y, n_holes=4)[0].dtype == torch.float32
    half = torch.randn(2, 3, 16, 16).half()
    assert mixup(half, y)[0].dtype == torch.float16
    assert smoothmix(half, y)[0].dtype == torch.float32


def test_nan_of_a_hidden_partner_stays_out():
    x = torch.zeros(2, 1, 16, 16)
    x[1] = float("nan")
    out, (_, y_b, lam) = gridmix(x, torch.arange(2), n_holes=4, lam=0.5)
    assert 0 < float(out[0].isnan().float().mean()) < 1 or int(y_b[0]) == 0


X, Y = torch.zeros(2, 3, 28, 28), torch.arange(2)
BAD = [
    (mixup, (X, Y), {"compat": "1.0"}, ValueError, "compat: .*0.2.10"),
    (mixup, ([1], Y), {}, TypeError, "img: "),
    (mixup, (X[0], Y), {}, ValueError, "img: .*two views"),
    (mixup, (X, torch.arange(3)), {}, ValueError, "gt_label: "),
    (mixup, (X, None), {}, TypeError, "gt_label: "),
    (mixup, (X, Y), {"dist_mode": True}, ValueError, "init_process_group"),
    (cutmix, (X.bool(), Y), {}, TypeError, "img: "),
    (fmix, (X, Y), {}, ValueError, r"size: .*\(28, 28\)"),
    (cutmix, (X, Y), {"lam": float("nan")}, ValueError, "lam: expected"),
    (mixup, (X, Y), {"alpha": -1.0}, ValueError, "alpha: expected"),
    (fmix, (X, Y), {"lam": 2.0, "size": (28, 28)}, ValueError, "lam: expected"),
    (resizemix, (X, Y), {"lam": 2.0}, ValueError, "lam: expected"),
    (gridmix, (X, Y), {}, AssertionError, "n_holes: "),
    (resizemix, (X, Y), {"scope": (0.1,)}, AssertionError, "scope: "),
    (attentivemix, (X, Y), {}, ValueError, "features: "),
    (attentivemix, (X, Y), {"features": torch.ones(2, 4, 2, 2)}, ValueError, "top_k: "),
    (tokenmix, (X, Y), {"mask_type": "row"}, ValueError, "mask_type: "),
    (tokenmix, (X, Y, torch.ones(2, 1, 50, 50)), {}, ValueError, "attn: .*196"),
    (transmix, (X, Y), {"attn": torch.ones(2, 1, 5, 5)}, ValueError, "patch_shape: "),
    (smmix, (X, Y), {}, ValueError, "attn: "),
    (saliencymix, (X, Y), {"saliency": torch.ones(3, 3)}, ValueError, "saliency: "),
    (openmixup.puzzlemix, (X, Y), {}, (ValueError, RuntimeError), "features: |gco-wrapper"),
    (openmixup.snapmix, (X, Y), {}, ValueError, "features: "),
    (openmixup.guidedmix, (X, Y), {"condition": "random"}, ValueError, "condition: "),
    (openmixup.alignmix, (X, Y), {"dist_mode": True}, ValueError, "dist_mode: "),
    (openmixup.tla, (X, Y), {"patch_size": 16}, ValueError, "patch_size: "),
]  # fmt: skip


@pytest.mark.parametrize(("mix", "arguments", "keywords", "error", "message"), BAD)
def test_bad_arguments(mix, arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        mix(*arguments, **keywords)


def test_every_mix_is_tried():
    assert set(openmixup.__all__) == SETTINGS.keys()
