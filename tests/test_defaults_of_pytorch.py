"""timm's and torchvision's classes, and schemes, where the default dtype or device is another."""

# ruff: noqa: NPY002 (timm draws from NumPy's global generator)
from __future__ import annotations

import numpy as np
import pytest
import torch
from peers import timm, v2
from torch.utils.data import DataLoader

from fused_mixup import MixedTarget, plan_state, schemes
from fused_mixup import torchvision as ours_tv
from fused_mixup.timm import FastCollateMixup, Mixup

K = 10
DTYPES = [torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.fixture(params=["set_default_device", "context"])
def meta(request):
    if request.param == "context":
        with torch.device("meta"):
            yield
    else:
        torch.set_default_device("meta")
        yield
        torch.set_default_device(None)


def pairs(count=6):
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (3, 12, 14), dtype=np.uint8), i % K) for i in range(count)]


def batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(6, 3, 12, 14, generator=generator, dtype=torch.float32, device="cpu")
    return x.to(dtype), torch.arange(6, device="cpu")


@pytest.mark.parametrize("default_dtype", DTYPES, ids=str, indirect=True)
@pytest.mark.parametrize("mode", ["batch", "elem", "pair", "half"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_collated_as_timm_in_any_default_dtype(default_dtype, mode, seed):
    kw = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": mode, "num_classes": K}
    np.random.seed(seed)
    x, target = timm.data.FastCollateMixup(**kw)([(image.copy(), y) for image, y in pairs()])
    np.random.seed(seed)
    ours, our_target = FastCollateMixup(**kw)(pairs())
    assert torch.equal(ours, x)
    assert our_target.dtype == target.dtype and torch.equal(our_target, target)
    np.random.seed(seed)
    _, sparse = FastCollateMixup(**kw, sparse_targets=True)(pairs())
    assert sparse.weight.dtype == torch.float32
    eps = max(torch.finfo(default_dtype).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(sparse.dense(torch.float64), target.double(), atol=eps, rtol=0)


@pytest.mark.parametrize("default_dtype", DTYPES, ids=str, indirect=True)
@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_mixed_as_timm_in_any_default_dtype(default_dtype, mode, dtype):
    kw = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": mode, "num_classes": K}
    for seed in range(4):
        x, labels = batch(dtype)
        np.random.seed(seed)
        theirs, target = timm.data.Mixup(**kw)(x.clone(), labels)
        np.random.seed(seed)
        ours, our_target = Mixup(**kw)(x.clone(), labels)
        if dtype == torch.bfloat16:  # ours round once, theirs three times
            torch.testing.assert_close(ours, theirs, atol=2**-7, rtol=0)
        else:
            assert torch.equal(ours, theirs)
        assert our_target.dtype == target.dtype and torch.equal(our_target, target)


@pytest.mark.parametrize("default_dtype", DTYPES, ids=str, indirect=True)
@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_torchvisions_transforms_in_any_default_dtype(default_dtype, name):
    x, labels = batch()
    torch.manual_seed(5)
    ours = getattr(ours_tv, name)(num_classes=K)(x, labels)
    torch.manual_seed(5)
    if default_dtype == torch.float64:
        theirs = getattr(v2, name)(num_classes=K)(x, labels)
    else:  # theirs cannot draw in half precision; ours draws as in float32
        torch.set_default_dtype(torch.float32)
        theirs = getattr(v2, name)(num_classes=K)(x, labels)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("label", [3, 3.0, np.int64(3), torch.tensor(3)], ids=repr)
@pytest.mark.parametrize("sparse", [False, True])
def test_collated_on_the_cpu_whatever_the_default_device(meta, label, sparse):
    collate = FastCollateMixup(num_classes=K, sparse_targets=sparse, cutmix_alpha=1.0)
    samples = [(image, label) for image, _ in pairs()]
    x, target = collate(samples)
    assert x.device.type == target_device(target) == "cpu"
    expected = torch.full((6,), 3, device="cpu")
    found = target.dominant if isinstance(target, MixedTarget) else target.argmax(1)
    assert torch.equal(found, expected)


def target_device(target):
    return (target.labels if isinstance(target, MixedTarget) else target).device.type


@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
@pytest.mark.parametrize("sparse", [False, True])
def test_mixup_stays_where_the_batch_lives(meta, mode, sparse):
    x, labels = batch()
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode=mode, num_classes=K, sparse_targets=sparse)
    mixed, target = mix(x, labels)
    assert mixed.device.type == target_device(target) == "cpu"


@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
@pytest.mark.parametrize("made", ["inside", "outside"])
def test_torchvisions_transforms_draw_on_the_cpu_under_meta(name, made):
    x, labels = batch()
    transform = getattr(ours_tv, name)
    torch.manual_seed(5)
    expected = transform(num_classes=K)(x, labels)
    outside = transform(num_classes=K)
    with torch.device("meta"):
        inside = transform(num_classes=K)
        torch.manual_seed(5)
        got = (inside if made == "inside" else outside)(x, labels)
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])


def _meta_in_worker(worker_id):
    torch.set_default_device("meta")


def test_in_a_worker_whatever_its_default_device():
    data = pairs(8)
    collate = FastCollateMixup(num_classes=K, prob=0.0)
    loader = DataLoader(data, 4, num_workers=1, collate_fn=collate, worker_init_fn=_meta_in_worker)
    for i, (x, target) in enumerate(loader):
        assert x.device.type == target.device.type == "cpu"
        for k in range(4):
            assert np.array_equal(x[k].numpy(), data[4 * i + k][0])
            assert int(target[k].argmax()) == 4 * i + k


def test_schemes_stay_where_the_batch_lives():
    """None makes a tensor on the default device on its way."""
    x, labels = batch()
    state, soft = plan_state(0), torch.ones(6, K) / K
    counts, pool = torch.ones(K), torch.rand(2 * K, 3, 12, 14)
    pool_labels, head = torch.arange(2 * K) % K, torch.rand(3 * 12 * 14, K)
    with torch.device("meta"):
        mixed, plan = schemes.unmix(x, state=state)
        found = [
            mixed,
            schemes.unmix_loss(lambda a, b: (a - b).square().mean(), x, mixed, x, plan),
            schemes.remix(x, labels, counts, state=state)[0],
            schemes.regmixup(x, labels, K, state=state)[0],
            schemes.balanced_mixup(x, labels, x, labels, K, state=state, alpha=0.2)[0],
            *schemes.mixmatch(x, labels, x, schemes.sharpen(soft), state=state),
            schemes.mixup_inference(lambda t: t.flatten(1) @ head, x, pool, pool_labels),
        ]
    assert {t.device.type for t in found} == {"cpu"}
