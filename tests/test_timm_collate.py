"""FastCollateMixup against timm's class: images, targets and draws bit for bit, in loaders too."""

# ruff: noqa: NPY002 (timm draws from NumPy's global generator)
from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from peers import timm
from torch.utils.data import DataLoader

import fused_mixup as fm
from fused_mixup import MixedTarget
from fused_mixup.timm import FastCollateMixup, Mixup
from fused_mixup.timm import collate as timm_collate

Theirs = timm.data.FastCollateMixup
K = 10


def images(rng, count, shape, kind):
    """uint8 samples as arrays, arrays of pixels with channels last, or tensors."""
    out = []
    for _ in range(count):
        a = rng.integers(0, 256, shape, dtype=np.uint8)
        if kind == "pixels":
            a = np.ascontiguousarray(a.transpose(1, 2, 0)).transpose(2, 0, 1)
        out.append(torch.from_numpy(a) if kind == "tensor" else a)
    return out


def copies(batch):
    return [(s.clone() if isinstance(s, torch.Tensor) else s.copy(order="K"), y) for s, y in batch]


def run(collate, batch, seed):
    np.random.seed(seed)
    x, target = collate(batch)
    return x, target, np.random.get_state()


def assert_equal(ours, theirs, what):
    assert ours[0].dtype == theirs[0].dtype and torch.equal(ours[0], theirs[0]), what
    assert ours[1].dtype == theirs[1].dtype and torch.equal(ours[1], theirs[1]), what
    (_, words, at, *rest), (_, their_words, their_at, *their_rest) = ours[2], theirs[2]
    assert at == their_at and rest == their_rest and np.array_equal(words, their_words), what


def configuration(r):
    mix, cut = r.choice([(1.0, 0.0), (0.0, 1.0), (0.8, 1.0), (0.2, 0.1), (1e-3, 1e-3), (8.0, 8.0)])
    return {
        "mixup_alpha": mix,
        "cutmix_alpha": cut,
        "cutmix_minmax": r.choice([None, None, None, (0.2, 0.8), (0.0, 1.0)]),
        "prob": r.choice([1.0, 1.0, 0.5, 0.0]),
        "switch_prob": r.choice([0.5, 0.5, 0.0, 1.0]),
        "correct_lam": r.random() < 0.7,
        "label_smoothing": r.choice([0.0, 0.1, 0.37]),
        "num_classes": K,
        "multi_label": r.random() < 0.25,
    }


@pytest.mark.parametrize("mode", ["batch", "elem", "pair", "half"])
def test_equal_to_timm_over_random_configurations(mode):
    r, rng = random.Random(mode), np.random.default_rng(7)
    torch.manual_seed(1)
    for seed in range(600):
        kw = {**configuration(r), "mode": mode}
        kind = r.choice(["array", "pixels", "tensor"])
        count = r.choice([2, 4, 6, 10])
        shape = (r.choice([1, 3, 3, 4]), r.randint(5, 40), r.randint(5, 40))
        labels = [r.choice([int, np.int64])(r.randrange(K)) for _ in range(count)]
        if kw["multi_label"]:
            labels = list((torch.rand(count, K) < 0.3).to(r.choice([torch.float32, torch.int64])))
        batch = list(zip(images(rng, count, shape, kind), labels, strict=True))
        theirs, ours, enabled = Theirs(**kw), FastCollateMixup(**kw), r.random() < 0.9
        theirs.mixup_enabled = ours.mixup_enabled = enabled
        expected = run(theirs, copies(batch), seed)
        kept = copies(batch)
        got = run(ours, batch, seed)
        what = (seed, kind, count, shape, enabled, kw)
        assert got[0].is_contiguous() and len(got[0]) == len(got[1]), what
        assert_equal(got, expected, what)
        # The caller's samples are not overwritten (timm's pair mode overwrites them).
        for (sample, _), (before, _) in zip(batch, kept, strict=True):
            assert np.array_equal(np.asarray(sample), np.asarray(before)), what


def test_three_batches_in_a_row_leave_the_generator_where_timm_does():
    rng = np.random.default_rng(0)
    for mode in ("batch", "elem", "pair", "half"):
        kw = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": mode, "num_classes": K}
        theirs, ours = Theirs(**kw), FastCollateMixup(**kw)
        batches = [
            [(s, i % K) for i, s in enumerate(images(rng, 6, (3, 16, 24), "array"))]
            for _ in range(3)
        ]
        np.random.seed(3)
        expected = [theirs(copies(b)) for b in batches]
        after = np.random.rand()
        np.random.seed(3)
        for batch, (x, target) in zip(batches, expected, strict=True):
            got = ours(batch)
            assert torch.equal(got[0], x) and torch.equal(got[1], target)
        assert np.random.rand() == after


