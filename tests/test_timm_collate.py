"""FastCollateMixup against timm's own: images, targets and draws bit for bit, in loaders too."""

# ruff: noqa: NPY002 (timm draws from NumPy's global generator)
from __future__ import annotations

import gc
import pickle
import random

import numpy as np
import pytest
import torch
from peers import timm
from torch.utils.data import DataLoader

import fused_mixup as fm
from fused_mixup import MixedTarget, batches, timm_collate
from fused_mixup.timm_collate import FastCollateMixup

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
        # In place of the caller's samples nothing is written (timm's pair mode does).
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
    """A data set in memory, of nothing that a spawned worker would have to import."""
    return [
        (s, i % K) for i, s in enumerate(images(np.random.default_rng(0), count, shape, "array"))
    ]


def loader(data, batch_size, collate, workers=2, seed=0, **kw):
    """Its workers' NumPy generators follow from the seed, however they are started."""
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
    # Memory is used again only where nothing holds a batch any more.
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


class Counting:
    """A collate function that adds to each batch how often its worker has made shared memory."""

    def __init__(self, collate):
        self.collate = collate
        self.made = 0

    def __call__(self, batch):
        real = torch.UntypedStorage._new_shared

        def counted(*args, **kwargs):
            self.made += 1
            return real(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.UntypedStorage, "_new_shared", counted)
            x, _ = self.collate(batch)
        return x, self.made, len(batches._sent)


def test_a_worker_uses_the_memory_of_batches_again():
    running = loader(pairs(120), 2, Counting(FastCollateMixup(num_classes=K)), workers=1)
    made = [count for _, count, _ in running][-1]
    assert made <= batches._KEPT  # for 60 batches, some 4 of them on their way at once
    kept = list(running)
    assert kept[-1][1] - made >= 60 - batches._KEPT
    assert max(known for _, _, known in kept) == batches._KEPT


def test_memory_is_used_again_when_the_last_view_is_gone():
    batches._free.clear()
    x = batches.recycled_batch(torch.Size((2, 3)))
    view, address = x[1:].flatten().numpy(), x.data_ptr()
    assert x.shape == (2, 3) and x.dtype == torch.uint8
    del x
    gc.collect()
    y = batches.recycled_batch(torch.Size((2, 3)))
    assert y.data_ptr() != address  # the view is still there
    del view, y
    gc.collect()
    assert len(batches._free) == 2
    again = {batches.recycled_batch(torch.Size((3, 2))).data_ptr() for _ in range(2)}
    assert address in again | {values.ctypes.data for values in batches._free}


def test_little_memory_waits_to_be_used_again():
    batches._free.clear()
    held = [batches.recycled_batch(torch.Size((4,))) for _ in range(10)]
    del held
    gc.collect()
    assert len(batches._free) == batches._SPARE
    assert batches.recycled_batch(torch.Size((5,))).numel() == 5  # of another size: all are let go
    gc.collect()
    assert [values.size for values in batches._free] == [5]


def test_memory_is_given_back_with_the_last_view():
    memory = torch.zeros(64 + 6, dtype=torch.uint8)
    memory[-1] = 1
    x = batches._receive(memory, (2, 3))
    view = x[1:].flatten().numpy()
    del x
    gc.collect()
    assert memory[-1] == 1
    del view
    gc.collect()
    assert memory[-1] == 0


def test_a_batch_of_a_worker_survives_plain_pickling_and_arithmetic():
    batches._sent.clear()
    x = batches.shared_batch(torch.Size((2, 3))).fill_(5)
    assert type(x + 1) is torch.Tensor and (x.float() == 5).all()
    back = pickle.loads(pickle.dumps(x))
    assert type(back) is torch.Tensor and torch.equal(back, torch.full((2, 3), 5).byte())
    assert batches.shared_batch(torch.Size((2, 3))).data_ptr() != x.data_ptr()
    batches._sent.clear()


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
