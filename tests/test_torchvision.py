"""Our MixUp and CutMix have torchvision's draws, images, targets and generator state."""

from __future__ import annotations

import copy
import functools
import random
import warnings

import pytest
import torch
from peers import tv_tensors, v2
from torch.utils._pytree import tree_flatten

from fused_mixup import torchvision as ours

KINDS = ("MixUp", "CutMix")
HALVES = (torch.float16, torch.bfloat16)
STRUCTURES = ("pair", "list", "dict", "nested", "image", "video", "two images", "extras")
EXACT = 2400  # random configurations that must agree bit for bit
HALF = 300  # half-precision configurations, whose images must be at least as near to the truth
PARTS = 8


# ------------------------------------------------------------------ random configurations


def random_image(rng, batch, size, dtype, frames=0):
    shape = [batch, *([frames] if frames else []), rng.choice((1, 2, 3)), *size]
    if dtype == torch.uint8:
        x = torch.randint(0, 256, shape, dtype=torch.uint8)
    else:
        x = (torch.randn(shape, dtype=torch.float64) + 0.5).to(dtype)
    layout = rng.choice(("contiguous", "channels_last", "strided"))
    if layout == "channels_last":
        last = torch.channels_last_3d if frames else torch.channels_last
        return x.contiguous(memory_format=last)
    return x.transpose(-1, -2).contiguous().transpose(-1, -2) if layout == "strided" else x


def random_labels(rng, batch, k, kind):
    if kind == "index":
        return torch.randint(0, k, (batch,))
    soft = torch.rand(batch, k, dtype=torch.float64)
    return (soft * 5).to(kind)


def random_sample(rng, structure, dtype, label_kind):
    """(sample as a tuple of inputs, labels_getter, K)."""
    batch, k = rng.randint(1, 9), rng.randint(2, 12)
    size = rng.randint(1, 21), rng.randint(1, 21)
    image = functools.partial(random_image, rng, batch, size, dtype)
    labels = random_labels(rng, batch, k, label_kind)
    extra = torch.arange(batch)
    sample = {
        "pair": lambda: (image(), labels),
        "list": lambda: ([image(), labels, "name"],),
        "dict": lambda: ({"pixels": image(), "Labels": labels, "id": extra},),
        "nested": lambda: ((image(), {"id": extra, "my_label": labels, "more": [extra, (None,)]}),),
        "image": lambda: ({"x": extra, "x2": tv_tensors.Image(image()), "label": labels},),
        "video": lambda: (tv_tensors.Video(image(frames=rng.randint(1, 3))), labels, 3.5),
        "two images": lambda: (
            tv_tensors.Image(image()),
            {"LABELS": labels, "other": tv_tensors.Image(image()), "not mixed": image()},
        ),
        "extras": lambda: ((image(), extra, {"target": [labels]}),),
    }[structure]()
    return sample, (hidden_labels if structure == "extras" else "default"), k


def hidden_labels(sample):
    return sample[2]["target"][0]


def run_both(kind, options, sample, seed):
    """Results and generator states of torchvision and of ours, with the same seed."""
    for module in (v2, ours):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            out = getattr(module, kind)(**options)(*sample)
        yield out, torch.get_rng_state()