def test_full_size_images():
    rng = np.random.default_rng(0)
    for kind in ("array", "pixels", "tensor"):
        batch = [(s, i % K) for i, s in enumerate(images(rng, 16, (3, 224, 224), kind))]
        for mode, mix, cut in (("batch", 1.0, 0.0), ("batch", 0.0, 1.0), ("elem", 1.0, 1.0)):
            kw = {"mixup_alpha": mix, "cutmix_alpha": cut, "mode": mode, "num_classes": K}
            expected = run(Theirs(**kw), copies(batch), 5)
            assert_equal(run(FastCollateMixup(**kw), batch, 5), expected, (kind, kw))


@pytest.mark.parametrize("mode", ["batch", "elem", "pair", "half"])
def test_sparse_targets_stand_for_the_dense_ones(mode):
    rng = np.random.default_rng(0)
    batch = [(s, i % K) for i, s in enumerate(images(rng, 8, (3, 12, 12), "array"))]
    kw = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": mode, "num_classes": K}
    for seed in range(10):
        x, dense, _ = run(FastCollateMixup(**kw), batch, seed)
        x_sparse, sparse, _ = run(FastCollateMixup(**kw, sparse_targets=True), batch, seed)
        assert isinstance(sparse, MixedTarget) and torch.equal(x, x_sparse)
        assert torch.equal(sparse.dense(), dense)


def test_odd_batches():
    rng = np.random.default_rng(0)
    for count in (1, 3, 7):
        batch = [(s, i) for i, s in enumerate(images(rng, count, (3, 12, 12), "array"))]
        for mode in ("batch", "elem", "pair"):
            kw = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "mode": mode, "num_classes": K}
            for seed in range(5):
                x, target, _ = run(FastCollateMixup(**kw), batch, seed)
                middle = count // 2
                assert torch.equal(x[middle], torch.from_numpy(batch[middle][0]))
                assert torch.allclose(target.sum(1), torch.ones(count))
        with pytest.raises(ValueError, match="even number of samples.*drop_last=True"):
            FastCollateMixup(mode="half")(batch)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("samples", "labels", "error", "says"),
    [
        ([torch.ones(3, 8, 8)] * 2, [0, 1], TypeError, "batch: expected uint8 samples"),
        ([np.ones((3, 8, 8))] * 2, [0, 1], TypeError, "batch: expected uint8 samples"),
        ([(1, 2)] * 2, [0, 1], TypeError, r"samples\[0\].*PILToTensor"),
        ([np.ones((3, 8, n), np.uint8) for n in (8, 9)], [0, 1], ValueError, "resize or crop"),
        ([np.ones([1] * 13, np.uint8)] * 2, [0, 1], ValueError, "at most 13 dims"),
        ([np.ones((3, 8, 8), np.uint8)] * 2, [0, K], IndexError, "num_classes"),
        ([np.ones((3, 8, 8), np.uint8)] * 2, [torch.ones(K)] * 2, ValueError, "multi_label=True"),
    ],
)
def test_bad_input_draws_nothing(samples, labels, error, says):
    np.random.seed(0)
    expected = np.random.get_state()[2]
    with pytest.raises(error, match=says):
        FastCollateMixup(num_classes=K)(list(zip(samples, labels, strict=True)))
    assert np.random.get_state()[2] == expected


def test_a_picture_is_refused_with_the_remedy():
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 8))
    with pytest.raises(TypeError, match="PILToTensor or timm's ToNumpy"):
        FastCollateMixup()([(image, 0), (image, 1)])


# ------------------------------------------------------------------ data loaders


def pairs(count=24, shape=(3, 16, 20)):
    """A data set in memory, of objects that a spawned worker need not import."""
    return [
        (s, i % K) for i, s in enumerate(images(np.random.default_rng(0), count, shape, "array"))
    ]


def loader(data, batch_size, collate, workers=2, seed=0, **kw):
    """A loader that seeds its workers' NumPy generators, however workers start."""
    generator = torch.Generator().manual_seed(seed)
    kw = {"collate_fn": collate, "num_workers": workers, "generator": generator, **kw}
    return DataLoader(data, batch_size, persistent_workers=workers > 0, **kw)


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_in_workers(start, workers):
    kw = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": "elem", "num_classes": K}
    data = pairs()
    collate = FastCollateMixup(**kw)
    theirs = loader(data, 4, Theirs(**kw), workers)
    ours = loader(data, 4, collate, workers, multiprocessing_context=start)
    kept = []
    for _ in range(3):
        for (x, target), (their_x, their_target) in zip(ours, theirs, strict=True):
            assert type(x) is torch.Tensor and torch.equal(x, their_x)
            assert torch.equal(target, their_target)
            kept.append((x, their_x))
    # Memory is reused only after the last reference to a batch is gone.
    for x, their_x in kept:
        assert torch.equal(x, their_x)
    collate.mixup_enabled = False
    for i, (x, _) in enumerate(ours):
        assert torch.equal(
            x, torch.stack([torch.from_numpy(s) for s, _ in data[4 * i : 4 * i + 4]])
        )


