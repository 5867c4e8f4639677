"""Inputs of timm's classes: gradients, float labels, data in memory; and the texts of refusals."""

# ruff: noqa: NPY002 (timm draws from NumPy's global generator)
from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from peers import timm
from torch.utils.data import DataLoader

from fused_mixup.timm import BinaryCrossEntropy, FastCollateMixup, Mixup

K = 10


def run_both(seed, **kw):
    for cls in (timm.data.Mixup, Mixup):
        np.random.seed(seed)
        yield cls(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=K, **kw)


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_flow_through_images_that_a_layer_made(mode, dtype):
    raw, labels = torch.rand(6, 3, 9, 11, dtype=dtype), torch.arange(6)
    upstream = torch.rand_like(raw)
    for seed in range(8):
        results = []
        for mix in run_both(seed, mode=mode):
            leaf = raw.clone().requires_grad_()
            x = leaf * 2
            mixed, target = mix(x, labels)
            assert mixed is x and x.requires_grad
            mixed.backward(upstream)
            results.append((mixed.detach(), target, leaf.grad))
        (x, target, grad), (ours, our_target, our_grad) = results
        assert torch.equal(ours, x) and torch.equal(our_target, target)
        torch.testing.assert_close(our_grad, grad)


def test_a_leaf_is_mixed_without_gradients_alone():
    x, labels = torch.rand(4, 3, 8, 8).requires_grad_(), torch.arange(4)
    before = np.random.get_state()[2]
    for mix, error in zip(run_both(0), (RuntimeError, ValueError), strict=True):
        before = np.random.get_state()[2]
        with pytest.raises(error, match="leaf"):
            mix(x, labels)
    with pytest.raises(ValueError, match="view of one"):
        Mixup(num_classes=K)(x.view(4, 3, 64, 1), labels)
    assert np.random.get_state()[2] == before  # nothing was drawn
    results = []
    for mix in run_both(0):
        y = x.detach().clone().requires_grad_()
        with torch.no_grad():
            results.append(mix(y, labels))
    assert torch.equal(results[0][0], results[1][0]) and results[1][0].requires_grad


def test_a_slice_of_data_in_memory_is_mixed_there_as_by_timm():
    data, labels = torch.rand(8, 3, 6, 6), torch.arange(4)
    theirs, ours = data.clone(), data.clone()
    for mix, held in zip(run_both(1), (theirs, ours), strict=True):
        mix(held[:4], labels)
    assert torch.equal(theirs, ours) and not torch.equal(ours[:4], data[:4])
    assert torch.equal(ours[4:], data[4:])


# ------------------------------------------------------------------ float labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_whole_numbers_are_class_indices(dtype):
    x, labels = torch.rand(4, 3, 8, 8), torch.tensor([3, 0, 9, 3])
    kinds = labels, labels.to(dtype)
    expected, got = (mix(x.clone(), y) for mix, y in zip(run_both(0), kinds, strict=True))
    assert torch.equal(got[1], expected[1])
    logits = torch.randn(4, K)
    loss = BinaryCrossEntropy()
    assert torch.equal(loss(logits, labels.to(dtype)), loss(logits, labels))


@pytest.mark.parametrize("labels", [[0.7, 1.0, 2.0, 3.0], [0.0, float("nan"), 1.0, 2.0]])
@pytest.mark.parametrize("sparse", [False, True])
def test_fractions_are_no_class_indices(labels, sparse):
    x, target = torch.rand(4, 3, 8, 8), torch.tensor(labels)
    before, state = x.clone(), np.random.get_state()[2]
    with pytest.raises(TypeError, match=r"class indices.*float32 \[4\].*multi_label.*mix_labels"):
        Mixup(num_classes=K, sparse_targets=sparse)(x, target)
    samples = [(np.ones((3, 8, 8), np.uint8), y) for y in labels]
    with pytest.raises(TypeError, match="with fractions"):
        FastCollateMixup(num_classes=K, sparse_targets=sparse)(samples)
    with pytest.raises(TypeError, match="with fractions"):
        BinaryCrossEntropy()(torch.randn(4, K), target)
    assert torch.equal(x, before) and np.random.get_state()[2] == state