def configuration(seed, half):
    """One random configuration: the transform, its options and its input."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind = rng.choice(KINDS)
    dtypes = HALVES if half else (torch.float32, torch.float32, torch.float64)
    exact = not half and kind == "CutMix"
    dtype = rng.choice((*dtypes, torch.uint8, torch.int16, torch.bool) if exact else dtypes)
    soft = (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool)
    label_kind = rng.choice(("index", "index", *soft, *(HALVES if half else ())))
    structure = rng.choice(STRUCTURES)
    sample, getter, k = random_sample(rng, structure, dtype, label_kind)
    options = {
        "alpha": rng.choice((0.05, 0.2, 0.8, 1.0, 3.0)),
        "num_classes": k if label_kind == "index" or rng.random() < 0.5 else None,
        "labels_getter": getter,
    }
    return kind, options, sample, f"{kind} {structure} {dtype} {label_kind} seed {seed}"


@pytest.mark.parametrize("part", range(PARTS))
def test_equals_torchvision_bit_for_bit(part):
    for seed in range(part, EXACT, PARTS):
        kind, options, sample, name = configuration(seed, half=False)
        before = [copy.deepcopy(leaf) for leaf in tree_flatten(sample)[0]]
        (want, want_state), (got, got_state) = run_both(kind, options, sample, seed)
        assert torch.equal(want_state, got_state), name
        want, want_spec = tree_flatten(want)
        got, got_spec = tree_flatten(got)
        assert want_spec == got_spec, name
        for a, b, untouched, given in zip(want, got, before, tree_flatten(sample)[0], strict=True):
            assert type(a) is type(b), name
            if not isinstance(a, torch.Tensor):
                assert a == b, name
                continue
            assert a.dtype == b.dtype and torch.equal(a, b), name
            assert torch.equal(untouched, given), f"{name}: an input was written"
            assert (a is given) == (b is given), f"{name}: passed through or not"


@pytest.mark.parametrize("part", range(2))
def test_half_types_exact_labels_and_images_nearer_the_truth(part):
    ours_off = theirs_off = 0.0
    for seed in range(part, HALF, 2):
        kind, options, sample, name = configuration(seed, half=True)
        wide = [
            leaf.double() if isinstance(leaf, torch.Tensor) and leaf.dtype in HALVES else leaf
            for leaf in tree_flatten(sample)[0]
        ]
        truth = torch.utils._pytree.tree_unflatten(wide, tree_flatten(sample)[1])
        (want, want_state), (got, got_state) = run_both(kind, options, sample, seed)
        torch.manual_seed(seed)
        exact = tree_flatten(getattr(v2, kind)(**options)(*relabelled(truth, sample)))[0]
        assert torch.equal(want_state, got_state), name
        for a, b, t in zip(tree_flatten(want)[0], tree_flatten(got)[0], exact, strict=True):
            if not isinstance(a, torch.Tensor):
                continue
            assert type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape, name
            if a.ndim >= 4 and kind == "MixUp":
                off = (b.double() - t).abs(), (a.double() - t).abs()
                assert off[0].max() <= off[1].max() + 1e-12, name
                ours_off, theirs_off = ours_off + off[0].sum(), theirs_off + off[1].sum()
            else:
                assert torch.equal(a, b), name
    assert 0 < ours_off < 0.9 * theirs_off


def relabelled(truth, sample):
    """Restore the class of tv_tensors, which .double() drops."""
    leaves, spec = tree_flatten(truth)
    kinds = [type(leaf) for leaf in tree_flatten(sample)[0]]
    leaves = [
        kind(leaf) if issubclass(kind, tv_tensors.TVTensor) else leaf
        for kind, leaf in zip(kinds, leaves, strict=True)
    ]
    return torch.utils._pytree.tree_unflatten(leaves, spec)


# ------------------------------------------------------------------ edges


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", ["index", "soft", "half", "inferred"])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_small_and_empty_batches(kind, labels, batch):
    batch += labels == "inferred"  # torchvision cannot infer K from no labels
    x, k = torch.rand(batch, 3, 8, 8), {"inferred": -1}.get(labels, 5)
    y = {"soft": torch.rand(batch, 5), "half": torch.rand(batch, 5).half()}
    y = y.get(labels, torch.arange(batch))
    (want, state), (got, own_state) = run_both(kind, {"num_classes": k}, (x, y), 3)
    assert torch.equal(state, own_state)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_several_calls_share_one_generator(kind):
    theirs, own = getattr(v2, kind)(num_classes=4), getattr(ours, kind)(num_classes=4)
    x, y = torch.rand(6, 3, 9, 7), torch.arange(6) % 4
    torch.manual_seed(11)
    want = [theirs(x, y) for _ in range(20)]
    torch.manual_seed(11)
    got = [own(x, y) for _ in range(20)]
    pairs = [(a, b) for w, g in zip(want, got, strict=True) for a, b in zip(w, g, strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert len({float(g[1].max()) for g in got}) > 5  # each call draws another λ


def test_default_dtype_of_float64_draws_the_same():
    torch.set_default_dtype(torch.float64)
    try:
        x, y = torch.rand(4, 3, 6, 6), torch.arange(4)
        (want, state), (got, own_state) = run_both("CutMix", {"num_classes": 4}, (x, y), 5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(state, own_state) and torch.equal(want[0], got[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_torchvision(kind):
    grads, weight = [], torch.randn(4, 3, 6, 5)
    for module in (v2, ours):
        torch.manual_seed(2)
        x = torch.ones(4, 3, 6, 5, requires_grad=True)
        soft = torch.rand(4, 3, requires_grad=True)
        images, labels = getattr(module, kind)()(x * 2, soft)
        ((images * weight).sum() + (labels**2).sum()).backward()
        grads.append((x.grad, soft.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_complex_images_are_blended_as_torchvision_does():
    x = torch.randn(3, 1, 4, 4, dtype=torch.complex64)
    for kind in KINDS:
        (want, _), (got, _) = run_both(kind, {"num_classes": 3}, (x, torch.arange(3)), 1)
        assert torch.equal(want[0], got[0]) and not torch.equal(got[0], x)


def test_memory_format_is_kept():
    x = torch.rand(4, 3, 8, 6).contiguous(memory_format=torch.channels_last)
    for kind in KINDS:
        images, _ = getattr(ours, kind)(num_classes=4)(x, torch.arange(4))
        assert images.is_contiguous(memory_format=torch.channels_last)
