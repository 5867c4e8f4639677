"""``fused_mixup.timm.Mixup`` against the timm that is installed: draws, images, targets, state."""

# ruff: noqa: NPY002  (timm draws from the legacy generator)

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from peers import timm

from fused_mixup.timm import Mixup
from fused_mixup.timm.draws import draw_boxes

OLD = "timm<=1.0.28"
Theirs = timm.data.mixup.Mixup
HALF = (torch.float16, torch.bfloat16)


def state():
    kind, words, *rest = np.random.get_state()
    return kind, words.tobytes(), *rest


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


def configuration(rng):
    """Arguments of one mixer, and a shape."""
    mixup_alpha, cutmix_alpha = rng.choice(
        [(1.0, 0.0), (0.8, 1.0), (0.0, 1.0), (0.2, 0.2), (0.05, 0.05)]
    )
    minmax = rng.choice([None, None, (0.2, 0.8), [0.1, 0.9]])
    # minmax needs a pixel between the two bounds of a side.
    sizes = range(1, 24) if minmax is None else range(4, 24)
    h = rng.choice(sizes)
    w = h if rng.random() < 0.4 else rng.choice(sizes)
    arguments = {
        "mixup_alpha": mixup_alpha,
        "cutmix_alpha": cutmix_alpha,
        "cutmix_minmax": minmax,
        "prob": rng.choice([0.0, 0.5, 1.0]),
        "switch_prob": rng.choice([0.0, 0.3, 0.5, 1.0]),
        "mode": rng.choice(["batch", "pair", "elem", "no such mode"]),
        "correct_lam": rng.random() < 0.7,
        "label_smoothing": rng.choice([0.0, 0.1, 0.37]),
        "num_classes": rng.choice([1, 2, 7, 10, 33]),
        "multi_label": rng.random() < 0.25,
    }
    return arguments, (rng.choice([0, 2, 4, 6, 10]), rng.choice([1, 3]), h, w)


def labels_for(arguments, batch_size, generator):
    k = arguments["num_classes"]
    if arguments["multi_label"]:
        dense = torch.rand(batch_size, k, generator=generator) < 0.3
        return dense.to(random.Random(k + batch_size).choice([torch.float32, torch.int64]))
    return torch.randint(0, k, (batch_size,), generator=generator)


def images_for(shape, dtype, generator):
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, generator=generator)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def run_both(arguments, x, target, seed, enabled=True, theirs=Theirs, **extra):
    """(images, targets, state) of timm and of ours after two batches of the same draws."""
    results = []
    for make in (theirs, lambda **a: Mixup(**a, **extra)):
        np.random.seed(seed)
        mixer = make(**arguments)
        mixer.mixup_enabled = enabled
        images, targets = [], []
        for _ in range(2):
            given = x.clone()
            out, t = mixer(given, target)
            assert out is given
            images.append(out)
            targets.append(t)
        results.append((images, targets, state()))
    return results


def check_equal(results, images=True):
    (their_images, their_targets, their_state), (our_images, our_targets, our_state) = results
    assert their_state == our_state
    for a, b in zip(their_targets, our_targets, strict=True):
        assert same(a, b)
    for a, b in zip(their_images, our_images, strict=True):
        assert same(a, b) or not images


def cuts_batches_only(arguments):
    """Whether timm mixes uint8 correctly: CutMix with one λ for the batch."""
    cuts = arguments["cutmix_alpha"] > 0 or arguments["cutmix_minmax"] is not None
    never_blends = cuts and (arguments["mixup_alpha"] == 0 or arguments["switch_prob"] == 1.0)
    return never_blends and arguments["mode"] not in ("pair", "elem")


@pytest.mark.parametrize("part", range(10))
def test_equals_timm(part):
    """Bit for bit: images, targets and their dtype, and the generator's state."""
    mixed = 0
    for k in range(220):
        seed = 1000 * part + k
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        arguments, shape = configuration(rng)
        dtype = rng.choice([torch.float32, torch.float32, torch.float64, torch.uint8])
        if dtype == torch.uint8 and not cuts_batches_only(arguments):
            arguments |= {"mode": "batch", "switch_prob": 1.0, "cutmix_alpha": 1.0}
        x = images_for(shape, dtype, generator)
        target = labels_for(arguments, shape[0], generator)
        results = run_both(arguments, x, target, seed, enabled=rng.random() < 0.9)
        check_equal(results)
        mixed += not torch.equal(results[1][0][0], x)
    assert mixed > 60  # the draws mixed some images