def test_a_single_logit_has_no_class_indices():
    for labels in ([0, 0, 0], [0.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match=r"\[:, None\]\.float\(\)"):
            BinaryCrossEntropy()(torch.randn(3, 1), torch.tensor(labels))


# ------------------------------------------------------------------ uint8


@pytest.mark.parametrize("mode", ["pair", "elem"])
def test_uint8_cutmix_has_the_targets_of_float_images(mode):
    x, labels = (torch.rand(6, 3, 16, 16) * 255).byte(), torch.arange(6)
    differs = False
    for seed in range(5):
        results = []
        for images in (x.clone(), x.float()):
            np.random.seed(seed)
            mix = Mixup(0.0, 1.0, mode=mode, num_classes=K)
            results.append(mix(images, labels))
        assert torch.equal(results[0][0].float(), results[1][0])
        assert torch.equal(results[0][1], results[1][1])
        np.random.seed(seed)
        theirs = timm.data.Mixup(0.0, 1.0, mode=mode, num_classes=K)(x.clone(), labels)
        assert torch.equal(theirs[0], results[0][0])
        differs |= not torch.equal(theirs[1], results[0][1])
    assert differs  # docs/switching.md documents this


# ------------------------------------------------------------------ texts of refusals

IMAGE = np.arange(192, dtype=np.uint8).reshape(3, 8, 8)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (
            [{"image": IMAGE, "label": 1}] * 2,
            r"pairs \(image, label\), got dict.*BatchMix.*mix_sam",
        ),
        ([IMAGE, 3], r"pairs \(image, label\), got int and ndarray"),
        ([(IMAGE,)] * 2, r"pairs \(image, label\), got tuple"),
        ([(IMAGE, "cat")] * 2, "class indices, got str; .*number"),
        ([(IMAGE, b"cat")] * 2, "class indices, got bytes"),
        ([(IMAGE, None)] * 2, "class indices, got NoneType"),
        ([(IMAGE, {"label": 1})] * 2, "class indices, got dict"),
        ([(IMAGE, [1, 2])] * 2, "class indices, got list"),
        ([({"image": IMAGE}, 1)] * 2, "got dict"),
    ],
)
def test_what_is_no_batch_is_named(batch, says):
    state = np.random.get_state()[2]
    with pytest.raises(TypeError, match=says) as error:
        FastCollateMixup(num_classes=K)(batch)
    assert len(str(error.value)) < 300 and "array(" not in str(error.value)
    assert np.random.get_state()[2] == state


@pytest.mark.parametrize("name", ["mixup_alpha", "prob", "switch_prob", "cutmix_minmax"])
@pytest.mark.parametrize("value", [torch.rand(40, 40), np.ones((40, 40)), [[0.5] * 400] * 3])
def test_no_argument_is_printed_as_a_whole(name, value):
    with pytest.raises((TypeError, ValueError, AssertionError), match=name) as error:
        Mixup(**{name: value})
    assert len(str(error.value)) < 200


# ------------------------------------------------------------------ how workers start


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("sparse", [False, True])
def test_the_collator_reaches_workers_however_they_start(start, sparse):
    data = [(np.full((3, 4, 4), i, np.uint8), i % K) for i in range(8)]
    collate = FastCollateMixup(num_classes=K, prob=0.0, sparse_targets=sparse)
    loader = DataLoader(data, 4, num_workers=1, collate_fn=collate, multiprocessing_context=start)
    for i, (x, target) in enumerate(loader):
        dense = target.dense() if sparse else target
        for k in range(4):
            assert (x[k] == 4 * i + k).all() and int(dense[k].argmax()) == (4 * i + k) % K
