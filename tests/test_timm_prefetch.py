"""PrefetchLoader against timm's class: images, targets and draws bit for bit, in loaders too."""

from __future__ import annotations

import copy
import logging
import pickle
import random

import numpy as np
import pytest
import torch
from peers import timm
from torch.utils.data import DataLoader

from fused_mixup import MixedTarget
from fused_mixup.timm import FastCollateMixup, PrefetchLoader

theirs_module = timm.data.loader
Theirs = theirs_module.PrefetchLoader
CPU = torch.device("cpu")
K = 10


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)  # both warn of means of another length


# ------------------------------------------------------------------ equal to timm


def settings(r):
    channels = r.choice([1, 3, 3, 4])
    kw = {
        "channels": channels,
        "img_dtype": r.choice([None, None, torch.float32]),
        "re_prob": r.choice([0.0, 0.25, 0.7, 1.0]),
        "re_mode": r.choice(["const", "rand", "pixel", "Pixel", ""]),
        "re_count": r.choice([1, 1, 2, 3]),
        "re_num_splits": r.choice([0, 0, 1, 2, 3]),
    }
    if r.random() < 0.5:  # other lengths are averaged
        count = r.choice([channels, channels, 3, 1])
        kw["mean"] = tuple(r.random() for _ in range(count))
        kw["std"] = tuple(r.uniform(0.1, 1) for _ in range(count)) if count > 1 else 0.3
    return kw


DTYPES = {
    "bytes": lambda x: x,
    "float32": lambda x: x.float() + 0.25,
    "float64": lambda x: x.double() + 1 / 3,
    "float16": lambda x: x.half(),
    "int32": lambda x: x.int(),
}


def batch(r, g, channels):
    size = r.choice([1, 2, 5, 8])
    shape = (size, channels, r.randint(1, 40), r.randint(1, 40))
    x = torch.randint(256, shape, generator=g, dtype=torch.uint8)
    x = DTYPES[r.choice(["bytes", "bytes", "bytes", *DTYPES])](x)
    layout = r.choice(["rows", "rows", "pixels", "pixels", "turned"])
    if layout == "pixels":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "turned":
        x = x.transpose(2, 3)
    return x, torch.randint(K, (size,), generator=g)


def run(cls, batches, kw, seed):
    """What a loader gives; the consumer draws too, between batches."""
    random.seed(seed)
    torch.manual_seed(seed)
    given = [(x.clone(), y) for x, y in batches]
    out = [(x, y, random.random(), torch.rand(1)) for x, y in cls(given, device=CPU, **kw)]
    return out, random.getstate(), torch.get_rng_state(), given


def compare(count):
    r, g = random.Random(1), torch.Generator().manual_seed(1)
    for seed in range(count):
        kw = settings(r)
        batches = [batch(r, g, kw["channels"]) for _ in range(r.choice([0, 1, 2, 3]))]
        theirs, ours = (run(cls, batches, kw, seed) for cls in (Theirs, PrefetchLoader))
        assert len(theirs[0]) == len(ours[0])
        for (x, y, *drawn), (ours_x, ours_y, *ours_drawn) in zip(theirs[0], ours[0], strict=True):
            assert x.dtype == ours_x.dtype and torch.equal(x, ours_x), (seed, kw)
            assert x.stride() == ours_x.stride() and torch.equal(y, ours_y), (seed, kw)
            assert drawn == ours_drawn, (seed, kw)
        assert theirs[1] == ours[1] and torch.equal(theirs[2], ours[2]), (seed, kw)
        # timm normalises a batch of img_dtype where it lies; ours writes none.
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, ours[3], strict=True))


def test_equal_to_timm_over_random_settings():
    compare(40)


@pytest.mark.proof
def test_equal_to_timm_over_500_random_settings():
    compare(500)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_half_images_are_rounded_once(dtype, mode):
    g = torch.Generator().manual_seed(0)
    batches = [(torch.randint(256, (4, 3, 20, 24), generator=g, dtype=torch.uint8), torch.ones(4))]
    kw = {"re_prob": 0.8, "re_mode": mode, "re_count": 2}
    half = {"fp16": True} if dtype == torch.float16 else {"img_dtype": dtype}
    (((x, *_),), *_), (((theirs, *_),), *_) = (
        run(cls, batches, {**kw, **half}, 3) for cls in (PrefetchLoader, Theirs)
    )
    exact = (batches[0][0].double() / 255 - mean_of(0)) / mean_of(1)
    ((full, *_),), *_ = run(Theirs, batches, {**kw, "re_mode": "const"}, 3)  # the same boxes
    erased = full == 0
    assert x.dtype == theirs.dtype == dtype and 0.01 < float(erased.float().mean()) < 0.6
    assert torch.equal(x[erased], theirs[erased])  # the same draws fill the same pixels
    kept = ~erased
    assert torch.equal(x[kept], exact.float().to(dtype)[kept])
    error, theirs_error = ((v.double() - exact)[kept].abs().max() for v in (x, theirs))
    assert error < theirs_error


def mean_of(which):
    constants = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))[which]
    return torch.tensor(constants, dtype=torch.float64).view(1, 3, 1, 1)


