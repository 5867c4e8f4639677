"""``fused_mixup.timm.Mixup`` beyond timm: extra features, and cases where timm is wrong."""

# ruff: noqa: NPY002  (timm draws from the legacy generator)

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import fused_mixup as fm
from fused_mixup import MixedTarget
from fused_mixup.timm import Mixup


def state():
    kind, words, *rest = np.random.get_state()
    return kind, words.tobytes(), *rest


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


def images_for(shape, dtype):
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype)
    return torch.randn(shape, dtype=torch.float64).to(dtype)


# ------------------------------------------------------------------ sparse targets


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_sparse_targets(mode, dtype):
    """Draws are equal; ``dense()`` equals the dense target if that holds λ exactly in float32."""
    for seed in range(20):
        x = images_for((6, 3, 9, 8), dtype)
        labels = torch.randint(0, 7, (6,))
        results = []
        for sparse in (False, True):
            np.random.seed(seed)
            mixer = Mixup(0.8, 1.0, mode=mode, num_classes=7, sparse_targets=sparse, prob=0.8)
            results.append((*mixer(x.clone(), labels), state()))
        (images, dense, after), (sparse_images, target, sparse_after) = results
        assert same(images, sparse_images)
        assert after == sparse_after
        assert isinstance(target, MixedTarget)
        assert target.weight.dtype == torch.float32
        if dtype == torch.float32 or dtype == torch.uint8 or mode == "batch":
            assert same(target.dense(), dense)
        else:  # λ per sample is float64, or rounded to bfloat16
            margin = 2**-23 if dtype == torch.float64 else 2**-8
            torch.testing.assert_close(target.dense().to(dense.dtype), dense, rtol=0, atol=margin)
        logits = torch.randn(6, 7)
        loss = fm.soft_target_cross_entropy
        torch.testing.assert_close(
            loss(logits, target), loss(logits, target.dense()), rtol=1e-6, atol=1e-6
        )


# ------------------------------------------------------------------ uint8, bad input


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_uint8(mode):
    """Images equal the float32 result rounded half to even; targets are those of float32 images."""
    x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(6)
    for seed in range(20):
        results = []
        for given in (x.clone(), x.float()):
            np.random.seed(seed)
            results.append((*Mixup(0.8, 1.0, mode=mode, num_classes=6)(given, labels), state()))
        (ours, target, after), (real, real_target, real_after) = results
        assert torch.equal(ours, real.round().to(torch.uint8))
        assert same(target, real_target)
        assert after == real_after


BAD_ARGUMENTS = [
    ({"mixup_alpha": -1.0}, ValueError, "mixup_alpha"),
    ({"mixup_alpha": "one"}, TypeError, "mixup_alpha"),
    ({"cutmix_alpha": float("nan")}, ValueError, "cutmix_alpha"),
    ({"cutmix_minmax": (0.2,)}, AssertionError, "cutmix_minmax"),
    ({"cutmix_minmax": 0.2}, TypeError, "cutmix_minmax"),
    ({"cutmix_minmax": (0.5, 0.5)}, ValueError, "cutmix_minmax"),
    ({"cutmix_minmax": (0.5, 1.5)}, ValueError, "cutmix_minmax"),
    ({"prob": 1.5}, ValueError, "prob"),
    ({"switch_prob": -0.1}, ValueError, "switch_prob"),
    ({"label_smoothing": 1.5}, ValueError, "label_smoothing"),
    ({"num_classes": 0}, ValueError, "num_classes"),
    ({"sparse_targets": True, "multi_label": True}, ValueError, "sparse_targets"),
    ({"compat": "timm 1.0"}, ValueError, "compat"),
]


@pytest.mark.parametrize(("arguments", "error", "name"), BAD_ARGUMENTS)
def test_bad_arguments(arguments, error, name):
    with pytest.raises(error, match=name):
        Mixup(**arguments)


LABELS = torch.tensor([0, 3, 3, 1])
BAD_CALLS = [
    ({"mixup_alpha": 0.0}, torch.ones(4, 3, 4, 4), LABELS, AssertionError, "mixup_alpha"),
    ({}, [1, 2], LABELS, TypeError, "x: "),
    ({}, torch.ones(4, 3, 4, 4, dtype=torch.int64), LABELS, TypeError, "x: "),
    ({}, torch.ones(1, 3, 4, 4).expand(4, -1, -1, -1), LABELS, ValueError, "x: "),
    ({}, torch.ones(4, 3, 4, 4, requires_grad=True), LABELS, ValueError, "x: "),
    ({"cutmix_alpha": 1.0}, torch.ones(4, 4, 4), LABELS, IndexError, "x: .*CutMix"),
    ({"cutmix_alpha": 1.0}, torch.ones(4, 3, 0, 4), LABELS, ValueError, "x: .*CutMix"),
    ({"cutmix_minmax": (0.3, 0.45)}, torch.ones(4, 3, 4, 4), LABELS, ValueError, "cutmix_minmax"),
    ({}, torch.ones(4, 3, 4, 4), [0, 3, 3, 1], TypeError, "target"),
    ({}, torch.ones(4, 3, 4, 4), LABELS[:2], ValueError, "target"),
    ({}, torch.ones(4, 3, 4, 4), LABELS + 7, IndexError, "labels"),
    ({}, torch.ones(4, 3, 4, 4), torch.ones(4, 10), ValueError, "multi_label=True"),
    ({"multi_label": True}, torch.ones(4, 3, 4, 4), LABELS, ValueError, "multi-label"),
    ({"multi_label": True}, torch.ones(4, 3, 4, 4), torch.ones(2, 10), ValueError, "multi-label"),
    (
        {"multi_label": True},
        torch.ones(4, 3, 4, 4),
        torch.ones(4, 10).to_sparse(),
        TypeError,
        "dense",
    ),
    ({}, torch.ones(4, 3, 4, 4), LABELS.to_sparse(), TypeError, "target: .*dense"),
    ({}, torch.ones([4] + [1] * 13), LABELS, ValueError, "x: .*at most 13 dims"),
]


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize(("arguments", "x", "target", "error", "message"), BAD_CALLS)
def test_bad_calls_touch_nothing(arguments, x, target, error, message, mode):
    before, drawn = copy.deepcopy(x), state()
    with pytest.raises(error, match=message):
        Mixup(**{"num_classes": 10, **arguments}, mode=mode)(x, target)
    assert state() == drawn
    assert not isinstance(x, torch.Tensor) or torch.equal(x, before)