def test_half_images_lie_no_further_from_the_truth():
    """Half types: draws, targets and state are equal; images no further from the float64 result."""
    closer = 0
    for seed in range(300):
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        arguments, shape = configuration(rng)
        x = images_for(shape, rng.choice(HALF), generator)
        target = labels_for(arguments, shape[0], generator)
        results = run_both(arguments, x, target, seed)
        check_equal(results, images=False)
        truth, _ = run_both(arguments, x.double(), target, seed)[0][:2]
        for a, b, exact in zip(results[0][0], results[1][0], truth, strict=True):
            assert b.dtype == x.dtype
            theirs = (a.double() - exact).abs()
            ours = (b.double() - exact).abs()
            assert bool((ours <= theirs + 2e-6).all())  # float32's own rounding, where x is 5
            closer += bool((ours < theirs).any())
    assert closer > 50


def older_boxes(monkeypatch):
    """timm's two box functions up to version 1.0.28."""

    def centred(img_shape, lam, margin=0.0, count=None):
        h, w = img_shape[-2:]
        scale = np.sqrt(1 - lam)
        side_h, side_w = int(h * scale), int(w * scale)
        cy, cx = np.random.randint(0, h), np.random.randint(0, w)
        rows = np.clip([cy - side_h // 2, cy + side_h // 2], 0, h)
        columns = np.clip([cx - side_w // 2, cx + side_w // 2], 0, w)
        return (*rows, *columns)

    def between(img_shape, minmax, count=None):
        h, w = img_shape[-2:]
        side_h = np.random.randint(int(h * minmax[0]), int(h * minmax[1]))
        side_w = np.random.randint(int(w * minmax[0]), int(w * minmax[1]))
        y, x = np.random.randint(0, h - side_h), np.random.randint(0, w - side_w)
        return y, y + side_h, x, x + side_w

    monkeypatch.setattr(timm.data.mixup, "rand_bbox", centred)
    monkeypatch.setattr(timm.data.mixup, "rand_bbox_minmax", between)


def test_older_boxes(monkeypatch):
    older_boxes(monkeypatch)
    differs = 0
    for seed in range(300):
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        arguments, shape = configuration(rng)
        x = images_for(shape, torch.float32, generator)
        target = labels_for(arguments, shape[0], generator)
        results = run_both(arguments, x, target, seed, compat=OLD)
        check_equal(results)
        todays = run_both(arguments, x, target, seed)[1]
        differs += any(not same(a, b) for a, b in zip(results[1][0], todays[0], strict=True))
    assert differs > 20  # differs from today's boxes


@pytest.mark.parametrize("size", [(16, 16), (7, 31), (1, 5), (300, 2)])
def test_one_call_draws_what_scalar_calls_draw(size):
    """One call with n pairs of bounds gives the numbers and state of n calls."""
    for n in (1, 2, 65):
        np.random.seed(n)
        scalars = [[np.random.randint(0, bound) for bound in size] for _ in range(n)]
        after = state()
        np.random.seed(n)
        assert np.random.randint(0, np.broadcast_to(size, (n, 2))).tolist() == scalars
        assert state() == after


def test_sides_round_as_float32_scalars():
    """λ whose sides lie at a whole number, where float32 and float64 truncate differently."""
    whole = (1 - (np.arange(1, 224) / 224) ** 2).astype(np.float32)
    lam = np.concatenate((whole, np.nextafter(whole, 0), np.nextafter(whole, 1)))
    exact = (224 * np.sqrt(1 - lam.astype(np.float64))).astype(int)
    assert (exact != (np.float32(224) * np.sqrt(1 - lam)).astype(int)).sum() > 5
    np.random.seed(0)
    theirs = [timm.data.mixup.cutmix_bbox_and_lam((3, 224, 224), one) for one in lam]
    after = state()
    np.random.seed(0)
    box, area_lam = draw_boxes(Mixup(), (224, 224), lam)
    assert state() == after
    for (their_box, their_lam), (y0, x0, y1, x1), one in zip(theirs, box, area_lam, strict=True):
        assert their_box == (y0, y1, x0, x1)
        assert np.float32(their_lam) == one


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_default_dtype_float64(mode):
    """timm makes one-hot rows in the default dtype."""
    torch.set_default_dtype(torch.float64)
    try:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            arguments = {"mode": mode, "num_classes": 5, "cutmix_alpha": 1.0}
            x = torch.randn(4, 3, 6, 6).to(dtype)
            results = run_both(arguments, x, torch.tensor([0, 3, 3, 1]), 5)
            check_equal(results, images=dtype != torch.bfloat16)
            assert results[1][1][0].dtype == torch.float64
            # uint8: as float32 images (timm rounds λ to 0).
            of_bytes = []
            for given in (x.float(), torch.zeros(4, 3, 6, 6, dtype=torch.uint8)):
                np.random.seed(5)
                of_bytes.append(Mixup(**arguments)(given, torch.tensor([0, 3, 3, 1]))[1])
            assert same(*of_bytes)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32])
def test_labels_of_any_dtype_and_column(dtype):
    labels = torch.tensor([0, 3, 3, 1], dtype=dtype)
    for target in (labels, labels[:, None]):
        check_equal(run_both({"num_classes": 5}, torch.randn(4, 1, 2, 2), target, 3))


def test_subclass_and_attributes():
    """Attributes have timm's names and are read at each call."""
    arguments = {"cutmix_minmax": (0.2, 0.8), "prob": 0.7, "num_classes": 10, "mode": "pair"}
    theirs, ours = Theirs(**arguments), Mixup(**arguments)
    for name, value in vars(theirs).items():
        assert getattr(ours, name) == value, name
    ours.mode, ours.mix_prob, ours.cutmix_minmax, ours.cutmix_alpha = "batch", 0.0, None, 0.0
    x = torch.randn(2, 3, 4, 4)
    assert same(ours(x.clone(), torch.tensor([1, 2]))[0], x)


# ------------------------------------------------------------------ where timm fails


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_odd_batch(mode):
    """The middle sample is mixed with itself, or in pair mode not at all; others as ever."""
    x, labels = torch.randn(7, 2, 6, 6, dtype=torch.float64), torch.arange(7)
    for seed in range(20):
        np.random.seed(seed)
        mixed, target = Mixup(0.8, 1.0, mode=mode, num_classes=7)(x.clone(), labels)
        torch.testing.assert_close(mixed[3], x[3], rtol=1e-6, atol=0)
        torch.testing.assert_close(
            target.sum(1).double(), torch.ones(7).double(), rtol=0, atol=1e-6
        )
        assert target[3].argmax() == 3
        assert target[3, 2] == pytest.approx(0.1 / 7)
        if mode != "elem":
            without = torch.cat((x[:3], x[4:])), torch.cat((labels[:3], labels[4:]))
            np.random.seed(seed)
            their_x, their_target = Theirs(0.8, 1.0, mode=mode, num_classes=7)(*without)
            assert torch.equal(their_x, torch.cat((mixed[:3], mixed[4:])))
            assert torch.equal(their_target, torch.cat((target[:3], target[4:])))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_video(mode):
    """Video [B, C, T, H, W] is mixed as images of C·T channels, with the box in H and W."""
    x, labels = torch.randn(4, 2, 3, 8, 5), torch.arange(4)
    for seed in range(10):
        np.random.seed(seed)
        video, target = Mixup(0.0, 1.0, mode=mode, num_classes=4)(x.clone(), labels)
        np.random.seed(seed)
        as_images = x.flatten(1, 2).clone()
        image, image_target = Theirs(0.0, 1.0, mode=mode, num_classes=4)(as_images, labels)
        assert torch.equal(video.flatten(1, 2), image)
        assert torch.equal(target, image_target)


def test_degenerate_bounds_that_are_never_drawn_from():
    labels = torch.tensor([0, 3, 3, 1])
    arguments = {"mixup_alpha": 1.0, "cutmix_minmax": (0.3, 0.45), "switch_prob": 0.0}
    check_equal(run_both({**arguments, "num_classes": 10}, torch.randn(4, 3, 4, 4), labels, 1))
    check_equal(run_both({"mixup_alpha": 0.0, "prob": 0.0}, torch.randn(4, 3, 4, 4), labels, 1))