def test_sparse_targets_from_workers():
    kw = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "num_classes": K}
    data = pairs()
    dense = loader(data, 4, FastCollateMixup(**kw))
    sparse = loader(data, 4, FastCollateMixup(**kw, sparse_targets=True))
    for (x, target), (x_sparse, sparse_target) in zip(dense, sparse, strict=True):
        assert isinstance(sparse_target, MixedTarget) and torch.equal(x, x_sparse)
        assert torch.equal(sparse_target.dense(), target)


def test_switching_off_reaches_workers_that_run():
    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=K)
    data = pairs()
    x = torch.stack([torch.from_numpy(s) for s, _ in data]).split(4)
    running = loader(data, 4, collate)
    for enabled in (True, False, True):
        collate.mixup_enabled = enabled
        same = [torch.equal(mixed, plain) for (mixed, _), plain in zip(running, x, strict=True)]
        assert not any(same) if enabled else all(same)


def test_timms_prefetch_loader_switches_ours_off():
    collate, data = FastCollateMixup(mixup_alpha=1.0, num_classes=K), pairs()
    running = loader(data, 4, collate, workers=1)
    prefetching = timm.data.loader.PrefetchLoader(
        running, mean=(0.0,) * 3, std=(1 / 255,) * 3, device=torch.device("cpu")
    )
    for enabled in (True, False):
        prefetching.mixup_enabled = enabled
        assert prefetching.mixup_enabled is collate.mixup_enabled is enabled
        x = torch.cat([x for x, _ in prefetching])
        assert (
            torch.equal(x, torch.stack([torch.from_numpy(s).float() for s, _ in data])) != enabled
        )


def test_an_instance_of_timms_class_is_still_ours():
    collate = FastCollateMixup(num_classes=K, pin_memory=True)
    for c in (collate, copy.deepcopy(collate), copy.copy(collate), Mine(pin_memory=True)):
        assert isinstance(c, Theirs) and isinstance(c, FastCollateMixup)
        for again in (c, pickle.loads(pickle.dumps(c))):
            assert type(again) in (FastCollateMixup, Mine) and type(again) is type(c)
            assert again.pin_memory and repr(again) == repr(c)
            assert repr(again).startswith(type(c).__name__)
    assert not isinstance(Mixup(), timm.data.mixup.Mixup)


class Mine(FastCollateMixup):
    """A user's subclass."""


def test_pinning_is_asked_for_only_where_there_is_cuda(monkeypatch):
    asked = []
    real = torch.empty

    def empty(*args, pin_memory=False, **kwargs):
        asked.append(pin_memory)
        return real(*args, **kwargs)

    monkeypatch.setattr(timm_collate.torch, "empty", empty)
    batch = [(np.ones((3, 8, 8), np.uint8), 0)] * 2
    for cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        for pin in (False, True):
            asked.clear()
            FastCollateMixup(num_classes=K, pin_memory=pin)(batch)
            assert any(asked) == (pin and cuda)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_output(workers):
    collate = FastCollateMixup(num_classes=K, pin_memory=True, sparse_targets=True)
    for x, target in loader(pairs(), 4, collate, workers, pin_memory=True):
        assert x.is_pinned() and target.labels.is_pinned()


def test_the_op_is_what_mixes(monkeypatch):
    calls = []
    monkeypatch.setattr("fused_mixup.reference.mix_samples", lambda *a: calls.append(len(a[0])))
    with fm.backend("reference"):
        FastCollateMixup(num_classes=K)([(np.ones((3, 8, 8), np.uint8), 0)] * 6)
    assert calls == [6]


@pytest.mark.parametrize("label", [0, 3.0, True, 2**40, 2**63, 2**70, np.int64(3), torch.tensor(3)])
def test_labels_of_any_kind_are_those_of_default_collate(label):
    from torch.utils.data import default_collate

    from fused_mixup.timm.labels import collate_labels

    labels = [label, label]
    try:
        want = default_collate(labels)
    except (RuntimeError, ValueError, OverflowError) as error:
        with pytest.raises(type(error)):
            collate_labels("batch", labels)
        return
    got = collate_labels("batch", labels)
    assert got.dtype == want.dtype and torch.equal(got, want)