# ------------------------------------------------------------------ the switch, copies, compile


class Collate:
    """A data loader's collate function that mixes ones with zeros."""

    def __init__(self, mixup):
        self.mixup = mixup

    def __call__(self, batch):
        x = torch.stack(batch)
        return self.mixup(x, torch.zeros(len(x), dtype=torch.int64))[0]


class OnesAndZeros(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.full((1, 2, 2), float(i % 2))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_switch_reaches_running_workers(method):
    mixup = Mixup(num_classes=2, mode="elem")
    loader = DataLoader(
        OnesAndZeros(),
        batch_size=4,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=method,
        collate_fn=Collate(mixup),
    )
    mixed = []
    for enabled in (True, False, True):
        mixup.mixup_enabled = enabled
        x = torch.cat(list(loader))
        mixed.append(bool(((x != 0) & (x != 1)).any()))
    assert mixed == [True, False, True]


@pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_copies_have_a_switch_of_their_own(copied):
    first = Mixup(0.4, 1.0, num_classes=3, mode="pair", compat="timm<=1.0.28")
    first.mixup_enabled = False
    second = copied(first)
    assert second.mixup_enabled is False
    assert second.compat == "timm<=1.0.28"
    second.mixup_enabled = True
    assert first.mixup_enabled is False
    assert second._shared.is_shared()
    x = torch.randn(4, 3, 4, 4)
    assert not torch.equal(second(x.clone(), torch.arange(4) % 3)[0], x)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_compiles_once(mode, sparse):
    """A step that calls the mixer never recompiles, whatever it draws."""
    torch._dynamo.reset()
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    mixup = Mixup(0.8, 1.0, mode=mode, num_classes=5, sparse_targets=sparse)
    model = torch.nn.Linear(48, 5)

    @torch.compile(backend=count)
    def step(x, y):
        x, target = mixup(x * 2.0, y)
        return fm.soft_target_cross_entropy(model(x.flatten(1)), target)

    x, labels = torch.randn(4, 3, 4, 4), torch.arange(4)
    np.random.seed(0)
    compiled = []
    for _ in range(6):
        loss = step(x, labels)
        loss.backward()
        compiled.append(len(graphs))
    assert compiled[0] >= 2  # one graph before the mixer and one after it
    assert compiled[-1] == compiled[0]
    np.random.seed(0)
    expected, target = mixup(x * 2.0, labels)
    np.random.seed(0)
    torch.testing.assert_close(
        step(x, labels), fm.soft_target_cross_entropy(model(expected.flatten(1)), target)
    )


def test_lam_of_zero_drops_the_sample_and_its_infinity(monkeypatch):
    monkeypatch.setattr(np.random, "beta", lambda *a, size=None: 0.0)
    x = torch.tensor([torch.inf, 2.0]).view(2, 1, 1, 1)
    mixed, _ = Mixup(num_classes=2)(x, torch.arange(2))
    assert mixed.flatten().tolist() == [2.0, torch.inf]


NO_COMPILER = """
import sys
import numpy, torch
from fused_mixup.timm import FastCollateMixup, Mixup
Mixup(1.0, 1.0, num_classes=4)(torch.rand(4, 3, 6, 6), torch.arange(4))
FastCollateMixup(1.0, 1.0, num_classes=4)([(numpy.ones((3, 6, 6), numpy.uint8), 0)] * 4)
print("torch._dynamo" in sys.modules)
"""


def test_eager_use_imports_no_compiler():
    run = subprocess.run(
        [sys.executable, "-c", NO_COMPILER], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_one_op_mixes_the_images(mode, monkeypatch):
    from fused_mixup.timm import mixup as timm_mixup

    calls = []
    monkeypatch.setattr(timm_mixup, "mix_", lambda x, plan: calls.append(fm.mix_(x, plan)))
    mixup = Mixup(0.8, 1.0, mode=mode, num_classes=4)
    mixup(torch.randn(8, 3, 6, 6), torch.zeros(8, dtype=torch.int64))
    mixup.mixup_enabled = False
    mixup(torch.randn(8, 3, 6, 6), torch.zeros(8, dtype=torch.int64))
    assert len(calls) == 1