def test_float64_and_others_that_the_op_does_not_take_are_timms():
    batches = [batch(random.Random(0), torch.Generator().manual_seed(0), 3) for _ in range(2)]
    for kw in (
        {"img_dtype": torch.float64},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (float("inf"), 0.0, 0.0)},
    ):
        kw = {"re_prob": 1.0, "re_mode": "rand", **kw}
        ours, theirs = (run(cls, batches, kw, 1) for cls in (PrefetchLoader, Theirs))
        for (x, *_), (y, *_) in zip(ours[0], theirs[0], strict=True):
            assert x.dtype == y.dtype
            torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


def test_on_the_meta_device():
    x = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    ((y, target),) = PrefetchLoader([(x, torch.zeros(2))], device="meta")
    assert y.is_meta and target.is_meta and y.dtype == torch.float32


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_memory_format_may_be_asked_for(channels_last):
    x = torch.randint(256, (2, 3, 8, 9), dtype=torch.uint8)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    for given in (x, x.to(memory_format=torch.channels_last)):
        for dtype in (torch.float32, torch.float64):
            kw = {"channels_last": channels_last, "img_dtype": dtype}
            ((y, _),) = PrefetchLoader([(given, torch.zeros(2))], device="cpu", **kw)
            ((plain, _),) = Theirs([(given, torch.zeros(2))], device=CPU, img_dtype=dtype)
            assert y.is_contiguous(memory_format=wanted) and torch.equal(y, plain)


# ------------------------------------------------------------------ loaders


def data(count=16):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count, 3, 12, 12), generator=g, dtype=torch.uint8).numpy()
    return [(image, i % K) for i, image in enumerate(x)]


def loader(collate, workers=0):
    return DataLoader(data(), 4, collate_fn=collate, num_workers=workers)


MIXES = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "num_classes": K}


@pytest.mark.parametrize("workers", [0, 1])
def test_with_mixing_collate_functions(workers):
    switched = []
    for mix in (timm.data.FastCollateMixup, FastCollateMixup):
        out = []
        for cls in (Theirs, PrefetchLoader):
            collate = mix(**MIXES)
            batches = cls(loader(collate, workers), device=CPU, re_prob=0.5)
            assert len(batches) == 4 and batches.mixup_enabled
            np.random.seed(0)  # noqa: NPY002
            random.seed(0)
            torch.manual_seed(0)
            out.append(list(batches))
            batches.mixup_enabled = False
            switched.append(batches.mixup_enabled or collate.mixup_enabled)
        for (x, y), (ours_x, ours_y) in zip(*out, strict=True):
            assert torch.equal(x, ours_x) and torch.equal(y, ours_y)
    assert not any(switched)


def test_sparse_targets():
    batches = PrefetchLoader(loader(FastCollateMixup(**MIXES, sparse_targets=True)), device="cpu")
    assert all(isinstance(target, MixedTarget) for _, target in batches)
    plain = PrefetchLoader(loader(theirs_module.fast_collate), device="cpu")
    assert plain.mixup_enabled is False
    plain.mixup_enabled = True
    assert plain.mixup_enabled is False


def test_exceptions_of_the_loader_come_after_the_batches_before_them():
    def broken():
        yield torch.zeros(2, 3, 4, 4), torch.zeros(2)
        raise LookupError("sample 2")

    batches = iter(PrefetchLoader(broken(), device="cpu"))
    assert len(next(batches)) == 2
    with pytest.raises(LookupError, match="sample 2"):
        next(batches)


def test_an_instance_of_timms_class_is_still_ours():
    made = PrefetchLoader([1, 2], device="cpu", re_prob=0.3, re_mode="rand", re_count=2)
    for again in (made, copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert isinstance(again, Theirs) and isinstance(again, PrefetchLoader)
        assert type(again) is PrefetchLoader and len(again) == 2
        assert repr(again.random_erasing) == repr(
            timm.data.random_erasing.RandomErasing(0.3, mode="rand", max_count=2, device="cpu")
        )
    theirs = Theirs([], device=CPU)
    assert torch.equal(made.mean, theirs.mean) and torch.equal(made.std, theirs.std)
    assert (made.device, made.img_dtype) == (theirs.device, theirs.img_dtype)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("batch", "error", "says"),
    [
        (torch.zeros(2, 3, 4, 4), TypeError, r"loader: expected pairs \(images, targets\)"),
        ((torch.zeros(2, 3, 4, 4),) * 3, TypeError, r"loader: expected pairs \(images, targets\)"),
        (([], torch.zeros(2)), TypeError, "loader: expected images in a tensor"),
        ((torch.zeros(2, 1, 4, 4), torch.zeros(2)), ValueError, r"\[B, 3, H, W\].*channels="),
        ((torch.zeros(3, 4, 4), torch.zeros(2)), ValueError, r"\[B, 3, H, W\]"),
    ],
)
def test_bad_batches_draw_nothing(batch, error, says):
    random.seed(0)
    state = random.getstate()
    with pytest.raises(error, match=says):
        next(iter(PrefetchLoader([batch], device="cpu", re_prob=1.0)))
    assert random.getstate() == state


def test_an_unknown_mode_is_refused():
    with pytest.raises(AssertionError, match="re_mode: expected 'const', 'rand' or 'pixel'"):
        PrefetchLoader([], device="cpu", re_prob=0.5, re_mode="noise")
